"""The conditioning vector of DiT: embedded time, second time, guidance scale and label, added. Always float32."""

from __future__ import annotations

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Float32, Integer

from .embeddings import sinusoidal

FREQUENCY_FEATURES = 256


class Conditioning(nn.Module):
    """Sum of a time embedding and, where given, those of a second time, a guidance scale and a label.

    The label table has `num_classes + 1` rows; the last one is the null class of classifier-free
    guidance. `time_scale` multiplies both times before their sinusoids. Peebles and Xie 2022.

    The sinusoids of the guidance scale are those of w itself, so none turns faster than w. LCM takes 1000 w,
    where 0.01 more is a full turn and a half of the fastest one. The last layer of w starts at zero: a
    network with the weights of one without w starts as that one.
    """

    width: int
    num_classes: int
    time_scale: float

    @nn.compact
    def __call__(
        self,
        t: Float[Array, " batch"],
        labels: Integer[Array, " batch"] | None,
        s: Float[Array, " batch"] | None,
        w: Float[Array, " batch"] | None,
    ) -> Float32[Array, "batch width"]:
        """Embed what is given; the network has checked that it is what the network takes."""
        normal = nn.initializers.normal(0.02)
        condition = _ScalarMLP(self.width, normal, name="t")(self.time_scale * t)
        if s is not None:
            condition += _ScalarMLP(self.width, normal, name="s")(self.time_scale * s)
        if w is not None:
            condition += _ScalarMLP(self.width, nn.initializers.zeros, name="w")(w)
        if labels is not None:
            condition += nn.Embed(self.num_classes + 1, self.width, embedding_init=normal, name="labels")(labels)
        return condition


class _ScalarMLP(nn.Module):
    width: int
    last_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, value: Float[Array, " batch"]) -> Float32[Array, "batch width"]:
        normal = nn.initializers.normal(0.02)
        h = nn.Dense(self.width, kernel_init=normal, name="linear0")(sinusoidal(value, FREQUENCY_FEATURES))
        return nn.Dense(self.width, kernel_init=self.last_init, name="linear1")(nn.silu(h))
