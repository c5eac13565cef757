"""The conditioning vector of DiT: embedded time, second time and label, added. Always float32."""

from __future__ import annotations

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Float32, Integer

from .embeddings import sinusoidal

FREQUENCY_FEATURES = 256


class Conditioning(nn.Module):
    """Sum of a time embedding and, where given, a second-time embedding and a row of the label table.

    The label table has `num_classes + 1` rows; the last one is the null class of classifier-free
    guidance. `time_scale` multiplies both times before their sinusoids. Peebles and Xie 2022.
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
    ) -> Float32[Array, "batch width"]:
        """Embed what is given; the network has checked that it is what the network takes."""
        condition = _TimeMLP(self.width, name="t")(self.time_scale * t)
        if s is not None:
            condition += _TimeMLP(self.width, name="s")(self.time_scale * s)
        if labels is not None:
            init = nn.initializers.normal(0.02)
            condition += nn.Embed(self.num_classes + 1, self.width, embedding_init=init, name="labels")(labels)
        return condition


class _TimeMLP(nn.Module):
    width: int

    @nn.compact
    def __call__(self, t: Float[Array, " batch"]) -> Float32[Array, "batch width"]:
        normal = nn.initializers.normal(0.02)
        h = nn.Dense(self.width, kernel_init=normal, name="linear0")(sinusoidal(t, FREQUENCY_FEATURES))
        return nn.Dense(self.width, kernel_init=normal, name="linear1")(nn.silu(h))
