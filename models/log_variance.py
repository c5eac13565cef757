"""A weight for every noise level, trained beside the network."""

from __future__ import annotations

import math

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Float32

from .edm2_blocks import MPConv, mp_fourier
from .embeddings import fourier, fourier_frequencies


class LogVariance(nn.Module):
    """`w(t)`, [B] -> [B]: a linear layer without bias over fixed Fourier features of t; zero at initialisation.

    The loss `exp(-w) l + w` is least where `w(t)` is the logarithm of the mean of `l` at t, so that every noise
    level weighs alike. This is EDM2's sign (Karras et al. 2024); sCM has the other one, `exp(w) l - w` (Lu and
    Song 2024). The features have unit mean square, as in EDM2.

    Attributes:
        features: number of Fourier features, half of them sines and half cosines.
        scale: standard deviation of their frequencies, in periods per unit of t; 1 suits ln(sigma) / 4 and angles.
    """

    features: int = 128
    scale: float = 1.0

    @nn.compact
    def __call__(self, t: Float[Array, " batch"]) -> Float32[Array, " batch"]:
        """Evaluate w at the noise level as the network sees it (c_noise)."""
        h = math.sqrt(2) * fourier(t, fourier_frequencies(self.features, self.scale))
        return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name="linear")(h)[:, 0]


class EDM2LogVariance(nn.Module):
    """The same as EDM2 has it beside its published networks: Fourier features with phases, a weight normalised on use.

    Attributes:
        frequencies: of the features, in periods per unit of t.
        phases: of the features, in periods.
    """

    frequencies: tuple[float, ...]
    phases: tuple[float, ...]

    @nn.compact
    def __call__(self, t: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Evaluate w at the noise level as the network sees it (c_noise)."""
        h = mp_fourier(t, self.frequencies, self.phases)
        return MPConv(1, dtype=h.dtype, name="linear")(h)[:, 0]
