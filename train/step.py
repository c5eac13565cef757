"""One optimizer step, jitted over the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Array, Float

from .averages import update
from .experiment import Batch, Context, Experiment, Key, Params, PerExample
from .sharding import batch_sharding, replicated, state_shardings
from .state import State, shardings_of, state_like

NOISE_QUARTERS = 4


def make_step(experiment: Experiment, mesh: Mesh) -> Wrapped:
    """(state, batch, frozen) -> (state, scalars): gradient, optimizer, averages. The state passed in is donated.

    Randomness is fold_in(seed, step), and jax draws the same numbers however the batch is sharded, so a step is a
    function of (state, batch) alone on any number of devices.
    """
    like = state_like(experiment, mesh)

    def step(state: State, batch: Batch, frozen: Any) -> tuple[State, dict[str, Float[Array, ""]]]:
        # Networks ask for it that say where their examples are, and kernels that are called device by device.
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return unplaced_step(state, batch, frozen)

    def unplaced_step(state: State, batch: Batch, frozen: Any) -> tuple[State, dict[str, Float[Array, ""]]]:
        key = jax.random.fold_in(jax.random.key(experiment.seed), state.step)
        key_prepare, key_loss = jax.random.split(key)
        old_averages = state.averages
        if experiment.averages_on_host:
            old_averages = jax.device_put(old_averages, state_shardings(mesh, like.averages))
        context = Context(step=state.step, frozen=frozen, averages=old_averages)
        batch = experiment.prepare(key_prepare, batch)

        gradient, (losses, metrics) = accumulated_gradient(
            lambda params, batch, key: experiment.objective(params, batch, key, context),
            state.params,
            batch,
            key_loss,
            micro_batches=experiment.accumulate,
        )
        updates, opt_state = experiment.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = update(old_averages, experiment.averages, params, state.step)

        scalars = {
            "loss": losses.mean(),
            "gradient_norm": optax.tree.norm(gradient),
            # Of those that the loss is of: that of the new ones would keep the compiler from fusing their averages.
            "parameter_norm": optax.tree.norm(state.params),
        }
        scalars |= {name: value.mean() for name, value in metrics.items() if name != "t"}
        if "t" in metrics:
            scalars |= by_noise_level(losses, metrics["t"])
        return State(state.step + 1, params, opt_state, averages), scalars

    shardings = shardings_of(like)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh), None),
        out_shardings=(shardings, replicated(mesh)),
    )


def accumulated_gradient(
    objective: Callable[[Params, Batch, Key], tuple[PerExample, dict[str, PerExample]]],
    params: Params,
    batch: Batch,
    key: Key,
    *,
    micro_batches: int,
) -> tuple[Params, tuple[PerExample, dict[str, PerExample]]]:
    """Gradient of the mean loss over a batch taken in `micro_batches` parts, one after the other.

    Returns the gradient and the per-example losses and metrics of the whole batch. Part i uses fold_in(key, i).
    """

    def mean_loss(params: Params, batch: Batch, key: Key) -> tuple[Array, tuple[PerExample, dict[str, PerExample]]]:
        losses, metrics = objective(params, batch, key)
        return losses.mean(), (losses, metrics)

    gradient_of = jax.grad(mean_loss, has_aux=True)
    if micro_batches == 1:
        return gradient_of(params, batch, key)

    # Part i takes every micro_batches-th row, so that each device keeps the rows it already holds.
    parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Params, part: tuple[Array, Batch]) -> tuple[Params, tuple[PerExample, dict[str, PerExample]]]:
        index, rows = part
        gradient, auxiliary = gradient_of(params, rows, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, gradient), auxiliary

    zeros = jax.tree.map(jnp.zeros_like, params)
    total, auxiliary = jax.lax.scan(add, zeros, (jnp.arange(micro_batches), parts))
    return jax.tree.map(lambda g: g / micro_batches, total), jax.tree.map(jnp.ravel, auxiliary)


def by_noise_level(losses: PerExample, t: PerExample) -> dict[str, Float[Array, ""]]:
    """Mean loss in each quarter of the batch by noise level, loss_t1 (least) to loss_t4 (most), and the range of it."""
    sorted_losses = losses[jnp.argsort(t)]
    quarters = jnp.array_split(sorted_losses, NOISE_QUARTERS)
    return {f"loss_t{i + 1}": quarter.mean() for i, quarter in enumerate(quarters) if quarter.size} | {
        "t_least": t.min(),
        "t_most": t.max(),
    }
