import jax
import jaxtyping
import pytest


@pytest.fixture
def float64():
    """Closed forms are compared in float64, where their tolerance is the rounding error."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def unchecked_shapes(monkeypatch):
    """As users run: the annotations are documentation, and the code's own errors must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
