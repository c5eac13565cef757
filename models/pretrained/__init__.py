"""Checkpoints of other programs, read without executing anything, as networks of this folder."""

from .reader import read, state_dict
from .unpickle import Record

__all__ = ["Record", "read", "state_dict"]
