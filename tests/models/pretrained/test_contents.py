"""Weights in the containers that metric networks are handed around in."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.inception import SIDE, InceptionV3
from models.pretrained.contents import contents, tensors_in
from models.pretrained.inception import graph_names
from models.pretrained.tensors import places
from tests.models.pretrained import written


def nvidia_module(arrays):
    """Opcodes of a module whose parts are modules, by the dots in the names of its tensors."""
    own = {name: array for name, array in arrays.items() if "." not in name}
    parts = dict.fromkeys(name.partition(".")[0] for name in arrays if "." in name)
    inside = {
        part: {name.partition(".")[2]: a for name, a in arrays.items() if name.startswith(f"{part}.")} for part in parts
    }
    return written.module("InceptionV3", own, modules={part: nvidia_module(of) for part, of in inside.items()})


def test_nvidias_detector_has_the_names_that_its_converter_knows(tmp_path):
    """A module of EDM's `inception-2015-12-05.pkl`, with one number for each tensor."""
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    names = [name for place in places(shapes) for name in graph_names(place)]
    arrays = {name: np.array([i], np.float32) for i, name in enumerate(names)}
    assert len(arrays) == 378
    path = written.write_pickle(tmp_path / "inception-2015-12-05.pkl", nvidia_module(arrays))
    found = tensors_in(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_torchscript_is_named_and_what_to_give_instead(tmp_path):
    path = tmp_path / "inception-2015-12-05.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("data.pkl", "code/__torch__/torch_utils/persistence.py", "constants.pkl"):
            archive.writestr(f"inception/{name}", b"x" * 999)
    with pytest.raises(ValueError, match=r"inception-2015-12-05\.pt is TorchScript.*pt_inception-2015-12-05-6726825d"):
        contents(path)


def test_an_object_that_is_no_module_is_refused(tmp_path):
    path = written.write_pickle(tmp_path / "other.pkl", written.call("argparse", "Namespace"))
    with pytest.raises(ValueError, match=r"other\.pkl: .*which is no module"):
        contents(path)
