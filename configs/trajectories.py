"""What the runs share that learn jumps (CTM, TCD, PCM): flow maps, their sampler, and a discriminator beside them.

Not a run.
"""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

import train
from losses import Path, conversions
from losses.adversarial import hinge_discriminator
from losses.types import FlowMap, PerExample
from models.autoencoder_discriminator import PatchDiscriminator
from samplers import strategic
from samplers.noise import initial
from samplers.strategic import Stop
from train import Params

FlowMapOf = Callable[[Params, jax.Array | None], FlowMap]
"""(params, labels or None) -> flow map"""
HeadsOf = Callable[[Params, jax.Array], tuple[jax.Array, ...]]
"""(params, images) -> the heads of a discriminator, each [B, ...]"""


def flow_map(g_of: FlowMapOf, path: Path) -> FlowMapOf:
    """The DDIM jump to s by a data prediction g(x_t, t, s): TCD's, and on the EDM path CTM's (s/t) x + (1 - s/t) g."""

    def of(params: Params, labels: jax.Array | None) -> FlowMap:
        g = g_of(params, labels)
        return lambda x_t, t, s: conversions.ddim_jump(path, x_t, g(x_t, t, s), t, s)

    return of


def strategic_sampler(
    name: str,
    flow_map_of: FlowMapOf,
    shape: tuple[int, ...],
    times: np.ndarray,
    *,
    path: Path,
    stop: Stop,
    end: float = 0.0,
    calls: int = 1,
) -> train.Sampler:
    """Strategic sampling of a flow map of so many calls, from noise of the path's own level at the first time."""

    def sample(params: Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        x = path.sigma(jnp.float32(times[0])) * initial(keys, shape)
        return strategic(flow_map_of(params, labels), x, times, keys, path=path, stop=stop, end=end)

    return train.Sampler(name, calls * len(times), sample)


# ---- The discriminator -----------------------------------------------------------------------------------------------


def discriminator(channels: int) -> PatchDiscriminator:
    """Patches of 16 pixels a side, more than a digit of scikit-learn has."""
    return PatchDiscriminator(channels=channels, layers=1, groups=4)


def initialiser(
    network: Callable[[jax.Array], Params], judge: PatchDiscriminator | None, seen: tuple[int, ...]
) -> Callable[[jax.Array], Params]:
    """key -> {"network"}, and "discriminator" if there is one, of images of the shape `seen`."""

    def init(key: jax.Array) -> Params:
        key_network, key_judge = jax.random.split(key)
        params = {"network": network(key_network)}
        return params | ({"discriminator": judge.init(key_judge, jnp.zeros((1, *seen)))["params"]} if judge else {})

    return init


def optimizer(
    network: optax.GradientTransformation, judge: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One optimizer for the network, another for the discriminator if there is one."""

    def players(params: Params) -> dict[str, str]:
        return {name: name for name in params}

    return optax.partition({"network": network, "discriminator": judge}, players)


def beside(x: jax.Array, *conditions: jax.Array) -> jax.Array:
    """Images [B, H, W, C] and what else a discriminator is told, [B, k] each: k channels of one number throughout."""
    planes = (jnp.broadcast_to(c[:, None, None, :], (*x.shape[:-1], c.shape[-1])) for c in conditions)
    return jnp.concatenate([x, *planes], axis=-1)


def patches(judge: PatchDiscriminator) -> HeadsOf:
    """(params, images) -> the heads of a discriminator of images."""
    return lambda params, x: cast(tuple[jax.Array, ...], judge.apply({"params": params["discriminator"]}, x))


def players(
    heads_of: HeadsOf,
    params: Params,
    real: jax.Array,
    fake: jax.Array,
    *,
    generator: Callable[[tuple[jax.Array, ...]], PerExample],
) -> tuple[PerExample, PerExample]:
    """Loss of the network that made the fake images, and of the discriminator; neither trains the other."""
    fake_constant, real = jax.lax.stop_gradient((fake, real))
    fooled = generator(heads_of(jax.lax.stop_gradient(params), fake))
    told = hinge_discriminator(heads_of(params, real), heads_of(params, fake_constant))
    return fooled, told
