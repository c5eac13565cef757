"""TPU slices that are not here, as the TPU compiler knows them: ahead-of-time compilation needs no TPU, only libtpu."""

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies

from .chips import TPUS, closest

INSTALL = (
    "ahead-of-time compilation for TPUs needs libtpu: in a checkout export PYTHONPATH=.venv/libtpu, where `make` has"
    " put it, or pip install '.[tpu]'; elsewhere pip install 'jax[tpu]'"
)
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not ask a cloud's metadata server, which is not there, what machine this is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is used, so processes need not exclude each other
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def topology_devices(name: str) -> Sequence[Any]:
    """The devices of a slice such as "v5e:2x4" or "v5p:4x4x4", to compile for and not to run on.

    Raises:
        ValueError: for a name that is none, a chip that is unknown, or a shape that the chip's slices cannot have.
        ImportError: if libtpu is not installed.
    """
    parts = re.fullmatch(r"([a-zA-Z0-9]+):(\d+(?:x\d+){1,2})", name)
    if not parts:
        raise ValueError(f"topology is {name!r}, it must be a chip and a shape, such as v5e:2x4 or v5p:4x4x4")
    chip, shape = parts[1], tuple(int(n) for n in parts[2].split("x"))
    if chip not in TPUS:
        raise ValueError(f"unknown chip {chip!r} in topology {name!r}; known are {', '.join(TPUS)}{closest(chip)}")
    if find_spec("libtpu") is None:
        raise ImportError(INSTALL)
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    # JAX sees a v4 chip as one device, which is not what the compiler takes by default.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if chip == "v4" else {}
    if len([n for n in shape if n > 1]) < 2:  # less than the four chips of a host
        options["chips_per_host_bounds"] = (*shape, 1)[:3]
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"the TPU compiler refuses topology {name!r}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The first line of what the compiler says, without the kind of error before it."""
    return str(error).splitlines()[0].split(": ", 1)[-1]
