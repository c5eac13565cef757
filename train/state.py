"""The state of a run: everything that training changes, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from .experiment import Experiment
from .sharding import state_shardings


class State(NamedTuple):
    """No key, no callable, no iterator: keys and data positions are functions of (seed, step).

    Attributes:
        step: optimizer steps taken, int32.
        params: what the optimizer moves.
        opt_state: the optimizer's own.
        averages: weight averages by name, each shaped like params.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    averages: dict[str, Any]


def place_state(experiment: Experiment, mesh: Mesh) -> State:
    """The state before the first step, on its devices."""
    shardings = state_shardings(mesh, jax.eval_shape(lambda: init_state(experiment)))
    return jax.jit(lambda: init_state(experiment), out_shardings=shardings)()


def init_state(experiment: Experiment) -> State:
    """The state before the first step; averages start at the parameters. Trace it for its shapes."""
    params = experiment.init(jax.random.fold_in(jax.random.key(experiment.seed), 2**31 - 1))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=experiment.optimizer.init(params),
        averages={name: jax.tree.map(jnp.copy, params) for name in experiment.averages},
    )
