"""A small residual network on vectors, for toy problems and for tests, called exactly as the image networks are."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Float32, Integer

from .conditioning import Conditioning
from .net import check_conditions


class MLP(nn.Module):
    """Residual blocks over [B, D], conditioned on time and label; at initialisation its output is zero.

    Attributes:
        width: hidden features.
        depth: number of residual blocks.
        num_classes: 0 for an unconditional network; otherwise label `num_classes` is the null class.
        second_time: whether the network takes a second time s.
        guided: whether the network takes a guidance scale w.
        dropout: rate inside each block while training; key `dropout`.
        time_scale: factor on t and s before their embedding.
        dtype: compute dtype of the blocks; embeddings and the last layer stay float32.
    """

    width: int = 128
    depth: int = 3
    num_classes: int = 0
    second_time: bool = False
    guided: bool = False
    dropout: float = 0.0
    time_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch features"],
        t: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None = None,
        s: Float[Array, " batch"] | None = None,
        w: Float[Array, " batch"] | None = None,
        *,
        train: bool = False,
    ) -> Float32[Array, "batch features"]:
        """Evaluate the network.

        Raises:
            ValueError: a condition is missing or superfluous.
        """
        check_conditions(x, t, labels, s, w, self.num_classes, self.second_time, self.guided)
        conditioning = Conditioning(self.width, self.num_classes, self.time_scale, name="conditioning")
        condition = nn.silu(conditioning(t, labels, s, w))
        h = nn.Dense(self.width, dtype=self.dtype)(x)
        for _ in range(self.depth):
            branch = nn.Dense(self.width, dtype=self.dtype)(nn.silu(h))
            branch += nn.Dense(self.width, dtype=self.dtype)(condition)
            branch = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(branch))
            h += nn.Dense(self.width, dtype=self.dtype)(branch)
        return nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=jnp.float32)(nn.silu(h))
