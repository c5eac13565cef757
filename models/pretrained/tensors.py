"""All tensors of a foreign file and all parameters of a network: the one become the other once every one is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .layouts import Place, Stored, StoredAt, Tensors, outputs_first, same

LISTED = 30  # faults in one error
MOST_LAYERS = 1000  # that are numbered; a network is built layer by layer before its tensors can be compared
LARGEST_INPUT = 2**14  # along an axis
EMPTY = "a network cannot be told by these tensors"


def variables_of(module: nn.Module, *inputs: tuple[int, ...]) -> Any:
    """The shapes of all that a network has, "params" and more, by inputs of these shapes; nothing is computed."""
    return jax.eval_shape(module.init, jax.random.key(0), *map(_input, inputs))


def shapes_of(module: nn.Module, *inputs: tuple[int, ...], labels: bool = False, second_time: bool = False) -> Any:
    """The shapes of a network's parameters; it may take labels and a second time besides."""
    given = [*map(_input, inputs), *[jax.ShapeDtypeStruct((1,), jnp.int32)] * labels]
    told: dict[str, Any] = {"s": _input((1,))} if second_time else {}
    return jax.eval_shape(module.init, jax.random.key(0), *given, **told)["params"]


def _input(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """An input without its numbers, of which a file may ask for more than there is memory."""
    if max(shape) > LARGEST_INPUT:
        raise ValueError(f"the network would be of inputs of shape {shape}, larger than {LARGEST_INPUT:,}")
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def layers_of(tensors: Tensors, pattern: str) -> int:
    """How many layers there are, by the numbers in the names of their tensors.

    Args:
        tensors: of the file.
        pattern: of the start of a name, with the number as its group.

    Raises:
        ValueError: between 0 and the largest number some are missing, or there are more than any network has.
    """
    numbers = {int(match[1]) for name in tensors if (match := re.match(pattern, name))}
    if numbers and (len(numbers) <= max(numbers) or len(numbers) > MOST_LAYERS):
        missing = next(number for number in range(len(numbers) + 1) if number not in numbers)
        raise ValueError(f"there are {len(numbers)} layers {pattern}, up to {max(numbers)}; {missing} is missing")
    return len(numbers)


def refuse_empty(tensors: Tensors) -> None:
    """Refuse what has no numbers: a tensor without them has any shape at no cost, and a network would be built by it.

    Raises:
        ValueError: naming them.
    """
    refuse([f"{name} is no tensor, or an empty one" for name, a in tensors.items() if not getattr(a, "size", 0)], EMPTY)


def places(tree: Any) -> dict[Place, tuple[int, ...]]:
    """{place: shape} of a tree of dicts."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(part.key for part in path): tuple(leaf.shape) for path, leaf in leaves}


def by_name(names_of: Callable[[Place], Sequence[str]]) -> StoredAt:
    """Where a file has each parameter whose kernels lie as in PyTorch and all else as here, by what it is called."""

    def of(place: Place, shape: tuple[int, ...]) -> Stored:
        return Stored(tuple(names_of(place)), outputs_first if place[-1] == "kernel" else same)

    return of


def params_of(
    shapes: Any,
    tensors: Tensors,
    stored_at: StoredAt,
    constants: Tensors,
    what: str,
    *,
    within: float = 0.0,
    unused: Callable[[str], bool] = lambda name: False,
    ones: bool = False,
) -> Any:
    """Our parameters, float32, from the tensors of a file.

    Args:
        shapes: of our parameters.
        tensors: of the file.
        stored_at: where it has each parameter.
        constants: further tensors that it should have, each with the value that our network has in it.
        what: the network, for the error.
        within: how far constants may be from that, besides rounding.
        unused: names that the file may have besides.
        ones: whether a linear layer may be a convolution of one pixel, and a vector a batch of one.

    Raises:
        ValueError: listing tensors that are missing, left over, of another shape, not of finite numbers, or constants
            of another value.
    """
    found = {place: stored_at(place, shape) for place, shape in places(shapes).items()}
    expected: dict[str, tuple[int, ...]] = {}
    for place, shape in places(shapes).items():
        names = found[place].names()
        one = shape[1:] if found[place].copies else shape
        if not found[place].copies and len(names) > 1:
            one = (*shape[:-1], shape[-1] // len(names))
        of_one = np.broadcast_to(np.float32(0), one)
        expected.update(dict.fromkeys(names, found[place].layout.stored(of_one).shape))
    faults = [f"{name} is missing" for name in (*expected, *constants) if name not in tensors]
    known = {*expected, *constants}
    faults += [f"{name} is not a tensor of this network" for name in tensors if name not in known and not unused(name)]
    for name, shape in expected.items():
        if name in tensors and not fits(tensors[name].shape, shape, ones=ones):
            faults.append(f"{name} has shape {tensors[name].shape}, expected {shape}")
        elif name in tensors and not is_finite(tensors[name]):
            faults.append(f"{name} holds something else than finite numbers ({tensors[name].dtype})")
    for name, value in constants.items():
        if name in tensors and not close(tensors[name], value, within):
            faults.append(f"{name} is a constant with another value than this network has in it")
    refuse(faults, f"these are not the tensors of {what}")

    params: dict[str, Any] = {}
    for place, (_, layout, copies) in found.items():
        names = found[place].names()
        parts = [layout.ours(np.asarray(tensors[name], np.float32).reshape(expected[name])) for name in names]
        if not parts:
            continue
        layer = params
        for key in place[:-1]:
            layer = layer.setdefault(key, {})
        joined = np.stack(parts) if copies else parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        layer[place[-1]] = jnp.asarray(joined)
    return params


def tensors_of(params: Any, stored_at: StoredAt) -> dict[str, np.ndarray]:
    """The tensors of a file from our parameters, the way back."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        stored = stored_at(tuple(part.key for part in path), tuple(leaf.shape))
        names = stored.names()
        whole = np.asarray(leaf)
        parts = list(whole) if stored.copies else np.split(whole, len(names), axis=-1) if len(names) > 1 else [whole]
        for name, part in zip(names, parts, strict=bool(names)):
            tensors[name] = np.asarray(stored.layout.stored(part), order="C")
    return tensors


def fits(found: tuple[int, ...], expected: tuple[int, ...], *, ones: bool) -> bool:
    """Whether a tensor of one shape is of another; with `ones` but for axes of 1, if it has more or fewer axes."""
    alike = [size for size in found if size != 1] == [size for size in expected if size != 1]
    return found == expected or (ones and len(found) != len(expected) and alike)


def is_finite(array: np.ndarray) -> bool:
    """Whether an array is of floating point numbers, all of them finite."""
    return jnp.issubdtype(array.dtype, jnp.floating) and bool(np.isfinite(array.astype(np.float32)).all())


def close(array: np.ndarray, value: np.ndarray, within: float) -> bool:
    """Whether an array of a file is what we have, but for its rounding and a distance."""
    if array.shape != value.shape or not is_finite(array):
        return False
    rounding = 4 * float(jnp.finfo(array.dtype).eps)
    return bool(np.allclose(array.astype(np.float64), value, rtol=rounding, atol=rounding + within))


def refuse(faults: list[str], what: str) -> None:
    """Raise a ValueError that lists what is wrong, if anything is."""
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        raise ValueError(f"{what}:\n" + "\n".join([*faults[:LISTED], *more]))
