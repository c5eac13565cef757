"""Checkpoints of other programs, read without executing anything, as networks of this folder."""

from . import calls
from .converted import Converted
from .files import FAMILIES, convert, export, load, write
from .modules import state_dict
from .reader import read
from .values import Record

__all__ = ["FAMILIES", "Converted", "Record", "calls", "convert", "export", "load", "read", "state_dict", "write"]
