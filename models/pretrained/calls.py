"""How a published network is called: from its bare output F to a denoiser, a consistency function or a velocity.

A call is plain values, `kind` among them:

    edm, vp, ve, discrete   F makes a denoiser D(x, sigma) for x + sigma z
    consistency             F makes a consistency function f(x, sigma)
    trajectory              F, told s as well, makes g(x, t, s) of CTM's jump (s / t) x + (1 - s / t) g
    velocity                F is a velocity on (1 - t) x + t z, or, `reversed`, that of 1 - t
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import preconditioning
from ..net import Net

DENOISERS: Mapping[str, Callable[[Mapping[str, Any], Net], Net]] = {
    "edm": lambda call, F: preconditioning.edm(F, call["sigma_data"]),
    "vp": lambda call, F: preconditioning.vp(F, call["beta_d"], call["beta_min"], call["M"]),
    "ve": lambda call, F: preconditioning.ve(F),
    "discrete": lambda call, F: preconditioning.discrete(F, np.asarray(call["levels"])),
}


def denoiser(call: Mapping[str, Any], F: Net) -> Net:
    """D(x, sigma) for x + sigma z.

    Raises:
        ValueError: the network is no diffusion model.
    """
    if call["kind"] not in DENOISERS:
        raise ValueError(f"this network is called as {call['kind']}, which is no diffusion model")
    return DENOISERS[call["kind"]](call, F)


def smooth_denoiser(call: Mapping[str, Any], F: Net) -> Net:
    """The same with a derivative in sigma: a network that knows steps alone is asked between them, too."""
    if call["kind"] == "discrete":
        return preconditioning.discrete(F, np.asarray(call["levels"]), preconditioning.between)
    return denoiser(call, F)


def consistency_function(call: Mapping[str, Any], F: Net) -> Net:
    """f(x, sigma), with f(x, sigma_min) = x.

    Raises:
        ValueError: the network is no consistency model.
    """
    if call["kind"] != "consistency":
        raise ValueError(f"this network is called as {call['kind']}, which is no consistency model")
    return preconditioning.consistency(F, call["sigma_data"], call["sigma_min"])


def trajectory(call: Mapping[str, Any], F: Callable[[Array, Array, Array], Array]) -> Callable[..., Array]:
    """g(x, t, s) of F(x, c_noise(t), c_noise(s)).

    Raises:
        ValueError: the network is no consistency trajectory model.
    """
    if call["kind"] != "trajectory":
        raise ValueError(f"this network is called as {call['kind']}, which is no consistency trajectory model")

    def g(x: Array, t: Array, s: Array) -> Array:
        return preconditioning.edm(lambda x, c_noise: F(x, c_noise, jnp.log(s) / 4), call["sigma_data"])(x, t)

    return g


def velocity(call: Mapping[str, Any], F: Net) -> Net:
    """v(x, t) on (1 - t) x + t z; of more output channels than x has, the first are it.

    Raises:
        ValueError: the network is no flow.
    """
    if call["kind"] != "velocity":
        raise ValueError(f"this network is called as {call['kind']}, which is no flow")
    if call["reversed"]:
        return lambda x, t: -F(x, 1 - t)[..., : x.shape[-1]]
    return lambda x, t: F(x, t)[..., : x.shape[-1]]
