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
    # No TPU is used: there are no metadata to ask, and tests need not wait for each other.
    alone = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return os.environ | alone | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
