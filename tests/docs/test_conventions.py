"""docs/conventions.md, evaluated: every cell in code against the system's own formulas, on Gaussian data."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import paths
from tests.docs.conventions import headings, table, value
from tests.oracles import Gaussian, gaussian_denoiser, gaussian_flow_map, gaussian_score, gaussian_velocity

pytestmark = pytest.mark.usefixtures("float64")
DATA = Gaussian(0.3, 0.7)
Y = np.asarray([-1.3, 0.2, 0.9])


class System(NamedTuple):
    """A system by its own formulas: state = a(tau) x + b(tau) z with z ~ N(0, I), and what its network gets as time."""

    a: Callable[[Any], Any]
    b: Callable[[Any], Any]
    taus: tuple[float, ...]
    time_input: Callable[[Any], Any] | None = None

    def velocity(self, y: Any, tau: jax.Array) -> jax.Array:
        """E[dy/dtau | y]: the regression of a' x + b' z on a x + b z."""
        (a, a_rate), (b, b_rate) = (jax.jvp(f, (tau,), (jnp.ones_like(tau),)) for f in (self.a, self.b))
        slope = (a * a_rate * DATA.std**2 + b * b_rate) / (a**2 * DATA.std**2 + b**2)
        return a_rate * DATA.mean + slope * (y - a * DATA.mean)

    def jump(self, y: Any, tau: jax.Array, rho: jax.Array) -> jax.Array:
        """State at rho of the ODE through y at tau; for a Gaussian it keeps the number of standard deviations."""
        a, b, a_end, b_end = self.a(tau), self.b(tau), self.a(rho), self.b(rho)
        ratio = jnp.sqrt((a_end**2 * DATA.std**2 + b_end**2) / (a**2 * DATA.std**2 + b**2))
        return a_end * DATA.mean + ratio * (y - a * DATA.mean)


UNIT, LEVELS, ANGLES = (0.05, 0.5, 0.93), (0.01, 0.7, 40.0), (0.02, 0.8, 1.5)
# Written the way each system writes it.
to_data = System(lambda tau: tau, lambda tau: 1 - tau, UNIT)
to_noise = System(lambda tau: 1 - tau, lambda tau: tau, UNIT)
noise_std = System(jnp.ones_like, lambda tau: tau, LEVELS)
trigflow = System(jnp.cos, lambda tau: 0.5 * jnp.sin(tau), ANGLES)
trigflow_1 = System(jnp.cos, jnp.sin, ANGLES)
half_noise = System(lambda tau: 1 - tau, lambda tau: 0.5 * tau, UNIT)


def beta_integral(tau):
    return 0.1 * tau + (20 - 0.1) / 2 * tau**2


def alpha_bar(tau):
    """The product of 1 - beta up to a timestep, and with a part of the next factor beyond it."""
    factors = 1 - jnp.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    passed = tau + 1 - jnp.arange(1000.0)
    return jnp.prod(factors ** jnp.where(passed >= 1, 1.0, jnp.where(passed >= 0, passed, 0.0)))


def scheduler_vp(tau):
    return 0.5 * (1 - tau) ** 2 * (20 - 0.1) + (1 - tau) * 0.1


SYSTEMS = {
    "Flow Matching (facebookresearch), torchcfm, SiT, lqiang67": to_data._replace(time_input=lambda tau: tau),
    "Rectified Flow (gnobitab), Consistency-FM": to_data._replace(time_input=lambda tau: 999 * tau),
    "Shortcut": to_data._replace(time_input=lambda tau: tau),
    "Adjoint Matching, flow models": to_data._replace(time_input=lambda tau: tau),
    "2-Rectified Flow++": to_noise._replace(time_input=lambda tau: jnp.log(tau / (1 - tau)) / 4),
    "MeanFlow": to_noise._replace(time_input=lambda tau: tau),
    "iMF": to_noise,
    "IMM, flow-matching schedule": half_noise._replace(time_input=lambda tau: 1000 * tau),
    "EDM, EDM2, CM (jcm), iCT, ECT, SCT": noise_std._replace(time_input=lambda tau: 0.25 * jnp.log(tau)),
    "CM (torch), CTM": noise_std._replace(time_input=lambda tau: 1000 * 0.25 * jnp.log(tau)),
    "Consistency policies": noise_std._replace(time_input=lambda tau: tau),
    "VCT, linear kernel": System(lambda tau: 1 - tau / 80, lambda tau: tau, LEVELS, lambda tau: jnp.log(tau) / 4),
    "sCM (TrigFlow)": trigflow._replace(time_input=lambda tau: tau),
    "sCM (TrigFlow) as EDM": trigflow._replace(time_input=lambda tau: tau),
    "EDM as TrigFlow": noise_std._replace(time_input=lambda tau: jnp.log(tau) / 4),
    "rCM as a straight path": trigflow_1._replace(
        time_input=lambda tau: 1000 * jnp.sin(tau) / (jnp.cos(tau) + jnp.sin(tau))
    ),
    "VP-SDE (score_sde)": System(
        lambda tau: jnp.exp(-beta_integral(tau) / 2),
        lambda tau: jnp.sqrt(1 - jnp.exp(-beta_integral(tau))),
        UNIT,
        lambda tau: 999 * tau,
    ),
    "2-Rectified Flow++ as EDM": noise_std._replace(time_input=lambda tau: jnp.log(tau) / 4),
    "LCM, TCD, PCM on Stable Diffusion's schedule": System(
        lambda tau: jnp.sqrt(alpha_bar(tau)),
        lambda tau: jnp.sqrt(1 - alpha_bar(tau)),
        (0.0, 19.0, 499.5, 998.0),
        lambda tau: tau,
    ),
    "Flow Matching (facebookresearch), VP scheduler": System(
        lambda tau: jnp.exp(-scheduler_vp(tau) / 2),
        lambda tau: jnp.sqrt(1 - jnp.exp(-scheduler_vp(tau))),
        UNIT,
        lambda tau: tau,
    ),
    "Flow Matching (facebookresearch), cosine scheduler": System(
        lambda tau: jnp.sin(jnp.pi / 2 * tau), lambda tau: jnp.cos(jnp.pi / 2 * tau), UNIT, lambda tau: tau
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_times_states_velocities(name):
    """The state here has the stated coefficients, and the exact velocity there becomes the exact velocity here."""
    row, system = table("Times, states, velocities")[name], SYSTEMS[name]
    path = value(row["path here"])
    for tau in map(jnp.asarray, system.taus):
        u = system.velocity(Y, tau)
        t = value(row["t here"], tau=tau)

        def state(y, tau=tau, t=t):
            return value(row["x_t here"], y=y, tau=tau, t=t)

        for there, here in ((system.a, path.alpha), (system.b, path.sigma)):
            np.testing.assert_allclose(state(there(tau)), here(t), rtol=1e-11)
        v = value(row["v here"], y=Y, u=u, tau=tau, t=t)
        np.testing.assert_allclose(v, gaussian_velocity(DATA, path, state(Y), t), rtol=1e-9, atol=1e-10)
        if system.time_input is None:
            assert "`" not in row["time input"]
        else:
            np.testing.assert_allclose(value(row["time input"], t=t), system.time_input(tau), rtol=1e-10, atol=1e-13)
        # The direction of time, which the second column states.
        at_data = {"1 is data": 1.0}.get(row["tau"], 0.0)
        assert value(row["t here"], tau=jnp.asarray(at_data)) == 0


def vp_noise(x_t: Any, t: jax.Array) -> jax.Array:
    """E[z | y] on a variance preserving path at the point whose x_t / alpha and sigma / alpha are given."""
    alpha, sigma = jnp.cos(jnp.arctan(t)), jnp.sin(jnp.arctan(t))
    return sigma * (alpha * x_t - alpha * DATA.mean) / (alpha**2 * DATA.std**2 + sigma**2)


def v_prediction(y: Any, t: jax.Array) -> jax.Array:
    """E[alpha z - sigma x | y]."""
    alpha, sigma = jnp.cos(t), jnp.sin(t)
    centred = (y - alpha * DATA.mean) / (alpha**2 * DATA.std**2 + sigma**2)
    return alpha * sigma * centred - sigma * (DATA.mean + alpha * DATA.std**2 * centred)


PREDICTIONS: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
    "EDM: denoiser": partial(gaussian_denoiser, DATA, paths.edm),
    "noise (DDPM, LCM, TCD, PCM), with x_t / alpha and t = sigma / alpha": vp_noise,
    "v-prediction (progressive distillation, Multistep CM), t the angle": v_prediction,
    "TrigFlow: F": lambda y, t: trigflow.velocity(y, t) / 0.5,
    "score": partial(gaussian_score, DATA, paths.edm),
    "SiT: noise": lambda y, t: -t * gaussian_score(DATA, paths.linear, y, t),
    "SiT: score": partial(gaussian_score, DATA, paths.linear),
    "Flow Matching in the system's direction, 1 is data": lambda y, t: to_data.velocity(y, 1 - t),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions(name):
    row = table("Predictions")[name]
    path = value(row["path here"])
    for t in map(jnp.asarray, (0.05, 0.4, 0.9)):
        v = value(row["v here"], prediction=PREDICTIONS[name](Y, t), x_t=Y, t=t)
        np.testing.assert_allclose(v, gaussian_velocity(DATA, path, Y, t), rtol=1e-10)


class TwoTimes(NamedTuple):
    """A system, a pair of its times, its network's exact output as defined by it, and its second input."""

    system: System
    tau: float
    rho: float
    prediction: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]
    second_input: Callable[[Any, Any], Any] | None = None


