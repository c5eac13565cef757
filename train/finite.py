"""Whether training is still going somewhere: the scalars of a step on the host, and whether they are finite."""

from typing import Any

import jax
import numpy as np
import optax


class NonFiniteError(FloatingPointError):
    """The loss, the gradient or the parameters of a step were not finite; the last checkpoint is from before it."""


def on_host(scalars: dict[str, jax.Array]) -> dict[str, float]:
    """The scalars of a step, waited for."""
    return {name: float(value) for name, value in jax.device_get(scalars).items()}


def check_finite(step: int, values: dict[str, float], *, before: int, allowed: int) -> int:
    """Stop a run whose steps are not finite.

    Args:
        step: which one.
        values: its scalars.
        before: how many steps on end before it were not finite.
        allowed: how many on end end the run.

    Returns:
        How many steps on end were not finite, this one included; 0 if it is.

    Raises:
        NonFiniteError: with all scalars, if these are too many, or the parameters are not finite, which nothing mends.
    """
    if np.isfinite([values["loss"], values["gradient_norm"], values["parameter_norm"]]).all():
        return 0
    if before + 1 < allowed and np.isfinite(values["parameter_norm"]):
        return before + 1
    terms = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    on_end = f", the last of {before + 1} on end" if before else ""
    raise NonFiniteError(
        f"step {step} is not finite{on_end}: {terms}. The last checkpoint is from before "
        f"{'these steps' if before else 'this step'}."
    )


def check_parameters(step: int, params: Any, *, before: int) -> None:
    """Keep parameters that are not finite from being written.

    The scalars of a step are those of the parameters that it began with; what it made of them is seen here, or by the
    next one.

    Args:
        step: the last one.
        params: what it made.
        before: how many steps on end were not finite, this one included.

    Raises:
        NonFiniteError: they are not.
    """
    norm = float(_norm(params))
    if not np.isfinite(norm):
        raise NonFiniteError(
            f"the parameters after step {step} are not finite, parameter_norm {norm:.6g}: "
            + (f"nor were loss and gradient of {before} steps on end" if before else "of a finite loss and gradient")
            + f". The last checkpoint is from before {'these steps' if before else 'this step'}."
        )


_norm = jax.jit(optax.tree.norm)
