"""What the runs share that learn a flow map by its mean velocity: Shortcut, flow map matching, Align Your Flow.

Not a run. On the digits they have the network of docs/results.md, told a second time, and its budget. LSD, ESD and PSD
(Boffi et al. 2025) are one experiment here with three residuals, of any network and data.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue
from configs.trajectories import FlowMapOf
from losses import Path, adaptive, conversions, linear, rectified_flow
from losses.flow_map_matching import diagonal
from losses.types import AverageVelocity, FlowMap, Loss
from models import preconditioning
from models.log_variance import LogVariance
from samplers import flow_map, grids
from samplers.noise import initial
from train import Batch, Context, Experiment, Params, Sampler

AverageVelocityOf = Callable[[Params, jax.Array | None], AverageVelocity]
"""(params, labels or None) -> mean velocity"""


class Residual(Protocol):
    """A loss of flow map matching with its law of times bound."""

    def __call__(self, u: AverageVelocity, x: jax.Array, key: jax.Array) -> Loss:
        """One loss per example, with the metrics `t`, `s` and `distance`."""
        ...


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md, from random weights."""
    config = digits_students.get_config()
    for name in ("sigma_data", "grids", "teacher_run"):
        del config[name]
    config.update({"learning_rate": 2e-3, "step_counts": (1, 2, 4, 8, 32)})
    return config


# ---- Networks and samplers -------------------------------------------------------------------------------------------


def end_itself(t: jax.Array, s: jax.Array) -> jax.Array:
    """The second input of a network that is told s as it is."""
    return s


def log2_step(t: jax.Array, s: jax.Array) -> jax.Array:
    """The second input of a Shortcut model: 0 for the whole way, 7 for a step of 1/128."""
    return jnp.log2(1 / (t - s))


def average_velocity(
    model: glue.Backbone, second_input: Callable[[jax.Array, jax.Array], jax.Array] = end_itself
) -> AverageVelocityOf:
    """(params, labels) -> u: the network's output as it is, told t and second_input(t, s)."""

    def u_of(params: Params, labels: jax.Array | None) -> AverageVelocity:
        def u(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            return preconditioning.velocity(glue.bind(model, params, labels, s=second_input(t, s)))(x_t, t)

        return u

    return u_of


def jumps_of(u_of: AverageVelocityOf) -> FlowMapOf:
    """(params, labels) -> flow map x_t - (t - s) u."""
    return lambda params, labels: conversions.average_velocity_to_flow_map(u_of(params, labels))


def flow_map_samplers(
    flow_map_of: FlowMapOf,
    shape: tuple[int, ...],
    step_counts: Sequence[int],
    *,
    path: Path = linear,
    start: float = 1.0,
    end: float = 0.0,
    calls: int = 1,
) -> tuple[Sampler, ...]:
    """Jumps of equal length from `start` to `end`, once for each number of them; `calls` of the network in each."""

    def sample(n: int, params: Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        times = end + (start - end) * grids.linear(n)
        x = path.sigma(jnp.float32(times[0])) * initial(keys, shape)
        return flow_map(flow_map_of(params, labels), x, times, end=end)

    return tuple(Sampler(f"flow map {n}", calls * n, partial(sample, n)) for n in step_counts)


# ---- Self-distillation -----------------------------------------------------------------------------------------------


def matching_config() -> ConfigDict:
    """The same, how many rows have s < t and the longest gradient, as in the paper's code; rate and floor are ours."""
    config = get_config()
    config.update({"share": 0.25, "learning_rate": 1e-3, "floor": 0.1, "clip": 1.0})
    return config


def self_distillation(
    config: ConfigDict,
    model: glue.Backbone,
    source: data.Source,
    residual: Residual,
    *,
    start: Callable[[], Params] | None = None,
) -> tuple[dict[str, Any], tuple[Sampler, ...]]:
    """The fields of an Experiment that say what is learned, and its samplers.

    The first rows of a batch train the residual, the others its diagonal by flow matching; weights are learned.

    A network that starts as 0 has no residual, for which the learned weight would grow without bound, until the first
    residual that there is throws the network back to a constant. With `floor` added to the residual of an element
    the weight is at most 1 / floor.

    Args:
        config: with share, floor, step_counts and seed.
        model: with `second_time=True`.
        source: of the examples.
        residual: LSD's, ESD's or PSD's.
        start: () -> parameters of the network to start from; at random without.
    """
    u_of = average_velocity(model)
    network = glue.initialiser(model, source)

    def log_weights(keys: Sequence[jax.Array]) -> dict[str, Params]:
        weights = (LogVariance().init(k, jnp.zeros(1))["params"] for k in keys)
        return dict(zip(("diagonal", "start", "end"), weights, strict=True))

    def init(key: jax.Array) -> Params:
        key_network, *keys = jax.random.split(key, 4)
        return {"network": network(key_network), **log_weights(keys)}

    def initial(start: Callable[[], Params]) -> Params:
        _, *keys = jax.random.split(jax.random.key(config.seed), 4)
        return {"network": start(), **log_weights(keys)}

    def log_weight(params: Params, name: str, t: jax.Array) -> jax.Array:
        return -cast(jax.Array, LogVariance().apply({"params": params[name]}, t))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_residual, key_diagonal = jax.random.split(key)
        x, labels = batch["image"], batch["label"]
        n, elements = round(config.share * len(x)), x[0].size
        off, metrics = residual(u_of(params["network"], labels[:n]), x[:n], key_residual)
        v = diagonal(u_of(params["network"], labels[n:]))
        on, metrics_on = rectified_flow(v, x[n:], key_diagonal)
        w_off = log_weight(params, "start", metrics["t"]) + log_weight(params, "end", metrics["s"])
        w_on = log_weight(params, "diagonal", metrics_on["t"])
        off += config.floor * elements
        loss = [adaptive(off, w_off, elements=elements), adaptive(on, w_on, elements=elements)]
        t, distance = [metrics["t"], metrics_on["t"]], [metrics["distance"], on]
        return jnp.concatenate(loss), {"t": jnp.concatenate(t), "distance": jnp.concatenate(distance) / elements}

    def sampled(params: Params, labels: jax.Array | None) -> FlowMap:
        return jumps_of(u_of)(params["network"], labels)

    learned = {"init": init, "initial": start and partial(initial, start), "objective": objective}
    return learned, flow_map_samplers(sampled, source.shape, config.step_counts)


def digits_self_distilled(config: ConfigDict, residual: Residual) -> Experiment:
    """Self-distillation on the digits."""
    source = data.digits()
    model = digits.network(config, source).clone(second_time=True)
    learned, samplers = self_distillation(config, model, source, residual)
    fields = digits.fields(config, source, samplers)
    fields["optimizer"] = optax.chain(optax.clip_by_global_norm(config.clip), fields["optimizer"])
    return Experiment(**learned, **fields)