def average(y, y_end, tau, rho):
    return (y_end - y) / (rho - tau)


def simple_edm(y, y_end, tau, rho):
    """F of X = c_skip y + c_out F, with a = 1 - tau and b = tau of noise that has the data's 0.5."""
    a, b, a_end, b_end = 1 - tau, tau, 1 - rho, rho
    c_skip = (a * a_end + b * b_end) / (a**2 + b**2)
    c_out = -(a_end * b - a * b_end) * 0.5 / jnp.sqrt(a**2 + b**2)
    return (y_end - c_skip * y) / c_out


SECOND_TIMES = {
    "MeanFlow, iMF": TwoTimes(to_noise, 0.8, 0.25, average, lambda tau, rho: tau - rho),
    "Shortcut, d = rho - tau": TwoTimes(to_data, 0.25, 0.75, average, lambda tau, rho: jnp.log2(1 / (rho - tau))),
    "Flow maps (Boffi et al.)": TwoTimes(to_data, 0.25, 0.75, average, lambda tau, rho: rho),
    "Align Your Flow, prediction F": TwoTimes(to_noise, 0.8, 0.25, average, lambda tau, rho: rho),
    "CTM, prediction g": TwoTimes(
        noise_std,
        3.0,
        0.4,
        lambda y, y_end, tau, rho: (y_end - rho / tau * y) / (1 - rho / tau),
        lambda tau, rho: 1000 * 0.25 * jnp.log(rho),
    ),
    "IMM, euler_fm, prediction F": TwoTimes(
        half_noise, 0.8, 0.25, lambda y, y_end, tau, rho: average(y, y_end, tau, rho) / 0.5, lambda tau, rho: 1000 * rho
    ),
    "IMM, simple_edm, prediction F": TwoTimes(half_noise, 0.8, 0.25, simple_edm, lambda tau, rho: 1000 * rho),
    "sCM, prediction F": TwoTimes(
        trigflow, 1.2, 0.0, lambda y, y_end, tau, rho: (jnp.cos(tau) * y - y_end) / (0.5 * jnp.sin(tau))
    ),
    "CM, iCT, prediction f": TwoTimes(noise_std, 3.0, 0.002, lambda y, y_end, tau, rho: y_end),
    "ECT, SCT, prediction f": TwoTimes(noise_std, 3.0, 0.0, lambda y, y_end, tau, rho: y_end),
}


