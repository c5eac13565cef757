import jax.numpy as jnp
import pytest

from models.net import check_conditions, expand


def test_one_number_per_example_or_one_for_all_broadcasts():
    x = jnp.ones((3, 2, 2, 1))
    assert expand(jnp.arange(3.0), x).shape == (3, 1, 1, 1)
    assert expand(2.0, x).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["t", "labels", "s", "w"])
def test_conditions_have_one_entry_per_example(name):
    conditions = {"t": jnp.ones(3), "labels": jnp.ones(3, jnp.int32), "s": jnp.ones(3), "w": jnp.ones(3)}
    conditions[name] = conditions[name][:2]
    with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\)"):
        check_conditions(jnp.ones((3, 4)), **conditions, num_classes=2, second_time=True, guided=True)
