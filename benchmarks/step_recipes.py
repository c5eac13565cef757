"""The recipes of `benchmarks/step_cost.py`: each loss with the same transformer, as a line of its table.

Left out is what takes more than calls of networks: LPIPS, of which 2-RF++ takes two calls and a gradient beside what
is counted here, and the reward of Adjoint Matching.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from losses import (
    adjoint_matching,
    align_eulerian,
    consistency,
    consistency_flow_matching,
    continuous_consistency,
    conversions,
    early_and_last,
    flow_map_matching,
    guided_velocity,
    imm_weight,
    improved_mean_flow,
    inductive_moment_matching,
    l2,
    linear,
    mean_flow,
    on_host,
    optimal_transport,
    pairs,
    rectified_flow,
    reflow,
    scaled,
    shortcut,
    steps,
    trajectory_consistency,
    transitions,
    triples,
    variational,
)
from losses.types import AverageVelocity, Loss, Net, PerExample
from models import preconditioning
from samplers import grids

from .step_networks import Networks

BASELINE = "flow matching"
GRID = pairs.karras_grid(18, sigma_min=0.05, sigma_max=0.95)


Recipe = Callable[[Networks, jax.Array, jax.Array, jax.Array], PerExample]
"""(networks, x, labels, key) -> loss [B]"""


def _net(networks: Networks, y: jax.Array) -> Net:
    return lambda x, t: networks.u(x, t, t, y)


def _mean_flow(
    networks: Networks,
    x: jax.Array,
    y: jax.Array,
    key: jax.Array,
    *,
    share: float,
    omega: float = 1.0,
    kappa: float = 0.0,
) -> PerExample:
    guided = omega != 1 or kappa != 0
    target = partial(guided_velocity, u=networks.u, null=networks.null, omega=omega, kappa=kappa) if guided else None
    return mean_flow(networks.u, x, key, y=y, jump_share=share, target=target)[0]


def _improved(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array, *, share: float) -> PerExample:
    return improved_mean_flow(networks.two, x, key, y=y, jump_share=share)[0]


def _ect(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    f = preconditioning.consistency(_net(networks, y))
    return consistency(f, x, key, pairs=partial(pairs.ect, stage=3))[0]


def _sct(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    return continuous_consistency(_net(networks, y), x, key)[0]


def _trajectory(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    """TCD's: two jumps of the student and one call of a teacher, here the same network at constant parameters."""
    jump = conversions.average_velocity_to_flow_map(lambda x_t, t, s: networks.u(x_t, t, s, y))
    return trajectory_consistency(
        jump, x, key,
        triples=partial(triples.tcd, grid=GRID), step=partial(steps.ddim, denoiser=_net(networks, y)), path=linear,
    )[0]  # fmt: skip


def _u(networks: Networks, y: jax.Array) -> AverageVelocity:
    return lambda x_t, t, s: networks.u(x_t, t, s, y)


def _consistency_flow(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    return consistency_flow_matching(_net(networks, y), x, key, boundary=0.9)[0]


def _shortcut(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    """How many lengths a step has is no matter of cost, and of 128 a small batch has not enough rows."""
    rows = max(len(x) // 8, 1)
    return shortcut(_u(networks, y), x, key, target=_u(networks, y[:rows]), rows=rows, steps=2)[0]


def _self_distilled(
    networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array, *, residual: Callable[..., Loss]
) -> PerExample:
    """A quarter of the rows for the residual, as published, and flow matching on the others."""
    n = max(len(x) // 4, 1)
    off, _ = residual(_u(networks, y[:n]), x[:n], key)
    on, _ = rectified_flow(_net(networks, y[n:]), x[n:], key)
    return jnp.concatenate([off, on])


def _align(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    """The teacher is the same network at constant parameters, without guidance."""
    return align_eulerian(_u(networks, y), x, key, velocity=_net(networks, y), pairs=pairs.ordered)[0]


def _moments(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    path, jump = scaled(linear, 0.5), conversions.euler_jump(0.5)
    return inductive_moment_matching(
        conversions.jump_to_flow_map(path, jump, _u(networks, y)), x, key,
        triples=partial(triples.imm, path=linear, time_of=lambda eta: eta / (1 + eta)),
        scale=lambda t, s: jnp.abs(jump.out(t, s)), weight=partial(imm_weight, path=linear), path=path,
    )[0]  # fmt: skip


def _given(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise that comes with the data, here the data turned round."""
    return x, jnp.flip(x)


def _paired(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    return rectified_flow(_net(networks, y), x, key, coupling=_given)[0]


def _reflow(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    return reflow(_net(networks, y), x, key, coupling=_given, perceptual=l2)[0]


def _transported(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    coupling = partial(optimal_transport, assign=on_host(linear_sum_assignment), labels=y)
    return rectified_flow(_net(networks, y), x, key, coupling=coupling)[0]


def _vct(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    posterior = variational.posterior(networks.encode(x, y))
    loss, _ = consistency(
        preconditioning.consistency(_net(networks, y)), x, key,
        pairs=partial(pairs.ect, stage=3), coupling=partial(variational.coupling, posterior=posterior),
    )  # fmt: skip
    return loss + variational.divergence(posterior)


def _adjoint(networks: Networks, x: jax.Array, y: jax.Array, key: jax.Array) -> PerExample:
    """The flow it starts from is the same network at constant parameters; the reward is one that costs nothing."""
    net = _net(networks, y)
    return adjoint_matching(
        net, x, key,
        base=net, reward=lambda x: x.sum(axis=(1, 2, 3)),
        transitions=transitions.ancestral(linear, grids.linear(40)), choice=partial(early_and_last, early=10, last=10),
    )[0]  # fmt: skip


ORDERED_TRIPLES = partial(triples.midpoint, pairs=pairs.ordered)
RECIPES: dict[str, Recipe] = {
    BASELINE: lambda networks, x, y, key: rectified_flow(_net(networks, y), x, key)[0],
    "reflow of given pairs": _paired,
    "2-RF++ without LPIPS": _reflow,
    "OT-CFM": _transported,
    "MeanFlow, s < t in all": partial(_mean_flow, share=1.0),
    "MeanFlow, s < t in 1/2": partial(_mean_flow, share=0.5),
    "MeanFlow, s < t in 1/4": partial(_mean_flow, share=0.25),
    "MeanFlow, all, guided": partial(_mean_flow, share=1.0, omega=2.0),
    "MeanFlow, all, guided, kappa": partial(_mean_flow, share=1.0, omega=1.0, kappa=0.5),
    "MeanFlow, 1/4, guided, kappa": partial(_mean_flow, share=0.25, omega=1.0, kappa=0.5),
    "improved MeanFlow, all": partial(_improved, share=1.0),
    "improved MeanFlow, 1/2": partial(_improved, share=0.5),
    "Consistency-FM": _consistency_flow,
    "Shortcut, 1/8": _shortcut,
    "LSD, 1/4": partial(_self_distilled, residual=partial(flow_map_matching.lagrangian, pairs=pairs.ordered)),
    "ESD, 1/4": partial(_self_distilled, residual=partial(flow_map_matching.eulerian, pairs=pairs.ordered)),
    "PSD, 1/4": partial(_self_distilled, residual=partial(flow_map_matching.semigroup, triples=ORDERED_TRIPLES)),
    "Align Your Flow, Eulerian": _align,
    "IMM": _moments,
    "ECT": _ect,
    "VCT": _vct,
    "sCT": _sct,
    "TCD": _trajectory,
    "Adjoint Matching, 20 of 40": _adjoint,
}
