import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import conversions, paths
from models import preconditioning
from models.net import expand

SIGMA_DATA = 0.5
TIMES = jnp.array([0.002, 0.1, 0.5, 3.0, 80.0])
X = jax.random.normal(jax.random.key(0), (5, 2, 3)) * expand(jnp.hypot(TIMES, SIGMA_DATA), jnp.ones((5, 2, 3)))
ANGLES = jnp.array([1e-3, 0.3, 0.8, 1.2, 1.5645])


def zero(x, t):
    return jnp.zeros_like(x)


def angle(c_noise):
    """The angle arctan(t / sigma_data), from what EDM tells the network about t."""
    return jnp.arctan(jnp.exp(4 * c_noise) / SIGMA_DATA)


# Data N(0, sigma_data^2) throughout: every function has a closed form.


def test_edm_with_zero_network_is_the_gaussian_denoiser():
    denoised = preconditioning.edm(zero, SIGMA_DATA)(X, TIMES)
    expected = expand(SIGMA_DATA**2 / (SIGMA_DATA**2 + TIMES**2), X) * X
    np.testing.assert_allclose(denoised, expected, rtol=1e-6)


@pytest.mark.parametrize("form", [preconditioning.edm, preconditioning.consistency])
def test_tangent_of_the_half_angle_is_the_gaussian_consistency_function(form):
    def ideal(x, c_noise):
        return expand(jnp.tan(angle(c_noise) / 2), x) * x

    expected = expand(SIGMA_DATA / jnp.hypot(TIMES, SIGMA_DATA), X) * X
    np.testing.assert_allclose(form(ideal, SIGMA_DATA)(X, TIMES), expected, rtol=2e-5)


def test_shifted_coefficients_are_those_of_the_consistency_models_code():
    m, s = 0.3, SIGMA_DATA
    seen = {}

    def F(x, c_noise):
        seen["x"], seen["c_noise"] = x, c_noise
        return x + 1.0

    out = preconditioning.consistency(F, s, m)(X, TIMES)
    t = np.asarray(TIMES, np.float64)[:, None, None]
    x = np.asarray(X, np.float64)
    inner = x / np.sqrt(t**2 + s**2)
    expected = s**2 / ((t - m) ** 2 + s**2) * x + s * (t - m) / np.sqrt(t**2 + s**2) * (inner + 1.0)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen["x"], inner, rtol=1e-6)
    np.testing.assert_allclose(seen["c_noise"], np.log(TIMES) / 4, rtol=1e-6)


@pytest.mark.parametrize("sigma_min", [0.0, 0.002, 0.003])
@pytest.mark.parametrize("sigma_data", [0.5, 0.3, 1.0])
def test_boundary_is_exact_for_any_network(sigma_min, sigma_data):
    f = preconditioning.consistency(lambda x, t: 1e30 * jnp.cos(x) + expand(t, x), sigma_data, sigma_min)
    t = jnp.full(5, sigma_min)
    for evaluate in (f, jax.jit(f)):
        np.testing.assert_array_equal(evaluate(X, t), X)


def test_boundary_of_trigflow_is_exact():
    f = preconditioning.trigflow(lambda x, t: 1e30 * jnp.cos(x))
    np.testing.assert_array_equal(jax.jit(f)(X, jnp.zeros(5)), X)


def test_consistency_is_finite_with_finite_derivatives_at_zero():
    def F(x, c_noise):
        return jnp.tanh(x + expand(c_noise, x))

    f = preconditioning.consistency(F, SIGMA_DATA)
    t = jnp.zeros(5)
    value, tangent = jax.jvp(f, (X, t), (jnp.ones_like(X), jnp.ones(5)))
    gradient = jax.grad(lambda t: jnp.sum(f(X, t)))(t)
    np.testing.assert_array_equal(value, X)
    # d f / d t at the boundary is F itself, because c_out rises with slope 1 and c_skip is flat.
    boundary_F = F(X / SIGMA_DATA, jnp.full(5, jnp.log(1e-8) / 4))
    np.testing.assert_allclose(tangent, 1.0 + boundary_F, rtol=1e-5)
    np.testing.assert_allclose(gradient, jnp.sum(boundary_F, axis=(1, 2)), rtol=1e-5)


