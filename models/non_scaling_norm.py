"""Layer normalisation that adds a bias and multiplies by nothing."""

import flax.linen as nn
from jax import Array
from jax.typing import DTypeLike


def non_scaling_norm(x: Array, dtype: DTypeLike, name: str) -> Array:
    """Normalise over channels and add a bias, a layer of the calling module (Dao et al. 2025, NsLN).

    For the `norm` of a U-Net, in place of group normalisation: a learned scale can single out the channels in which
    the outliers of latents show. Each pixel has statistics of its own, in float32.
    """
    return nn.LayerNorm(epsilon=1e-5, use_scale=False, use_fast_variance=False, dtype=dtype, name=name)(x)
