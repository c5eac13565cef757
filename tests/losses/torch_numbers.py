"""The random numbers of PyTorch on a CPU, so that a loss can be compared with numbers of published code."""

import numpy as np


class TorchNumbers:
    """`torch.manual_seed(seed)`, then `torch.rand` and `torch.randn` in float32."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.RandomState(seed)

    def rand(self, n: int) -> np.ndarray:
        """Uniform on [0, 1): the lower 24 bits."""
        bits = self.bits.randint(0, 2**32, size=n, dtype=np.uint32)
        return (bits & np.uint32(2**24 - 1)).astype(np.float32) / np.float32(2**24)

    def randn(self, n: int) -> np.ndarray:
        """Standard normal, n a multiple of 16: Box and Muller in groups of eight and eight."""
        first, second = np.split(self.rand(n).reshape(-1, 2, 8), 2, axis=1)
        radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel().astype(np.float32)
