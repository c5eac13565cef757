import numpy as np
import pytest

from train.posthoc import LARGEST_SIGMA_REL, Profile, gamma_of, inner_product, mixing_weights


@pytest.mark.parametrize(
    ("sigma_rel", "gamma"),
    [(0.01, 96.9949), (0.05, 16.9722), (0.075, 10.2891), (0.10, 6.93720), (0.15, 3.5579), (0.20, 1.8262)],
)
def test_gamma_of_published_lengths(sigma_rel, gamma):
    assert gamma_of(sigma_rel) == pytest.approx(gamma, rel=1e-5)


def test_sigma_rel_is_the_standard_deviation_of_the_profile():
    gamma, tau = gamma_of(0.1), (np.arange(200_000) + 0.5) / 200_000
    density = (gamma + 1) * tau**gamma
    mean = (density * tau).mean()
    assert np.sqrt((density * (tau - mean) ** 2).mean()) == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, LARGEST_SIGMA_REL, 1.0])
def test_impossible_lengths_are_refused(sigma_rel):
    with pytest.raises(ValueError, match="sigma_rel must lie in"):
        gamma_of(sigma_rel)


@pytest.mark.parametrize(
    ("a", "b"),
    [(Profile(3, 2.0), Profile(5, 4.0)), (Profile(5, 2.0), Profile(3, 4.0)), (Profile(2, 1.5), Profile(2, 6.0))],
)
def test_inner_product_equals_numerical_integration(a, b):
    n = 400_000
    tau = (np.arange(n) + 0.5) / n * min(a.time, b.time)
    p, q = ((c.gamma + 1) / c.time * (tau / c.time) ** c.gamma for c in (a, b))
    assert inner_product(a, b) == pytest.approx((p * q).mean() * min(a.time, b.time), rel=1e-6)
    assert inner_product(a, b) == pytest.approx(inner_product(b, a), rel=1e-12)


def test_reconstruction_of_a_power_of_time_meets_its_closed_form():
    # A parameter that moves as tau^2 has average (gamma + 1)/(gamma + 3) T^2 under the profile of exponent gamma.
    snapshots = [Profile(time, gamma_of(s)) for time in np.arange(1, 17) / 16 for s in (0.05, 0.10)]
    values = np.array([(p.gamma + 1) / (p.gamma + 3) * p.time**2 for p in snapshots])
    for sigma_rel in (0.04, 0.06, 0.075, 0.09, 0.15):
        target = Profile(1.0, gamma_of(sigma_rel))
        weights = mixing_weights(snapshots, target)
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        # What the snapshots cannot express of the target profile, as an L2 norm, bounds the error by Cauchy-Schwarz.
        profiles, signs = [target, *snapshots], np.append(1, -weights)
        gram = np.array([[inner_product(a, b) for b in profiles] for a in profiles])
        residual = np.sqrt(max(signs @ gram @ signs, 0))
        norm_of_tau_squared = 5**-0.5
        exact = (target.gamma + 1) / (target.gamma + 3)
        assert abs(weights @ values - exact) <= residual * norm_of_tau_squared + 1e-9
        if 0.05 <= sigma_rel <= 0.10:
            assert weights @ values == pytest.approx(exact, rel=2e-4)


def test_a_snapshot_reconstructs_itself():
    snapshots = [Profile(t, gamma_of(s)) for t in (4, 8, 12) for s in (0.05, 0.10)]
    weights = mixing_weights(snapshots, snapshots[3])
    np.testing.assert_allclose(weights, np.eye(6)[3], atol=1e-6)


def test_bad_snapshots_are_refused():
    with pytest.raises(ValueError, match="at least one snapshot"):
        mixing_weights([], Profile(1, 2))
    with pytest.raises(ValueError, match="times of averaging profiles are positive"):
        mixing_weights([Profile(0, 2)], Profile(1, 2))
