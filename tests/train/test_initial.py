"""A run that starts from given weights, and frozen ones that are read when it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import DIM, experiment
from train import check, fit, make_mesh, place_state


def given() -> dict[str, jax.Array]:
    return {"weight": 2 * jnp.eye(DIM), "bias": jnp.ones(DIM)}


def test_parameters_and_averages_start_there():
    state = place_state(experiment(initial=given), make_mesh())
    for tree in (state.params, *state.averages.values()):
        jax.tree.map(np.testing.assert_array_equal, tree, given())
    assert int(state.step) == 0


def test_a_resumed_run_does_not_start_again(tmp_path):
    run = experiment(initial=given, steps=8)
    first = fit(run, tmp_path).state
    again = fit(run._replace(initial=lambda: pytest.fail("read for nothing")), tmp_path)
    assert again.steps_taken == 0
    jax.tree.map(np.testing.assert_array_equal, again.state.params, first.params)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({**given(), "weight": jnp.eye(17)}, r"weight'\]: given float32\[17, 17\], network float32\[16, 16\]"),
        ({**given(), "bias": jnp.ones(16, jnp.int32)}, r"bias'\]: given int32\[16\], network float32\[16\]"),
        ({"weight": jnp.eye(DIM)}, r"bias'\]: given nothing"),
        ({**given(), "head": jnp.ones(1)}, r"head'\]: given float32\[1\], network nothing"),
    ],
    ids=["shape", "dtype", "missing", "superfluous"],
)
def test_parameters_of_another_network_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        place_state(experiment(initial=lambda: wrong), make_mesh())


def test_frozen_parameters_are_read_when_training_starts_and_not_before():
    def absent():
        raise ValueError("no teacher there")

    run = experiment(frozen=absent)
    place_state(run, make_mesh())
    with pytest.raises(ValueError, match="no teacher there"):
        check(run)
