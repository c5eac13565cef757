"""The other side of the comparisons: PyTorch and what is written in it."""

import pytest
import torch

# The wheel of torchvision beside a PyTorch without CUDA has operators that no library registers; declared, it imports.
OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(autouse=True)
def without_gradients():
    """Nothing here is trained."""
    with torch.no_grad():
        yield
