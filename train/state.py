"""The state of a run: everything that training changes, and nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int

from .experiment import Experiment
from .sharding import on_host, state_shardings


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


def state_like(experiment: Experiment, mesh: Mesh) -> State:
    """Shapes and types of the state, and where its parts lie."""
    abstract = jax.eval_shape(lambda: init_state(experiment))
    shardings = state_shardings(mesh, abstract)
    if experiment.averages_on_host:
        shardings = shardings._replace(averages=on_host(shardings.averages))
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)


def shardings_of(tree: Any) -> Any:
    """Where the parts of a tree lie."""
    return jax.tree.map(lambda x: x.sharding, tree)


def place_state(experiment: Experiment, mesh: Mesh) -> State:
    """The state before the first step, on its devices."""
    abstract = state_like(experiment, mesh)
    shardings = shardings_of(abstract)
    if experiment.initial is None:
        return jax.jit(lambda: init_state(experiment), out_shardings=shardings)()
    params = experiment.initial()
    check_initial(params, abstract.params)
    params = jax.device_put(params, shardings.params)
    return jax.jit(lambda params: fresh_state(experiment, params), out_shardings=shardings)(params)


def init_state(experiment: Experiment) -> State:
    """The state before the first step, from random parameters. Trace it for its shapes."""
    return fresh_state(experiment, experiment.init(jax.random.fold_in(jax.random.key(experiment.seed), 2**31 - 1)))


def fresh_state(experiment: Experiment, params: Any) -> State:
    """The state before the first step at these parameters; averages start there too."""
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=experiment.optimizer.init(params),
        averages={name: jax.tree.map(jnp.copy, params) for name in experiment.averages},
    )


def check_initial(params: Any, expected: Any) -> None:
    """Refuse parameters to start from that are not those of this network.

    Raises:
        ValueError: naming the first leaves whose shape or dtype differ, or that are missing or superfluous.
    """
    given, wanted = (
        {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(params), jax.tree_util.tree_leaves_with_path(expected))
    )
    problems = [
        f"{name}: given {given.get(name, 'nothing')}, network {wanted.get(name, 'nothing')}"
        for name in sorted(given.keys() | wanted.keys())
        if given.get(name) != wanted.get(name)
    ]
    if problems:
        raise ValueError("the parameters to start from are not those of this network:\n  " + "\n  ".join(problems[:10]))
