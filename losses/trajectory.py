"""Trajectory consistency: CTM, TCD and PCM are this recipe, each with its own triples, step and flow map."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .couplings import independent
from .distances import l2
from .paths import Path, at_least_float32, edm, expand, interpolate
from .types import Batch, Coupling, Distance, FlowMap, Key, Loss, PerExample, Step, Triples


class Jumps(NamedTuple):
    """Two jumps that should meet, and where.

    Attributes:
        t: Start of the first, [B].
        s: Where both end, [B]; the time of `estimate` and `goal` unless they were projected.
        estimate: flow_map(x_t, t, s), projected if asked for, [B, ...]; gradients flow.
        goal: target(x_u, u, s), projected if asked for, [B, ...]; a constant.
    """

    t: PerExample
    s: PerExample
    estimate: Batch
    goal: Batch


def trajectory_consistency(
    flow_map: FlowMap,
    x: Batch,
    key: Key,
    *,
    triples: Triples,
    step: Step,
    target: FlowMap | None = None,
    project: FlowMap | None = None,
    end: float = 0.0,
    distance: Distance = l2,
    path: Path = edm,
    coupling: Coupling = independent,
) -> Loss:
    """d(flow_map(x_t, t, s), stop_gradient(target(x_u, u, s))) with x_u a teacher's step from x_t.

    Arguments and errors as in `jumps`, which a loss with a discriminator calls itself: the images it shows are those
    that are compared here.

    Args:
        flow_map: Student, (x_t, t, s) -> state at s.
        x: Data [B, ...].
        key: Draws t, u, s and z.
        triples: Law of (t, u, s).
        step: From x_t to x_u.
        target: The student at target parameters; by default itself.
        project: CTM's jump on to `end`.
        end: Time of that jump's end.
        distance: LPIPS on clean images in CTM, l2 at s in TCD, `elementwise_pseudo_huber` at s in PCM.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        One float32 loss per example [B], and metrics `t` and `s`.
    """
    pair = jumps(
        flow_map, x, key,
        triples=triples, step=step, target=target, project=project, end=end, path=path, coupling=coupling,
    )  # fmt: skip
    return distance(pair.estimate, pair.goal), {"t": pair.t, "s": pair.s}


def jumps(
    flow_map: FlowMap,
    x: Batch,
    key: Key,
    *,
    triples: Triples,
    step: Step,
    target: FlowMap | None = None,
    project: FlowMap | None = None,
    end: float = 0.0,
    path: Path = edm,
    coupling: Coupling = independent,
) -> Jumps:
    """The jump from x_t to s, and the one from a point x_u of the same trajectory, u < t, that it should meet.

    CTM (Kim et al. 2023), soft consistency: the teacher goes many steps from t to u, and both jumps go on to `end`.
    TCD (Zheng et al. 2024): one step, any s. PCM (Wang et al. 2024): one step, s the end of a phase.

    Args:
        flow_map: Student, (x_t, t, s) -> state at s, the identity where s = t.
        x: Data [B, ...].
        key: Draws t, u, s and z.
        triples: Law of (t, u, s): `triples.ctm`, `tcd` or `pcm` with their numbers bound.
        step: From x_t to x_u along the teacher's ODE: `steps.heun_on_grid` in CTM, `steps.ddim` in TCD and PCM. Where
            u = s the goal is x_u itself and the target is not asked.
        target: The student at target parameters; by default itself, as in PCM and in CTM's code. TCD passes an average.
        project: Jump by which both are taken from s to `end` before they are compared, CTM's student at averaged
            parameters. Gradients flow through its input, so bind parameters that take none. Not asked where s is `end`.
        end: Time of the end of that jump, 0.002 in CTM.
        path: x_t = alpha x + sigma z.
        coupling: Pairs data with noise.

    Returns:
        Both ends in float32 or wider.

    Raises:
        ValueError: if a flow map's output has not the shape of x.
    """
    key_t, key_z = jax.random.split(key)
    x, z = coupling(key_z, at_least_float32(x))
    t, u, s = triples(key_t, len(x))

    def jump(flow_map: FlowMap, x_r: Batch, r: PerExample, s: PerExample) -> Batch:
        # A network of ln s need not be finite where there is nowhere to go, and its answer would be thrown away.
        x_s = flow_map(x_r, jnp.where(r > s, r, t), s)
        if x_s.shape != x.shape:  # `where` would broadcast it
            raise ValueError(f"a flow map returns the shape of its input {x.shape}, got {x_s.shape}")
        return jnp.where(expand(r, x) > expand(s, x), at_least_float32(x_s), x_r)

    x_u = jax.lax.stop_gradient(step(path, x, z, t, u))
    estimate = jump(flow_map, interpolate(path, x, z, t), t, s)
    goal = jax.lax.stop_gradient(jump(target or flow_map, x_u, u, s))
    if project is not None:
        estimate, goal = (jump(project, x_s, s, jnp.full_like(s, end)) for x_s in (estimate, goal))
    return Jumps(t=t, s=s, estimate=estimate, goal=jax.lax.stop_gradient(goal))
