"""Configs with a learned coupling: what the encoder is shown, how samples are noised, what the divergence counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from configs import cifar10_vct, digits, digits_students, vct
from losses import edm
from models import preconditioning
from samplers import noise
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context, count_parameters


def test_the_encoder_sees_scaled_data_at_one_noise_level():
    class Encoder:
        num_classes = 10

        def apply(self, variables, x, t, labels, **rest):
            np.testing.assert_array_equal(t, 0)
            raw = jnp.concatenate([x, jnp.broadcast_to(labels[:, None], x.shape)], axis=-1)
            return variables["params"] * raw

    encoder: Any = Encoder()
    x, labels = jnp.asarray([[1.0, -3.0]]), jnp.asarray([4])
    got = vct.encoding(encoder, 0.5)({"encoder": 2.0}, labels, x)
    np.testing.assert_allclose(got.mean, [[4, -12]])
    np.testing.assert_allclose(got.std, np.log1p(np.exp(8.0)), rtol=1e-6)


def test_later_steps_are_noised_as_the_encoder_says():
    """In two steps: D of 80 z, then of that with noise of the mean and width that the encoder gives to it."""
    config, source = small("digits_vct"), data.digits()
    experiment = module("digits_vct").build(config)
    params, keys, labels = made_up.params(experiment), jax.random.split(jax.random.key(0), 2), jnp.arange(2)
    model = digits.network(config, source)
    encoder = model.clone(width=config.encoder_width, depth=1, unroll=1, out_channels=2)
    f = vct.of_network(digits_students.on_path(model, config, edm))(params, labels)

    @jax.jit
    def two_steps(keys):
        first = f(80 * noise.initial(keys, source.shape), jnp.full(2, 80.0))
        mean, std = vct.encoding(encoder, config.sigma_data)(params, labels, first)
        plain = noise.fresh(keys, 1, first)
        return tuple(f(first + 0.8 * z, jnp.full(2, 0.8)) for z in (mean + std * plain, plain))

    (two,) = (sampler for sampler in experiment.samplers if sampler.nfe == 2)
    expected, with_plain_noise = two_steps(keys)
    got = jax.jit(two.sample)(params, keys, labels)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert jnp.abs(got - with_plain_noise).max() > 0.01


@pytest.mark.parametrize("snr_weighting", [True, False])
def test_the_divergence_counts_beta_or_beta_times_the_weight_at_80(snr_weighting):
    """With 1 / (t - s) that is beta / 40 in the first stage of ECT and beta / 20 in the second."""
    batch = {"image": jax.random.normal(jax.random.key(1), (8, 8, 8, 1)), "label": jnp.arange(8)}

    def evaluate(beta):
        config = small("digits_vct", beta=beta, snr_weighting=snr_weighting)
        experiment = module("digits_vct").build(config)
        params = made_up.params(experiment)

        @jax.jit
        def loss(step):
            context = Context(step=step, frozen=None, averages={})
            return experiment.objective(params, batch, jax.random.key(0), context)

        return [loss(jnp.asarray(step)) for step in (0, 2)]  # two of the twelve steps are a stage

    weights = (10.0, 10.0) if snr_weighting else (10 / 40, 10 / 20)
    for (without, _), (with_beta, metrics), weight in zip(evaluate(0.0), evaluate(10.0), weights, strict=True):
        np.testing.assert_allclose(with_beta - without, weight * metrics["divergence"], rtol=1e-3)
        assert metrics["divergence"].min() > 0.1


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", ["cifar10_vct", "cifar10_vct_ict"])
def test_both_paths_can_be_trained_on_and_sampled(name, linear):
    config = small(name, linear=linear)
    experiment = module(name).build(config)
    params = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    batch, keys = {"image": jnp.zeros((4, *made_up.SHAPE))}, jax.random.split(jax.random.key(0), 4)
    context = Context(step=jnp.zeros((), int), frozen=None, averages={})
    loss, _ = jax.eval_shape(lambda p: experiment.objective(p, batch, keys[0], context), params)
    assert (loss.shape, loss.dtype) == ((4,), jnp.float32)
    for sampler in experiment.samplers:
        assert jax.eval_shape(sampler.sample, params, keys, None).shape == (4, *made_up.SHAPE)

    zero = lambda x, t: jnp.zeros_like(x)
    x, t = jnp.ones((1, 2)), jnp.full(1, 40.0)
    form = preconditioning.linear_consistency if linear else preconditioning.consistency
    np.testing.assert_array_equal(cifar10_vct.kernel(config, zero, 0.002)(x, t), form(zero, sigma_min=0.002)(x, t))


def test_the_network_is_the_published_one_and_the_encoder_a_small_copy():
    """55.7 M of EDM's DDPM++ and 56.4 M of its NCSN++."""
    for name, millions in (("cifar10_vct", 55.7), ("cifar10_vct_ict", 56.4)):
        experiment = module(name).build(module(name).get_config())
        params = jax.eval_shape(lambda e=experiment: e.init(jax.random.key(0)))
        sizes = {part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in params.items()}
        assert sizes["network"] == pytest.approx(millions * 1e6, rel=0.02)
        assert sizes["encoder"] < 0.05 * sizes["network"]
        assert count_parameters(experiment) == sum(sizes.values())