def test_edm_input_and_target_have_unit_variance():
    key_x, key_z = jax.random.split(jax.random.key(1))
    n = 100_000
    clean = SIGMA_DATA * jax.random.normal(key_x, (n, 1))
    z = jax.random.normal(key_z, (n, 1))
    for t in TIMES:
        x_t, times = clean + t * z, jnp.full(n, t)
        skip = preconditioning.edm(zero)(x_t, times)
        c_out = preconditioning.edm(lambda x, t: jnp.ones_like(x))(x_t, times) - skip
        target = (clean - skip) / c_out
        network_input = (preconditioning.edm(lambda x, t: x)(x_t, times) - skip) / c_out
        # A variance estimate from n Gaussians has relative deviation sqrt(2 / n).
        for variable in (network_input, target):
            np.testing.assert_allclose(variable.var(), 1.0, atol=4 * np.sqrt(2 / n))


def test_trigflow_closed_forms():
    expected = expand(jnp.cos(ANGLES), X) * X
    np.testing.assert_allclose(preconditioning.trigflow(zero, SIGMA_DATA)(X, ANGLES), expected, rtol=1e-6)

    def ideal(x, t):
        return -expand(jnp.tan(t / 2), x) * x

    np.testing.assert_allclose(preconditioning.trigflow(ideal, SIGMA_DATA)(X, ANGLES), X, rtol=1e-5, atol=1e-5)


def test_trigflow_denoiser_for_other_variances():
    s = 0.8
    variance = jnp.cos(ANGLES) ** 2 * s**2 + jnp.sin(ANGLES) ** 2 * SIGMA_DATA**2

    def ideal(x, t):
        """Velocity sin t cos t (sigma_data^2 - s^2) / V x_t in units of sigma_data; x is x_t / sigma_data."""
        return expand(jnp.sin(t) * jnp.cos(t) * (SIGMA_DATA**2 - s**2) / variance, x) * x

    expected = expand(jnp.cos(ANGLES) * s**2 / variance, X) * X
    denoised = preconditioning.trigflow(ideal, SIGMA_DATA)(X, ANGLES)
    np.testing.assert_allclose(denoised, expected, rtol=1e-5, atol=1e-5)


def test_latent_consistency_is_the_identity_at_timestep_0_and_nearly_the_data_prediction_from_1_on():
    f = preconditioning.latent_consistency(lambda x, t: jnp.full_like(x, 2.0))
    ones, t = jnp.ones((3, 2)), jnp.array([0.0, 1.0, 19.0])
    c_skip, c_out = np.array([1.0, 0.002494, 6.93e-6]), np.array([0.0, 0.998752, 0.999997])
    np.testing.assert_allclose(jax.jit(f)(ones, t), np.tile((c_skip + 2 * c_out)[:, None], 2), rtol=2e-6)
    f = preconditioning.latent_consistency(lambda x, t: 1e30 * jnp.cos(x))
    np.testing.assert_array_equal(jax.jit(f)(X, jnp.zeros(5)), X)


def test_latent_consistency_as_the_authors_code_has_it():
    """Of a noise prediction 0.85 x, at timesteps of Stable Diffusion's schedule; numbers of diffusers' functions."""
    t = jnp.array([19.0, 259.0, 499.0, 999.0])
    alpha_squared = np.array([0.98224396, 0.65897524, 0.27766943, 0.00466010])
    alpha, sigma = (jnp.asarray(c, jnp.float32)[:, None] for c in (alpha_squared**0.5, (1 - alpha_squared) ** 0.5))
    x = 0.3 * alpha - 0.7 * sigma
    f = preconditioning.latent_consistency(lambda x, t: (x - sigma * 0.85 * x) / alpha)
    np.testing.assert_allclose(f(x, t)[:, 0], [0.18256593, -0.10252050, -0.23012353, -1.50922811], rtol=2e-5)


