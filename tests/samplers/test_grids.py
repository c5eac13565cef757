import math

import numpy as np
import pytest

from samplers import grids

KARRAS_18 = [
    80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.40094, 5.31519, 3.25682, 1.92334, 1.08817, 0.58535,
    0.29644, 0.13952, 0.05995, 0.02293, 0.00753, 0.002,
]  # fmt: skip


def test_karras_golden():
    np.testing.assert_allclose(grids.karras(18), KARRAS_18, atol=6e-6)
    assert grids.karras(18).dtype == np.float64
    np.testing.assert_allclose(
        grids.karras(40)[[1, 2, 10, 20, 38]], [69.451, 60.117, 16.780, 2.2404, 0.0036766], rtol=3e-5
    )


def test_karras_of_one_is_the_highest_level():
    np.testing.assert_allclose(grids.karras(1, sigma_max=3.0), [3.0], rtol=1e-15)


def test_karras_with_rho_one_is_linear():
    np.testing.assert_allclose(grids.karras(3, sigma_min=1.0, sigma_max=3.0, rho=1.0), [3, 2, 1], rtol=1e-15)


def test_linear_and_trig_are_equal_steps_to_zero():
    np.testing.assert_allclose(grids.linear(4), [1, 0.75, 0.5, 0.25], rtol=1e-15)
    np.testing.assert_allclose(grids.linear(1, start=0.994), [0.994])
    grid = grids.trig(3)
    np.testing.assert_allclose(grid[0], math.atan(160), rtol=1e-15)
    np.testing.assert_allclose(np.diff([*grid, 0.0]), -grid[0] / 3, rtol=1e-14)
    assert grid[0] == pytest.approx(1.56455, abs=1e-5)


def test_explicit():
    np.testing.assert_array_equal(grids.explicit(80, 0.821), [80, 0.821])


@pytest.mark.parametrize("grid", [grids.karras, grids.linear, grids.trig])
@pytest.mark.parametrize("n", [0, -3])
def test_no_steps(grid, n):
    with pytest.raises(ValueError, match=f"at least 1 step, got {n}"):
        grid(n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grids.karras(3, sigma_min=0.0), "sigma_min=0.0"),
        (lambda: grids.karras(3, sigma_min=2.0, sigma_max=1.0), "sigma_min=2.0, sigma_max=1.0"),
        (lambda: grids.karras(3, sigma_max=math.inf), "sigma_max=inf"),
        (lambda: grids.karras(3, sigma_min=math.nan), "sigma_min=nan"),
        (lambda: grids.karras(3, rho=0.0), "rho=0.0"),
        (lambda: grids.linear(3, start=0.0), "start=0.0"),
        (lambda: grids.linear(3, start=math.nan), "start=nan"),
        (lambda: grids.trig(3, sigma_max=0.0), "sigma_max=0.0"),
        (lambda: grids.trig(3, sigma_data=-0.5), "sigma_data=-0.5"),
        (lambda: grids.explicit(), r"at least one time, got shape \(0,\)"),
        (lambda: grids.explicit(0.821, 80), r"fall from noise to data, strictly, got \[ 0.821 80"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("n", "golden"),
    [
        (1, [999]),
        (2, [999, 499]),
        (4, [999, 759, 499, 259]),
        (8, [999, 879, 759, 639, 499, 379, 259, 139]),
    ],
)
def test_latent_consistency_golden(n, golden):
    np.testing.assert_array_equal(grids.latent_consistency(n), golden)


def test_latent_consistency_is_floor_of_linspace_for_every_n():
    timesteps = np.arange(999, 0, -20)
    for n in range(1, 51):
        index = np.floor(np.linspace(0, 50, n, endpoint=False)).astype(int)
        np.testing.assert_array_equal(grids.latent_consistency(n), timesteps[index], err_msg=str(n))


def test_phased_golden():
    """With 50 solver steps the published training would end phases at 739, 499 and 239."""
    np.testing.assert_array_equal(grids.phased(4), [999, 749, 499, 249])
    np.testing.assert_array_equal(grids.phased(8), [999, 874, 749, 624, 499, 374, 249, 124])
    np.testing.assert_array_equal(grids.phased(1), [999])
    np.testing.assert_array_equal(grids.phased(3, steps=9), [8, 5, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grids.latent_consistency(0), "1 to 50 sampling steps, got 0"),
        (lambda: grids.latent_consistency(51), "1 to 50 sampling steps, got 51"),
        (lambda: grids.latent_consistency(4, solver_steps=30), "divide 1000 and be less, got 30"),
        (lambda: grids.latent_consistency(4, solver_steps=1000), "divide 1000 and be less, got 1000"),
        (lambda: grids.phased(0), "divide 1000 and be less, got 0"),
        (lambda: grids.phased(16), "divide 1000 and be less, got 16"),
    ],
)
def test_timesteps_that_are_none(call, message):
    with pytest.raises(ValueError, match=message):
        call()
