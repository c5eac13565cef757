"""The TPU compiler for tests. `make` puts it beside the environment, where JAX does not look for a TPU by it."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BESIDE = Path(sys.prefix) / "libtpu"

needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None and not BESIDE.is_dir(), reason="needs libtpu: make, or pip install '.[tpu]'"
)


def environment() -> dict[str, str]:
    """Variables of a process that compiles for TPUs and runs on the CPU."""
    path = os.pathsep.join([str(BESIDE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