def test_latent_consistency_down_four_timesteps_as_lcms_scheduler_has_it():
    """Each call sees what the last one returned, without new noise."""
    times, alpha_squared = [999.0, 759.0, 499.0, 259.0], [0.00466010, 0.05221289, 0.27766943, 0.65897524]

    def call(x, t, a):
        f = preconditioning.latent_consistency(lambda x, t: (1 - 0.85 * (1 - a) ** 0.5) / a**0.5 * x)
        return f(x, jnp.array([t]))

    x, found = jnp.ones((1, 1)), []
    for t, a in zip(times, alpha_squared, strict=True):
        x = call(x, t, a)
        found.append(float(x[0, 0]))
    np.testing.assert_allclose(found, [2.22636843, 1.68060958, 0.88531619, 0.54924893], rtol=2e-5)


def test_timesteps_may_be_scaled_otherwise():
    def D(x, t):
        return jnp.sin(x) + expand(t, x)

    f, g = (preconditioning.latent_consistency(D, 0.25, scale) for scale in (0.5, 1.0))
    t = jnp.array([0.0, 0.1, 1.0, 4.0, 9.0])
    h = preconditioning.latent_consistency(lambda x, t: D(x, 2 * t), 0.25, 1.0)
    np.testing.assert_allclose(f(X, t), h(X, t / 2), rtol=1e-5)
    assert jnp.abs(f(X, t) - g(X, t)).max() > 0.01
    with pytest.raises(ValueError, match="timestep_scale must be positive"):
        preconditioning.latent_consistency(D, timestep_scale=0.0)


def test_velocity_scales_time_alone():
    v = preconditioning.velocity(lambda x, t: x + expand(t, x), time_scale=10.0)
    np.testing.assert_allclose(v(X, TIMES), X + 10 * expand(TIMES, X), rtol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        preconditioning.edm,
        preconditioning.edm_velocity,
        preconditioning.consistency,
        preconditioning.latent_consistency,
        preconditioning.trigflow,
    ],
)
def test_half_precision_networks_do_not_lower_the_coefficients(form):
    def F(x, t):
        assert (x.dtype, t.dtype) == (jnp.float32, jnp.float32)
        return jnp.zeros_like(x, jnp.bfloat16)

    out = form(F)(X, ANGLES)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, form(zero)(X, ANGLES))


