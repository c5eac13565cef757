"""A sampler with adaptive steps for a flow, where a run asks for one: RK45 through diffrax, the extra `adaptive`.

Not a run.
"""

from collections.abc import Sequence

import jax

from configs.glue import NetOf
from samplers.noise import initial
from train import Params, Sampler


def rk45(tolerance: float, velocity_of: NetOf, shape: Sequence[int]) -> tuple[Sampler, ...]:
    """The flow's ODE from 1 to 0 with this relative and absolute tolerance; no sampler if it is 0.

    Its number of evaluations differs between samples, so that it has nfe 0.

    Raises:
        ValueError: for a negative tolerance, or if diffrax is not installed.
    """
    if tolerance < 0:
        raise ValueError(f"the tolerance of adaptive steps must be positive, or 0 for none, got {tolerance}")
    if tolerance == 0:
        return ()
    try:
        from samplers.adaptive import dopri5
    except ImportError as error:
        raise ValueError(
            "adaptive steps need diffrax: pip install '.[adaptive]', or no such sampler: --config.tolerance=0.0"
        ) from error

    def sample(params: Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        x = initial(keys, tuple(shape))
        return dopri5(velocity_of(params, labels), x, rtol=tolerance, atol=tolerance)[0]

    return (Sampler(f"rk45 {tolerance:g}", 0, sample),)
