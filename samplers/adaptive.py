"""Adaptive steps on the flow ODE, through diffrax: needs the extra `adaptive`, and no other file imports this one.

Dormand and Prince's method of order 5, dopri5 or RK45, which flows are published with. Every sample has steps of its
own, so that it does not depend on the batch that it is drawn in; the network is called on all of them until the last
one arrives.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Int

from .likelihood import exact, hutchinson, log_noise
from .types import Array, Batch, Keys, Net, Path, PerExample, check_times

Evaluations = Int[Array, "batch"]


def dopri5(
    net: Net, x: Batch, *, start: float = 1.0, end: float = 0.0, rtol: float = 1e-5, atol: float = 1e-5
) -> tuple[Batch, Evaluations]:
    """The state at `end` of the ODE through x at `start`, and how often each sample needed the velocity.

    Args:
        net: Velocity v(x, t) = dx/dt, called with a time for each sample. At `end` too, so it must be finite there.
        x: State at `start`, [B, ...].
        start: Time of x.
        end: Time of the returned state.
        rtol: Root mean square of a step's error over the elements of a sample, relative to them, at most.
        atol: The same, absolute; the two bounds add up.

    Returns:
        The state [B, ...] and the number of evaluations [B], 6 for a step that is taken or repeated, and 1.

    Raises:
        ValueError: unless start > end >= 0, rtol >= 0 and atol > 0.
        RuntimeError: if a sample does not arrive in 4,096 steps, as when the velocity is not finite.
    """
    _check(start, end, rtol, atol)
    return _solve(net, x, start, end, rtol, atol)


def log_likelihood(
    net: Net,
    x: Batch,
    keys: Keys | None,
    *,
    path: Path,
    start: float = 1.0,
    end: float = 0.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> tuple[PerExample, Evaluations]:
    """log p(x) at time `end` as by `samplers.log_likelihood`, and how often each example needed the velocity.

    Args:
        net: Velocity v(x, t) = dx/dt with a forward-mode derivative in x; finite at `end`.
        x: Data [B, ...], the state at `end`.
        keys: One for each example, of `hutchinson`, whose vectors are the same in all steps; None is `exact`.
        path: Its sigma(start) is the standard deviation of the noise.
        start: Time of the noise.
        end: Time of the data.
        rtol: As in `dopri5`, of the state and of the logarithm each.
        atol: The same, absolute.

    Raises:
        ValueError, RuntimeError: as `dopri5`.
    """
    _check(start, end, rtol, atol)
    rates = exact(net) if keys is None else hutchinson(net, keys, x)
    state = (x, jnp.zeros(len(x), x.dtype))
    (x, total), evaluations = _solve(lambda state, t: rates(state[0], t), state, end, start, rtol, atol)
    return total + log_noise(x, path.sigma(jnp.asarray(start, x.dtype))), evaluations


def _solve(
    rates: Callable[[Any, Array], Any], state: Any, start: float, end: float, rtol: float, atol: float
) -> tuple[Any, Evaluations]:
    """Integrate a state, a pytree of [B, ...], whose rates are those of a whole batch with a time for each example."""
    n = len(jax.tree.leaves(state)[0])
    # What the rates close over, traced arrays too, has to be handed through vmap by hand.
    arrays, rest = eqx.partition(eqx.filter_closure_convert(rates, state, jnp.zeros(n)), eqx.is_array)

    # diffrax has one step size for what it is given, so it is given one example, and vmap makes steps for each. But a
    # network takes batches, with labels for all of them: it is called on what vmap has put together again.
    @custom_vmap
    def of_one(state: Any, t: Any, arrays: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, state)  # has the right shapes; never called outside of vmap

    @of_one.def_vmap
    def of_batch(size: int, batched: Any, state: Any, t: Any, arrays: Any) -> Any:
        together = tuple(batched[:2])
        whole = jax.tree.map(lambda a, b: a if b else jnp.broadcast_to(a, (size, *a.shape)), (state, t), together)
        return eqx.combine(arrays, rest)(*whole), jax.tree.map(lambda _: True, state)

    def solve(state: Any) -> tuple[Any, Array]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, state, arrays: of_one(state, t, arrays)),
            diffrax.Dopri5(),
            start,
            end,
            (end - start) / 100,
            state,
            args=arrays,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, norm=_largest_rms),
        )
        return jax.tree.map(lambda a: a[-1], solution.ys), 6 * solution.stats["num_steps"] + 1

    return jax.vmap(solve)(state)


def _largest_rms(error: Any) -> Array:
    """Root mean square over elements; of a state and its likelihood the larger one, so that neither hides the other."""
    return jnp.sqrt(jnp.max(jnp.stack([jnp.mean(jnp.square(leaf)) for leaf in jax.tree.leaves(error)])))


def _check(start: float, end: float, rtol: float, atol: float) -> None:
    check_times([start], end=end)
    if not (rtol >= 0 and atol > 0):
        raise ValueError(f"adaptive steps need rtol >= 0 and atol > 0, got rtol={rtol}, atol={atol}")