@pytest.mark.parametrize(
    "form",
    [
        preconditioning.edm,
        preconditioning.edm_velocity,
        preconditioning.consistency,
        preconditioning.latent_consistency,
        preconditioning.trigflow,
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_sigma_data_is_positive(form, value):
    with pytest.raises(ValueError, match="sigma_data must be positive"):
        form(zero, sigma_data=value)


def test_sigma_min_is_not_negative():
    with pytest.raises(ValueError, match="sigma_min must be zero or positive"):
        preconditioning.consistency(zero, sigma_min=-0.1)


def test_an_edm_network_as_a_velocity_is_its_denoiser_on_the_straight_path():
    """(x_t - D) / t with D at noise level t / (1 - t) of x_t / (1 - t)."""

    def F(x, c):
        return jnp.sin(3 * x) + expand(c, x)

    with jax.enable_x64(True):
        x, t = jnp.asarray(X, float), jnp.asarray([1e-4, 0.2, 0.5, 0.9, 1 - 1e-4])
        x = jnp.resize(x, (5, *x.shape[1:]))
        D = conversions.edm_on_path(preconditioning.edm(F, 0.4), paths.linear)
        v = preconditioning.edm_velocity(F, 0.4)
        np.testing.assert_allclose(v(x, t), conversions.denoiser_to_velocity(paths.linear, D)(x, t), rtol=1e-8)


def test_an_edm_network_as_a_velocity_is_exact_on_gaussian_data_and_finite_at_both_ends():
    """Of N(0, sigma_data^2) the best F is 0: v = (t - s^2 (1-t)) / V_t x, which is -x at data and x at noise."""
    v = preconditioning.edm_velocity(zero, 0.5)
    t = jnp.asarray([0.0, 0.3, 1.0])
    x = jnp.ones((3, 2))
    expected = [-1.0, (0.3 - 0.25 * 0.7) / (0.09 + 0.25 * 0.49), 1.0]
    np.testing.assert_allclose(v(x, t)[:, 0], expected, rtol=1e-6)
    v = preconditioning.edm_velocity(lambda x, c: x * expand(c, x), 0.5)
    slope = jax.jvp(lambda t: v(x, t), (t,), (jnp.ones(3),))[1]
    assert jnp.isfinite(slope).all()
    assert jnp.isfinite(v(x, t)).all()


@pytest.mark.parametrize("sigma_min", [0.0, 0.002])
def test_the_linear_kernel_is_data_at_sigma_min_and_noise_at_sigma_max(sigma_min):
    F = lambda x, c_noise: jnp.ones_like(x)
    f = preconditioning.linear_consistency(F, SIGMA_DATA, sigma_min=sigma_min)
    x = X[:2]
    np.testing.assert_array_equal(f(x, jnp.full(2, sigma_min)), x)
    np.testing.assert_allclose(f(x, jnp.full(2, 80.0)), SIGMA_DATA * (80 - sigma_min) / 80, rtol=1e-6)


def test_without_a_boundary_the_linear_kernel_is_the_denoiser_of_its_path():
    """For data N(0, sigma_data^2) that is c_skip x alone: sigma_data^2 alpha / (sigma_data^2 alpha^2 + t^2) x."""
    t, s = np.asarray(TIMES, np.float64)[:, None, None], SIGMA_DATA
    alpha = 1 - t / 80
    total = s**2 * alpha**2 + t**2
    f = preconditioning.linear_consistency(zero, s)(X, TIMES)
    np.testing.assert_allclose(f, s**2 * alpha / total * X, rtol=1e-4, atol=1e-6)
    seen = []

    def F(x, c_noise):
        seen.append((x, c_noise))
        return jnp.ones_like(x)

    out = preconditioning.linear_consistency(F, s)(X, TIMES)
    np.testing.assert_allclose(out - f, np.broadcast_to(t * s / np.sqrt(total), X.shape), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen[0][0], X / np.sqrt(total), rtol=1e-5)
    np.testing.assert_allclose(seen[0][1], np.log(TIMES) / 4, rtol=1e-6)
    for wrong in (-0.1, 80.0):
        with pytest.raises(ValueError, match="sigma_min < sigma_max"):
            preconditioning.linear_consistency(zero, s, sigma_min=wrong)


# ---- Other networks of diffusion models: each is told the noise level in its own way ---------------------------------


def gaussian_denoiser(t):
    return expand(SIGMA_DATA**2 / (SIGMA_DATA**2 + t**2), X) * X


def assert_denoises(D, rounding):
    """x and the noise that is taken from it nearly cancel at large t, so that errors are of the size of these."""
    wrong = (D(X, TIMES) - gaussian_denoiser(TIMES)) / expand(1 + TIMES, X)
    np.testing.assert_allclose(wrong, 0, atol=rounding)


def noise_in(x, t):
    """What a prediction of noise is at x / sqrt(t^2 + 1), which it is shown."""
    return expand(t * jnp.sqrt(t**2 + 1) / (SIGMA_DATA**2 + t**2), x) * x


def test_vp_is_told_the_time_of_its_path():
    def F(x, c_noise):
        tau = c_noise / 999
        return noise_in(x, jnp.sqrt(jnp.expm1(19.9 * tau**2 / 2 + 0.1 * tau)))

    assert_denoises(preconditioning.vp(F), 1e-5)


def test_ve_is_told_the_logarithm_of_half_the_level():
    def F(x, c_noise):
        t = 2 * jnp.exp(c_noise)
        return expand(-t / (SIGMA_DATA**2 + t**2), x) * x

    assert_denoises(preconditioning.ve(F), 1e-6)


def test_discrete_is_told_the_closest_step_and_drops_further_channels():
    levels = np.array([0.001, 0.002, 0.1, 0.5, 3.0, 80.0])

    def F(x, step):
        assert step.dtype == jnp.float32
        noise = noise_in(x, jnp.asarray(levels, jnp.float32)[step.astype(int)])
        return jnp.concatenate([noise, jnp.full_like(noise, jnp.nan)], axis=-1)

    D = preconditioning.discrete(F, levels)
    assert_denoises(D, 1e-6)
    # Between the levels the step is that of the closest one, and the level itself is what it is.
    steps = preconditioning.discrete(lambda x, step: -expand(step, x) * jnp.ones_like(x), levels)(0 * X, TIMES * 1.2)
    np.testing.assert_allclose(steps[:, 0, 0] / (TIMES * 1.2), [1, 2, 3, 4, 5], rtol=1e-6)
