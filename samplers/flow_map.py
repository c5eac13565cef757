"""Sampling of a flow map without noise: one jump after another down the times."""

import jax

from .types import Array, Batch, FlowMap, Times, full, intervals


def flow_map(jump: FlowMap, x: Batch, times: Times, *, end: float = 0.0) -> Batch:
    """x_s = jump(x_t, t, s) over each interval from t down to s; one call a step (Geng et al. 2025, alg. 2).

    With jump(x, t, s) = x - (t - s) u(x, t, s), `conversions.average_velocity_to_flow_map(u)` of losses, it samples
    MeanFlow and Shortcut. `strategic` adds noise between the jumps.

    Args:
        jump: Flow map, (x_t, t, s) -> state at s.
        x: State at times[0], [B, ...].
        times: Descending times at which the flow map is called; one time is one jump to the end.
        end: Time of the returned state.

    Raises:
        ValueError: for times that do not fall strictly to above the end.
    """

    def step(x: Batch, interval: Array) -> tuple[Batch, None]:
        t, s = interval
        return jump(x, full(t, x), full(s, x)).astype(x.dtype), None

    return jax.lax.scan(step, x, intervals(times, end=end))[0]
