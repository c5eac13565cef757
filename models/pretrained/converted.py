"""What a converter makes of a checkpoint: a network of ours with its parameters, and how it is to be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from .layouts import StoredAt, Tensors

Settings: TypeAlias = dict[str, Any]
"""Plain values, which can be written as JSON:

    shape: of an example, (height, width, channels)
    num_classes: 0 for none
    network: what the module is built with
    call: how it is called, see `calls.py`; of a network that makes no samples neither this nor the first two

and what else a family says of its network.
"""


class Converted(NamedTuple):
    """A checkpoint as a network of ours.

    Attributes:
        family: of the checkpoint, such as "edm".
        settings: all that the module is built from.
        module: the network, a module of Flax; of LPIPS the function that makes features of a trunk's parameters.
        params: its parameters, without the "params" of Flax around them.
    """

    family: str
    settings: Settings
    module: Any
    params: Any


class Family(NamedTuple):
    """What is known of the checkpoints of one family.

    Attributes:
        recognises: content of a file -> whether it is one of these.
        convert: content of a file, and what that does not say -> the network.
        network: settings -> the module.
        stored_at: settings -> where the family's files have each parameter.
        constants: settings -> tensors of its files that are no parameters here, where they follow from the settings.
        use: how a folder of a network that makes no samples is given to what uses it; "" of one that is a run.
    """

    recognises: Callable[[Any], bool]
    convert: Callable[..., Converted]
    network: Callable[[Settings], Any]
    stored_at: Callable[[Settings], StoredAt]
    constants: Callable[[Settings], Tensors]
    use: str = ""
