"""Guidance by one scale or one for each example, what a student that is told it learns, and values that are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import glue, guiding
from losses import continuous_consistency, conversions, scaled, times, trig
from models import MLP, preconditioning
from tests.configs.made_up import module, small
from tests.oracles import Gaussian, gaussian_denoiser

PATH = scaled(trig, 0.5)
CLASSES = 3
LABELS, SCALES = jnp.array([0, 1, 2, 2]), jnp.array([1.0, 1.5, 4.0, 8.0])
X = 0.5 * jax.random.normal(jax.random.key(0), (4, 2))


def network(guided):
    """A network and random parameters for it."""
    model = MLP(width=8, depth=1, num_classes=CLASSES, guided=guided)
    w = SCALES if guided else None
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, jnp.zeros(4), LABELS, w=w)["params"]
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


def velocity(scale):
    """That of the guided teacher."""
    model, params = network(guided=False)

    def denoiser(labels):
        return preconditioning.trigflow(glue.bind(model, params, labels), 0.5)

    guided = guiding.classifier_free(denoiser, LABELS, num_classes=CLASSES, scale=scale)
    return conversions.denoiser_to_velocity(PATH, guided)


@jax.jit
def losses(w):
    """Those of a student that is told its scale."""
    model, params = network(guided=True)
    net = glue.bind(model, params, LABELS, w=w)
    return continuous_consistency(net, X, jax.random.key(1), velocity=velocity(w))[0]


def test_the_guided_teacher():
    t = jnp.array([0.2, 0.7, 1.1, 1.5])
    value = jax.jit(lambda scale: velocity(scale)(X, t))
    together = value(SCALES)
    for i, scale in enumerate(SCALES):
        np.testing.assert_allclose(together[i], value(scale)[i], rtol=1e-5, atol=1e-6)
    assert jnp.abs(together - value(1.0)).max(axis=1)[1:].min() > 1e-2


def test_the_loss_of_its_student():
    together = losses(SCALES)
    for i, scale in enumerate(SCALES):
        np.testing.assert_allclose(together[i], losses(scale)[i], rtol=1e-4)
    assert jnp.abs(together / losses(SCALES[::-1]) - 1).min() > 1e-2


@pytest.mark.slow
def test_one_student_learns_every_scale():
    """Classes N(mean, std^2) against the null class N(0, std^2) are N(w mean, std^2) at scale w, in one step."""
    mean, std, last = jnp.array([0.4, 0.0]), 0.3, jnp.full(2000, jnp.arctan(80 / 0.5))
    model, labels = MLP(width=64, depth=2, num_classes=1, guided=True), jnp.zeros(256, int)

    def teacher(labels):
        """The null class is the last."""
        centre = jnp.where(labels[:, None] == 0, mean, 0.0)
        exact = partial(gaussian_denoiser, Gaussian(0.0, std), PATH)
        return lambda x, t: centre + exact(x - jnp.cos(t)[:, None] * centre, t)

    def objective(params, key):
        key_x, key_w, key_loss = jax.random.split(key, 3)
        w = jax.random.uniform(key_w, labels.shape, minval=1.0, maxval=2.0)
        velocity = conversions.denoiser_to_velocity(
            PATH, guiding.classifier_free(teacher, labels, num_classes=1, scale=w)
        )
        return continuous_consistency(
            glue.bind(model, params, labels, w=w),
            mean + std * jax.random.normal(key_x, (len(labels), 2)),
            key_loss,
            times=partial(times.trig_lognormal, mean=-0.5, std=1.4),
            velocity=velocity,
        )[0].mean()

    @jax.jit
    def trained(params):
        optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, 3000), b2=0.99)

        def step(number, carry):
            params, state = carry
            gradient = jax.grad(objective)(params, jax.random.fold_in(jax.random.key(1), number))
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 3000, step, (params, optimizer.init(params)))[0]

    @jax.jit
    def sampled(params, w):
        z = 0.5 * jax.random.normal(jax.random.key(3), (len(last), 2))
        net = glue.bind(model, params, jnp.zeros(len(last), int), w=w)
        return preconditioning.trigflow(net, 0.5)(z, last)

    inputs = jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1, int)
    params = trained(model.init(jax.random.key(0), *inputs, w=jnp.ones(1))["params"])
    for w in (1.0, 1.5, 2.0):
        x = sampled(params, w)
        np.testing.assert_allclose(x.mean(0), w * mean, atol=0.03)
        np.testing.assert_allclose(x.std(0), std, atol=0.03)


def test_scales_without_classes_are_refused_even_where_they_are_one():
    with pytest.raises(ValueError, match="guidance needs a class-conditional network"):
        guiding.classifier_free(lambda labels: lambda x, t: x, None, num_classes=0, scale=jnp.ones(4))


NULLED: tuple[tuple[str, dict[str, float]], ...] = (  # runs that are guided against their own null class, by what
    ("imagenet256_mean_flow", {}),
    ("imagenet256_improved_mean_flow", {}),
    ("imagenet256_improved_mean_flow_sit", {}),
    ("imagenet256_shortcut", {}),
    ("imagenet256_sit", {}),
    ("imagenet256_imm", {}),
    ("imagenet256_draft", {}),
    ("imagenet512_trigflow", {}),
    ("imagenet64_trigflow", {"guidance": 1.5}),
    ("mnist_latent_teacher", {}),
    ("digits_mean_flow", {"kappa": 0.5}),
)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(("name", "values"), NULLED)
def test_guidance_by_a_class_that_is_never_shown_is_refused(name, values):
    module(name).build(small(name, **values, label_dropout=0.1))
    with pytest.raises(ValueError, match=r"guidance .* needs the null class, .* --config\.label_dropout=0\.1"):
        module(name).build(small(name, **values, label_dropout=0.0))
    with pytest.raises(ValueError, match=r"label_dropout is 1\.0, a share of the labels"):
        module(name).build(small(name, **values, label_dropout=1.0))


@pytest.mark.usefixtures("small_data")
def test_a_null_class_is_not_needed_where_nothing_is_guided_or_that_of_the_start_is_there(runs):
    unguided = (("imagenet256_sit", {"guidance": 1.0}), ("digits_mean_flow", {"omega": 0.5, "kappa": 0.5}))
    for name, values in unguided:
        module(name).build(small(name, **values, label_dropout=0.0))
    start = {"start_run": str(runs("digits_rectified_flow"))}
    module("digits_mean_flow").build(small("digits_mean_flow", kappa=0.5, label_dropout=0.0, **start))


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    "name",
    [
        *("digits_lcm", "digits_lcf", "digits_scm_guided", "mnist_latent_lcm"),
        *("imagenet256_scm_distillation", "imagenet512_scm_distillation"),
        *("stable_lcm", "stable_tcd", "stable_pcm"),
    ],
)
def test_a_range_of_scales_that_falls_is_refused(name):
    with pytest.raises(ValueError, match=r"guidance_range is \(16, 6\), the smaller scale comes first"):
        module(name).build(small(name, guidance_range=(16.0, 6.0)))
