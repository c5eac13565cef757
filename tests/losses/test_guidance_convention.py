"""Guidance by scale 1 + w: one convention through models, samplers and losses, on data where it has a closed form.

The denoiser of N(m, s^2) is affine in m. So the class N(mu, s^2) guided against N(0, s^2) is, on every path and at
every noise level, the denoiser of N((1 + w) mu, s^2): an ODE whose samples and whose consistency function are known.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, continuous_consistency, distances, paths, scaled, segment_consistency, steps, trig
from losses.conversions import denoiser_to_velocity
from losses.types import Net
from models import guide
from samplers import ddim, grids, heun
from tests.oracles import PATHS, Gaussian, gaussian_consistency, gaussian_denoiser, gaussian_flow_map

MU, STD, W = 0.4, 0.6, 1.5
GUIDED = Gaussian((1 + W) * MU, STD)

pytestmark = pytest.mark.usefixtures("float64")


def guided_denoiser(path: paths.Path) -> Net:
    class_net, reference = (partial(gaussian_denoiser, Gaussian(mean, STD), path) for mean in (MU, 0.0))
    return guide(class_net, reference, 1 + W)


@pytest.mark.parametrize("name", PATHS)
def test_guided_denoiser_is_that_of_shifted_data(name):
    path, low, high = PATHS[name]
    x_t, t = jax.random.normal(jax.random.key(0), (5, 3)), jnp.linspace(low, high, 5)
    exact = gaussian_denoiser(GUIDED, path, x_t, t)
    np.testing.assert_allclose(guided_denoiser(path)(x_t, t), exact, rtol=1e-10, atol=1e-12)


def test_sampler_ends_at_the_shifted_data():
    x = 80 * jnp.asarray([[-1.0], [0.0], [1.0]])
    velocity = denoiser_to_velocity(paths.edm, guided_denoiser(paths.edm))
    got = heun(velocity, x, grids.karras(160), end=0.001)
    exact = gaussian_flow_map(GUIDED, paths.edm, x, 80.0, 0.001)
    np.testing.assert_allclose(got, exact, rtol=1e-3)
    np.testing.assert_allclose((got[2] - got[0]) / 2, STD, rtol=1e-3)
    np.testing.assert_allclose(got[1], (1 + W) * MU, rtol=0.01)


def test_a_thousand_steps_of_ddim_on_the_schedule_of_stable_diffusion():
    """LCM's w = 7 is the scale 8 here: the mean goes to 8. From two starts, beside the exact ODE's ends."""
    path, x = paths.scaled_linear_beta(), jnp.asarray([[0.3], [-1.2]])
    of_class, of_all = (partial(gaussian_denoiser, Gaussian(mean, 0.5), path) for mean in (1.0, 0.0))
    got = ddim(guide(of_class, of_all, 8.0), x, np.arange(999.0, 0.0, -1.0), path=path)
    np.testing.assert_allclose(got[:, 0], [7.8735, 7.1233], atol=6e-5)
    exact = gaussian_flow_map(Gaussian(8.0, 0.5), path, x, 999.0, 0.0)
    np.testing.assert_allclose(exact[:, 0], [7.8732, 7.1209], atol=6e-5)


def test_distillation_of_a_guided_teacher_has_the_shifted_solution():
    velocity = denoiser_to_velocity(paths.edm, guided_denoiser(paths.edm))
    x = jax.random.normal(jax.random.key(0), (16, 3))

    @partial(jax.jit, static_argnums=0)
    def loss(data):
        value, _ = consistency(
            partial(gaussian_consistency, data, paths.edm), x, jax.random.key(1),
            pairs=lambda key, n: (jnp.full(n, 0.8), jnp.full(n, 0.79), jnp.ones(n)),
            step=partial(steps.heun, velocity=velocity), distance=distances.l2,
        )  # fmt: skip
        return value.mean()

    assert loss(GUIDED) < 1e-11
    assert loss(Gaussian(MU, STD)) > 1e-6


def test_continuous_distillation_of_a_guided_teacher_has_the_shifted_solution():
    path = scaled(trig, 0.5)
    velocity = denoiser_to_velocity(path, guided_denoiser(path))
    x = jax.random.normal(jax.random.key(0), (16, 3))

    @partial(jax.jit, static_argnums=0)
    def tangent(data):
        def F(y, t):
            f = gaussian_consistency(data, path, 0.5 * y, t)
            return (jnp.cos(t)[:, None] * 0.5 * y - f) / (0.5 * jnp.sin(t)[:, None])

        return continuous_consistency(F, x, jax.random.key(1), velocity=velocity)[1]["tangent"]

    np.testing.assert_allclose(tangent(GUIDED), 0, atol=1e-11)
    assert tangent(Gaussian(MU, STD)).max() > 0.1


def test_with_a_scale_for_each_example_the_solution_is_shifted_for_each():
    """What a network that is told its scale learns: at the scale of another example it is wrong."""
    path, scale = scaled(trig, 0.5), jnp.linspace(0.5, 4.0, 16)
    class_net, reference = (partial(gaussian_denoiser, Gaussian(mean, STD), path) for mean in (MU, 0.0))
    velocity = denoiser_to_velocity(path, guide(class_net, reference, scale))
    x = jax.random.normal(jax.random.key(0), (16, 3))

    @jax.jit
    def tangent(w):
        def F(y, t):
            shift = w[:, None] * MU
            centred = 0.5 * y - jnp.cos(t)[:, None] * shift
            f = shift + gaussian_consistency(Gaussian(0.0, STD), path, centred, t)
            return (jnp.cos(t)[:, None] * 0.5 * y - f) / (0.5 * jnp.sin(t)[:, None])

        return continuous_consistency(F, x, jax.random.key(1), velocity=velocity)[1]["tangent"]

    np.testing.assert_allclose(tangent(scale), 0, atol=1e-11)
    assert tangent(scale[::-1]).min() > 1e-2


def test_segments_of_a_guided_teacher_have_the_shifted_solution():
    """One segment, many intervals: the exact f of the shifted data is off by a second-order step, the other is not."""
    teacher = guided_denoiser(paths.cosine)
    x = jax.random.normal(jax.random.key(0), (64, 3))

    @partial(jax.jit, static_argnums=(0, 1))
    def loss(data, intervals):
        value, _ = segment_consistency(
            partial(gaussian_consistency, data, paths.cosine), x, jax.random.key(1), segments=1, intervals=intervals,
            teacher=teacher, eta=0.0, distance=distances.l2, weight=lambda t: jnp.where(t > 0.1, 1.0, 0.0),
        )  # fmt: skip
        return value.mean()

    assert loss(GUIDED, 400) < 1e-9
    assert loss(Gaussian(MU, STD), 400) > 1e-6
