import jax.numpy as jnp
import numpy as np
import pytest

from eval import crossing
from losses import paths
from tests.oracles import Mixture, mixture_denoiser

RNG = np.random.default_rng(0)
TIMES = (0.25, 0.5, 0.75)


def test_of_a_gaussian_and_independent_noise_is_a_closed_form():
    """s^2 / V_t, to 4 standard errors: the variance of half a squared difference of two normals is 2 in units of it."""
    x, z = 0.3 + 0.5 * RNG.standard_normal((4000, 1)), RNG.standard_normal((4000, 1))
    exact = np.asarray([0.25 / ((1 - t) ** 2 * 0.25 + t**2) for t in TIMES])
    # Neighbours are often each other's, so that their differences count twice.
    np.testing.assert_allclose(crossing(x, z, TIMES), exact, rtol=4 * np.sqrt(2 * 2 / 4000))


def test_of_a_mixture_is_what_the_posterior_mean_leaves():
    """v given x_t is (x_t - x) / t: its variance is that of x over t^2, E x^2 - E D^2 by quadrature."""
    data = Mixture()
    component = RNG.choice(2, 8000, p=data.weights)
    x = np.asarray(data.means)[component] + np.asarray(data.stds)[component] * RNG.standard_normal(8000)
    z = RNG.standard_normal(8000)
    grid = np.linspace(-6, 6, 4001)
    second = sum(w * (m**2 + s**2) for w, m, s in zip(*data, strict=True))
    exact = []
    for t in TIMES:
        variances = [((1 - t) * s) ** 2 + t**2 for s in data.stds]
        density = sum(
            w * np.exp(-((grid - (1 - t) * m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
            for w, m, v in zip(data.weights, data.means, variances, strict=True)
        )
        D = np.asarray(mixture_denoiser(data, paths.linear, jnp.asarray(grid), t))
        exact.append((second - np.trapezoid(density * D**2, grid)) / t**2)
    np.testing.assert_allclose(crossing(x[:, None], z[:, None], TIMES), exact, rtol=0.1)


def test_pairs_of_a_flow_do_not_cross():
    z = RNG.standard_normal((4000, 1))
    x = 0.3 + 0.5 * z
    assert crossing(x, z, TIMES).max() < 1e-3
    np.testing.assert_array_less(0.1, crossing(x, RNG.permutation(z), TIMES))


def test_lines_that_cross_at_one_time_do_there_alone():
    """From -1 to 1 and from 1 to -1 they meet at 1/2, where v is 2 or -2."""
    x = np.repeat([-1.0, 1.0], 500)[:, None]
    jitter = 1e-3 * RNG.standard_normal((1000, 1))
    np.testing.assert_allclose(crossing(x, -x + jitter, (0.3, 0.7)), 0, atol=1e-3)
    np.testing.assert_allclose(crossing(x, -x + jitter, (0.5,)), 4, rtol=0.15)


def test_neighbours_are_of_the_same_class_and_images_are_vectors():
    x = np.repeat([-1.0, 1.0], 500).reshape(1000, 1, 1, 1) * np.ones((1, 2, 2, 1))
    jitter = 1e-3 * RNG.standard_normal((1000, 2, 2, 1))
    assert crossing(x, -x + jitter, (0.5,), labels=np.repeat([0, 1], 500))[0] < 1e-3
    assert crossing(x, -x + jitter, (0.5,), block=7)[0] == crossing(x, -x + jitter, (0.5,))[0] > 10


def test_in_many_dimensions_it_errs_upwards():
    """64 dimensions, 2,000 pairs: 8.8 of lines that do not cross, 89 of independent noise, where s^2 / V_t is 51."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2000, 64))
    own, exchanged = crossing(0.5 * z, z, (0.5,)), crossing(0.5 * z, rng.permutation(z), (0.5,))
    np.testing.assert_allclose([own[0], exchanged[0]], [8.84, 89.2], rtol=0.01)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("x", "z", "options", "message"),
    [
        (np.zeros((4, 2)), np.zeros((4, 1)), {"times": (0.5,)}, r"one shape, got \(4, 2\) and \(4, 1\)"),
        (np.zeros((4, 2)), np.zeros((4, 2)), {"times": (1.5,)}, r"lie in \[0, 1\], got \[1.5\]"),
        (np.zeros((1, 2)), np.zeros((1, 2)), {"times": (0.5,)}, "at least two pairs of each class, got 1 pairs"),
        (np.zeros((2, 2)), np.zeros((2, 2)), {"times": (0.5,), "labels": np.arange(2)}, "got 2 pairs in 2 classes"),
    ],
)
def test_what_has_no_neighbours_is_refused(x, z, options, message):
    with pytest.raises(ValueError, match=message):
        crossing(x, z, **options)
