"""Under test, and only there, every annotated shape, dtype and type is checked when a function is called."""

import jax
import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")

# An int is a good float, as every static type checker holds.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

install_import_hook(ISLANDS, f"{__name__}.check")


@pytest.fixture
def float64():
    """Closed forms are compared in float64, where their tolerance is the rounding error."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """As users run: the annotations are documentation, and the code's own errors must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
