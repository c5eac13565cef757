"""Learning-rate schedules that optax does not have; each returns an optax schedule, step -> rate.

optax already has constant_schedule, warmup_cosine_decay_schedule, cosine_onecycle_schedule and others: configs use
them directly. `step` counts the steps already taken.
"""

import jax.numpy as jnp
import optax


def warmup_constant(peak: float, *, steps: int) -> optax.Schedule:
    """Linear rise from 0 in so many steps, then constant; with 0 steps constant from the first on.

    optax's own stays at 0 for ever if there is nothing to rise in.

    Raises:
        ValueError: steps is negative.
    """
    if steps < 0:
        raise ValueError(f"warmup_constant needs steps >= 0, got {steps}")
    return optax.warmup_constant_schedule(0.0, peak, steps) if steps else optax.constant_schedule(peak)


def edm_ramp(peak: float, *, ramp_images: float, batch_size: int) -> optax.Schedule:
    """Linear ramp over `ramp_images` training images, then constant; the first step has rate 0 (Karras et al. 2022).

    EDM's CIFAR-10 run ramps over 10 million images.

    Raises:
        ValueError: unless ramp_images and batch_size are positive.
    """
    if not (ramp_images > 0 and batch_size > 0):
        raise ValueError(f"edm_ramp needs positive numbers, got {ramp_images=}, {batch_size=}")
    return lambda step: peak * jnp.minimum(step * batch_size / ramp_images, 1.0)


def edm2_inverse_sqrt(
    reference: float, *, reference_steps: float, ramp_images: float, batch_size: int
) -> optax.Schedule:
    """reference / sqrt(max(step / reference_steps, 1)) after a linear ramp (Karras et al. 2024, eq. 67).

    Published: reference 0.010 (S), 0.007 (XL) with reference_steps 70,000 at ImageNet-512 and 35,000 at ImageNet-64.
    """
    ramp = edm_ramp(1.0, ramp_images=ramp_images, batch_size=batch_size)
    return lambda step: reference * ramp(step) / jnp.sqrt(jnp.maximum(step / reference_steps, 1.0))


def warmup_stable_decay(peak: float, *, steps: int, warmup_steps: int, decay_steps: int) -> optax.Schedule:
    """Linear rise from 0, a plateau, and a linear fall to 0 that ends at `steps` (Hu et al. 2024; Hägele et al. 2024).

    Raises:
        ValueError: if the rise and the fall do not fit into `steps`.
    """
    if warmup_steps < 0 or decay_steps < 1 or warmup_steps + decay_steps > steps:
        raise ValueError(f"warm-up {warmup_steps} and decay {decay_steps} do not fit into {steps} steps")
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, warmup_steps),
            optax.constant_schedule(peak),
            optax.linear_schedule(peak, 0.0, decay_steps),
        ],
        [warmup_steps, steps - decay_steps],
    )


def rex(peak: float, *, steps: int) -> optax.Schedule:
    """Reflected exponential: peak (1 - p) / (1/2 + (1 - p)/2) with p = step / steps (Chen et al. 2021).

    Holds the rate up longer than a linear fall and reaches 0 at `steps`.
    """
    if steps < 1:
        raise ValueError(f"rex needs steps >= 1, got {steps}")

    def schedule(step):
        left = 1 - jnp.minimum(step / steps, 1.0)
        return peak * left / (0.5 + 0.5 * left)

    return schedule
