"""The other side of the comparisons: PyTorch and what is written in it."""

from importlib import import_module

import pytest
import torch

from tests.drawn import inception_tensor

# The wheel of torchvision beside a PyTorch without CUDA has operators that no library registers; declared, it imports.
OPERATORS = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(autouse=True)
def without_gradients():
    """Nothing here is trained."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def inception_state():
    """Random weights for the names and shapes of pytorch-fid's network; `fid_inception_v3` asks for a download."""
    theirs = import_module("pytorch_fid.inception")  # which imports torchvision, and so only now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *args, **options: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **options: None)
        shapes = {name: tensor.shape for name, tensor in theirs.fid_inception_v3().state_dict().items()}
    return {
        name: torch.tensor(0) if name.endswith("tracked") else torch.from_numpy(inception_tensor(name, tuple(shape)))
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="session")
def inception_file(inception_state, tmp_path_factory):
    """The same in a file that torch wrote."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(inception_state, path)
    return path