@pytest.mark.parametrize("name", SECOND_TIMES)
def test_second_times(name):
    """The exact jump there, passed through the network's parameterisation, is the exact flow map here."""
    row, case = table("Second times")[name], SECOND_TIMES[name]
    tau, rho = jnp.asarray(case.tau), jnp.asarray(case.rho)
    prediction = case.prediction(Y, case.system.jump(Y, tau, rho), tau, rho)
    t, s = (value(row[column], tau=tau, rho=rho) for column in ("t here", "s here"))
    assert 0 <= s < t
    got = value(row["X(x_t, t, s) here"], y=Y, tau=tau, rho=rho, prediction=prediction)
    np.testing.assert_allclose(got, gaussian_flow_map(DATA, value(row["path here"]), Y, t, s), rtol=1e-12)
    if case.second_input is None:
        assert row["second input"] == "none"
    else:
        np.testing.assert_allclose(value(row["second input"], t=t, s=s), case.second_input(tau, rho), rtol=1e-12)


@pytest.mark.parametrize(
    ("heading", "tested"),
    [("Times, states, velocities", SYSTEMS), ("Predictions", PREDICTIONS), ("Second times", SECOND_TIMES)],
)
def test_page_and_test_have_the_same_rows(heading, tested):
    assert list(table(heading)) == list(tested)


def test_these_are_the_first_tables_of_the_page():
    assert headings()[:3] == ["Times, states, velocities", "Predictions", "Second times"]
