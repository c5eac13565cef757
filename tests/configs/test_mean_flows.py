"""What the MeanFlow configs share: labels that are dropped, the network's second time, a flow to start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import digits, mean_flows
from tests.configs.made_up import module, small
from train import Context, restore_average


def dropping(**changes):
    return ConfigDict(
        {"label_dropout": 0.1, "drop_jumps": True, "jump_share": 0.25, "omega": 2.0, "kappa": 0.0, **changes}
    )


@pytest.mark.parametrize("drop_jumps", [True, False])
def test_a_tenth_of_the_labels_is_dropped_with_or_without_examples_that_jump(drop_jumps):
    n = 40_000
    labels = mean_flows.drop_labels(jax.random.key(0), jnp.zeros(n, int), dropping(drop_jumps=drop_jumps), 10)
    dropped = np.asarray(labels == 10).reshape(-1, 4)
    assert abs(dropped.mean() - 0.1) < 4 * np.sqrt(0.09 / n)
    if drop_jumps:
        assert abs(dropped[:, 0].mean() - 0.1) < 4 * np.sqrt(0.09 * 4 / n)
    else:
        assert not dropped[:, 0].any()


def test_guidance_without_classes():
    with pytest.raises(ValueError, match=r"needs a class-conditional network, got config\.omega=2\.0"):
        mean_flows.drop_labels(jax.random.key(0), None, dropping(), 0)


def test_the_network_is_told_the_length_of_the_interval():
    config = small("digits_mean_flow")
    source = digits.data.digits()
    model = digits.network(config, source).clone(second_time=True)
    x, t, s, y = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.ones(2), jnp.full(2, 0.4), jnp.arange(2)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, t, y, t)["params"]
    params = jax.tree.map(lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), shapes)
    expected = model.apply({"params": params}, x, t, y, jnp.full(2, 0.6))
    got = mean_flows.mean_velocity(model, params)(x, t, s, y)
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-5, atol=1e-6)
    jumped = mean_flows.flow_map_of(model)(params, y)(x, t, s)
    np.testing.assert_allclose(jumped, x - 0.6 * got, rtol=1e-5, atol=1e-6)


def test_a_run_can_start_from_a_flow(runs):
    workdir = runs("digits_rectified_flow")
    experiment = module("digits_mean_flow").build(small("digits_mean_flow", start_run=str(workdir)))
    assert experiment.initial is not None
    ours = dict(jax.tree_util.tree_leaves_with_path(experiment.initial()))
    theirs = dict(jax.tree_util.tree_leaves_with_path(restore_average(workdir, experiment.judged_average)[0]))
    new = {jax.tree_util.keystr(path) for path in ours.keys() - theirs.keys()}
    assert new
    assert all("['conditioning']['s']" in name for name in new)
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf)


@pytest.mark.parametrize("drop_jumps", [True, False])
def test_a_guided_run_has_a_loss(drop_jumps):
    config = small("digits_mean_flow", omega=1.0, kappa=0.5, label_dropout=0.1, drop_jumps=drop_jumps)
    experiment = module("digits_mean_flow").build(config)
    batch = {"image": jnp.zeros((8, 8, 8, 1)), "label": jnp.zeros(8, int)}
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    context = Context(step=jnp.zeros((), int), frozen=None, averages={})
    loss, _ = jax.eval_shape(lambda p: experiment.objective(p, batch, jax.random.key(0), context), params)
    assert (loss.shape, loss.dtype) == ((8,), jnp.float32)
