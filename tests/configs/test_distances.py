"""LPIPS by a file of weights, and what stands in for it without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import distances
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context


def test_lpips_is_the_distance_when_its_file_is_given(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 2)), jnp.float32)
    trunk = ((distances.vgg.Convolution(kernel, jnp.zeros(2)),),)
    monkeypatch.setattr(distances.lpips_weights, "read_lpips", lambda file: (trunk, (jnp.ones(2),)))
    metric = distances.lpips_or_l2("weights.npz", pool=distances.vgg.average_pool)
    a, b = jnp.asarray(rng.uniform(-1, 1, (2, 3, 8, 8, 3)), jnp.float32)
    distance = metric.distance(metric.params())
    np.testing.assert_array_equal(distance(a, a), 0)
    # The images are compared at 224 pixels, by features of unit length and the file's weights.
    f, g = (distances.vgg.lpips_features(trunk)(distances.vgg.enlarge(x))[0] for x in (a, b))
    unit = [x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in (f, g)]
    expected = jnp.mean(jnp.sum((unit[0] - unit[1]) ** 2, axis=-1), axis=(1, 2))
    np.testing.assert_allclose(distance(a, b), expected, rtol=1e-4)


def test_without_its_file_the_distance_is_squared_l2_and_a_wrong_file_is_named(tmp_path):
    a, b = jnp.zeros((2, 8, 8, 3)), jnp.full((2, 8, 8, 3), 0.5)
    metric = distances.lpips_or_l2("")
    np.testing.assert_allclose(metric.distance(metric.params())(a, b), 8 * 8 * 3 / 4)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        distances.lpips_or_l2(str(tmp_path / "nowhere.npz")).params()


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", ["cifar10_ct", "imagenet64_ct", "cifar10_cd"])
def test_a_run_with_lpips_has_a_loss_of_it(name, monkeypatch, runs):
    trunk = ((distances.vgg.Convolution(jnp.ones((3, 3, 3, 2)), jnp.zeros(2)),),)
    monkeypatch.setattr(distances.lpips_weights, "read_lpips", lambda file: (trunk, (jnp.ones(2),)))
    config = small(name, lpips="weights.npz")
    if name in made_up.TEACHERS:
        teacher, changes = made_up.TEACHERS[name]
        config.teacher_run = str(runs(teacher, **changes))
    experiment = module(name).build(config)
    batch = experiment.prepare(jax.random.key(0), jax.tree.map(jnp.asarray, next(experiment.batches(0))))

    def loss(params, frozen):
        averages = dict.fromkeys(experiment.averages, params)
        context = Context(step=jnp.zeros((), jnp.int32), frozen=frozen, averages=averages)
        return experiment.objective(params, batch, jax.random.key(0), context)[0]

    losses = jax.eval_shape(loss, made_up.params(experiment), experiment.frozen())
    assert losses.shape == (config.batch_size,)
