"""docs/conventions.md, evaluated: numbers of points, ends of segments, scales of guidance, parameters of laws."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import pairs, times
from losses.types import Times
from models import guidance
from samplers import grids
from tests.docs.conventions import headings, table, value

pytestmark = pytest.mark.usefixtures("float64")


def cm_level(index: np.ndarray, n: int) -> np.ndarray:
    return (80 ** (1 / 7) + index / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7


def ict_level(index: np.ndarray, n: int) -> np.ndarray:
    return (0.002 ** (1 / 7) + (index - 1) / (n - 1) * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7


INDICES: dict[str, tuple[np.ndarray, Callable[[np.ndarray, int], np.ndarray]]] = {
    "CM, code": (np.arange(18), cm_level),
    "iCT": (np.arange(1, 19), ict_level),
    "EDM, sampler": (np.arange(18), lambda index, n: grids.karras(n)[index]),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices(name):
    index, level = INDICES[name]
    j = value(table("Indices")[name]["j here"], index=jnp.asarray(index), N=18)
    here = pairs.karras_time(j, 18, sigma_min=0.002, sigma_max=80.0, rho=7.0)
    np.testing.assert_allclose(here, level(index, 18), rtol=1e-10)


SEGMENT_ENDS: dict[str, Callable[[Any, int], Any]] = {
    "Consistency-FM": lambda tau, K: 1 - max(np.ceil(K * tau), 1) / K,
    "Multistep CM": lambda tau, K: max(k / K for k in range(K) if k / K < tau),
}


@pytest.mark.parametrize("name", SEGMENT_ENDS)
def test_segments(name):
    """The end there, turned into our time, is the end here."""
    row = table("Segments")[name]
    for K in (1, 2, 3):
        for tau in (0.01, 0.3, 0.45, 0.6, 0.99):
            t = jnp.asarray(value(row["t here"], tau=tau))
            np.testing.assert_allclose(value(row["e here"], t=t, K=K), SEGMENT_ENDS[name](tau, K), atol=1e-12)


CONDITIONAL, UNCONDITIONAL = 1.7, -0.4


def meanflow_target(omega: float, kappa: float) -> float:
    """v_g = omega v + (1 - omega - kappa) u_null + kappa u_label, where the network's u_label is v_g itself."""
    return (omega * CONDITIONAL + (1 - omega - kappa) * UNCONDITIONAL) / (1 - kappa)


def imf_target(omega: float) -> float:
    """v_g = v + (1 - 1/omega) (v_label - v_null), where the network's v_label is v_g itself."""
    return (CONDITIONAL - (1 - 1 / omega) * UNCONDITIONAL) * omega


GUIDANCE: dict[str, tuple[dict[str, float], float]] = {
    "Ho and Salimans, facebookresearch flow_matching, LCM": (
        {"w": 1.5},
        (1 + 1.5) * CONDITIONAL - 1.5 * UNCONDITIONAL,
    ),
    "SiT, EDM2 autoguidance, Stable Diffusion pipelines": (
        {"w": 1.5},
        UNCONDITIONAL + 1.5 * (CONDITIONAL - UNCONDITIONAL),
    ),
    "MeanFlow, omega and kappa in the training target": ({"omega": 0.2, "kappa": 0.92}, meanflow_target(0.2, 0.92)),
    "iMF, 1 - 1/omega in the training target": ({"omega": 8.0}, imf_target(8.0)),
}


@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance(name):
    numbers, theirs = GUIDANCE[name]
    scale = float(value(table("Guidance")[name]["scale here"], **numbers))
    guided = guidance.guide(
        lambda x, t: jnp.full_like(x, CONDITIONAL), lambda x, t: jnp.full_like(x, UNCONDITIONAL), scale
    )
    np.testing.assert_allclose(guided(jnp.ones((1, 2)), jnp.ones(1)), theirs, rtol=1e-12)


def edm_draw(mean, std):
    return partial(times.lognormal, mean=mean, std=std)


def logit_draw(mean, std):
    return partial(times.logit_normal, mean=mean, std=std)


def pair_draw(mean, std):
    return lambda key, n: pairs.ect(key, n, stage=0, mean=mean, std=std)[0]


TIME_LAWS: dict[str, tuple[Callable[..., Times], Callable[[jax.Array], jax.Array]]] = {
    "EDM": (edm_draw, lambda u: jnp.exp(-1.2 + 1.2 * u)),
    "iCT, ECT": (pair_draw, lambda u: jnp.exp(-1.1 + 2.0 * u)),
    "Flow Matching (facebookresearch), skewed; logit-normal": (
        logit_draw,
        lambda u: 1 - 1 / (1 + jnp.exp(-1.2 + 1.2 * u)),
    ),
    'SD3, "rf/lognorm(0.00,1.00)"; logit-normal': (logit_draw, lambda u: 1 / (1 + jnp.exp(-u))),
    "SD3, shifted by 3; logit-normal": (logit_draw, lambda u: 3 / (1 + jnp.exp(-u)) / (1 + 2 / (1 + jnp.exp(-u)))),
    "MeanFlow; logit-normal": (logit_draw, lambda u: 1 / (1 + jnp.exp(0.4 - u))),
    "MeanFlow on CIFAR-10; logit-normal": (logit_draw, lambda u: 1 / (1 + jnp.exp(0.6 - 1.6 * u))),
    "MeanFlow on CIFAR-10, s; logit-normal": (logit_draw, lambda u: 1 / (1 + jnp.exp(4 - 1.6 * u))),
    "sCM on EDM's path": (edm_draw, lambda u: 0.5 * jnp.tan(jnp.arctan(jnp.exp(-1.0 + 1.4 * u) / 0.5))),
}


@pytest.mark.parametrize("name", TIME_LAWS)
def test_time_laws(name):
    """Draw for draw: the laws turn the same standard normal into a time."""
    row = table("Time laws")[name]
    law, theirs = TIME_LAWS[name]
    key = jax.random.key(0)
    t = law(float(value(row["mean here"])), float(value(row["std here"])))(key, 64)
    np.testing.assert_allclose(t, theirs(jax.random.normal(key, (64,))), rtol=1e-10)


@pytest.mark.parametrize(
    ("heading", "tested"),
    [("Indices", INDICES), ("Segments", SEGMENT_ENDS), ("Guidance", GUIDANCE), ("Time laws", TIME_LAWS)],
)
def test_page_and_test_have_the_same_rows(heading, tested):
    assert list(table(heading)) == list(tested)


def test_these_are_the_other_tables_of_the_page():
    assert headings()[3:] == ["Indices", "Segments", "Guidance", "Time laws"]
