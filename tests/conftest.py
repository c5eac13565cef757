"""Under test, and only there, every annotated shape, dtype and type is checked when a function is called."""

import os
from importlib.util import find_spec

import jax
import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")

# An int is a good float, as every static type checker holds.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

install_import_hook(ISLANDS, f"{__name__}.check")

# Compiled in a third of the time, by an older way to write kernels, for who does not say how. Read once, by the first
# program of a process. From 0.11 on XLA lacks it, and aborts at the flag.
if not {"JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"} & os.environ.keys() and jax.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"

# Beside torch's libraries, in the environment of `make test-peers` alone.
collect_ignore = [] if find_spec("torch") else ["peers"]


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory):
    """A folder of this run of the suite, the same for all of its processes."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(of_all_workers):
    """Tests and the processes that they start neither see nor fill the user's cache of judges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(of_all_workers / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_once(of_all_workers):
    """Compiling is most of the time: it is done roughly, and once for all tests and the processes that they start.

    The cache has a largest size because JAX locks it then, as one of several processes must. What the environment says
    stands: JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests programs as users run them.
    """
    values = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(of_all_workers / "compiled"),
        "jax_compilation_cache_max_size": 2**34,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            if name.upper() in os.environ:
                continue
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        yield


@pytest.fixture
def float64():
    """Closed forms are compared in float64, where their tolerance is the rounding error."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """As users run: the annotations are documentation, and the code's own errors must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
