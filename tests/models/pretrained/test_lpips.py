"""LPIPS beside the distances of the published implementation, with weights that are a rule."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import Precision

from losses import lpips
from models import alexnet, vgg
from models.pretrained.lpips import alexnet as convert_alexnet
from models.pretrained.lpips import read_lpips
from models.pretrained.lpips import vgg as convert_vgg
from tests.drawn import linear_tensors, lpips_alexnet, lpips_vgg, trunk_tensors
from tests.models.pretrained import written

FIXTURE = Path(__file__).parents[4] / "shared" / "fixtures" / "lpips.npz"
published = pytest.mark.skipif(not FIXTURE.is_file(), reason="the published distances are not here")


@published
@pytest.mark.parametrize(
    ("name", "drawn", "features"),
    [
        ("vgg", lpips_vgg, partial(vgg.lpips_features, precision=Precision.HIGHEST)),
        ("alex", lpips_alexnet, partial(alexnet.lpips_features, precision=Precision.HIGHEST)),
    ],
)
def test_distances_of_the_published_implementation(name, drawn, features):
    with np.load(FIXTURE) as file:
        told = dict(file)
    tensors = trunk_tensors(name)
    sums = [tensors[key].sum(dtype=np.float64) for key in told[f"{name}_trunk_names"]]
    np.testing.assert_allclose(sums, told[f"{name}_trunk_sums"], rtol=1e-6, atol=1e-6)

    trunk, weights = drawn()
    distance = jax.jit(lambda trunk, a, b: lpips(a, b, features=features(trunk), weights=weights))
    pairs = [
        [jnp.asarray(told[f"{pair}_{side}"][None] / 127.5 - 1, jnp.float32) for side in "ab"]
        for pair in told["pair_order"]
    ]
    found = np.concatenate([distance(trunk, a, b) for a, b in pairs])
    np.testing.assert_allclose(found, told[f"{name}_rule_distance_f64"], rtol=1e-5, atol=1e-10)
    swapped = np.concatenate([distance(trunk, b, a) for a, b in pairs])
    np.testing.assert_allclose(swapped, found, rtol=1e-5, atol=1e-10)


def test_one_file_holds_both(tmp_path):
    arrays = trunk_tensors("vgg") | {f"lin{i}": w.reshape(-1) for i, w in enumerate(linear_tensors("vgg").values())}
    np.savez(tmp_path / "lpips.npz", **arrays)
    jax.tree.map(np.testing.assert_array_equal, read_lpips(tmp_path / "lpips.npz"), lpips_vgg())


def test_a_folder_has_the_files_of_torchvision_and_of_the_package(tmp_path):
    """The layers in a file of torch before 1.6, as the package has them."""
    trunk, linear = trunk_tensors("vgg"), linear_tensors("vgg")
    written.write_state_dict(tmp_path / "vgg16-397923af.pth", trunk | {"classifier.0.bias": np.zeros(2, np.float32)})
    with pytest.raises(FileNotFoundError, match=r"has no vgg\.pth, which is a file of the lpips package"):
        read_lpips(tmp_path)
    keys = {name: str(i) for i, name in enumerate(linear)}
    value = written.dict_of(
        {
            name: written.whole(written.storage(keys[name], a.dtype, a.size, written.plain(None)), a)
            for name, a in linear.items()
        }
    )
    (tmp_path / "vgg.pth").write_bytes(written.legacy(value, {keys[name]: a for name, a in linear.items()}))
    jax.tree.map(np.testing.assert_array_equal, read_lpips(tmp_path), lpips_vgg())


def test_the_classifier_of_a_trunk_is_not_needed():
    trunk = trunk_tensors("alex") | {"classifier.1.weight": np.zeros((2, 3), np.float32)}
    jax.tree.map(np.testing.assert_array_equal, convert_alexnet(trunk, linear_tensors("alex")), lpips_alexnet())


def test_every_fault_of_a_file_is_listed():
    trunk = {name: array for name, array in trunk_tensors("vgg").items() if name != "features.5.bias"}
    trunk["features.0.weight"] = trunk["features.0.weight"].transpose(2, 3, 1, 0)
    trunk["features.2.bias"] = np.full(64, np.nan, np.float32)
    trunk["features.3.bias"] = np.zeros(64, np.float32)
    with pytest.raises(ValueError, match="VGG16's trunk") as error:
        convert_vgg(trunk, linear_tensors("vgg"))
    assert str(error.value).split("\n")[1:] == [
        "features.5.bias is missing",
        "features.3.bias is not a tensor of this network",
        "features.0.weight has shape (3, 3, 3, 64), expected (64, 3, 3, 3)",
        "features.2.bias holds something else than finite numbers (float32)",
    ]


def test_layers_of_another_network_and_negative_weights_are_refused():
    with pytest.raises(ValueError, match=r"lin1\.model\.1\.weight has shape \(1, 192, 1, 1\), expected \(128,\)"):
        convert_vgg(trunk_tensors("vgg"), linear_tensors("alex"))
    linear = linear_tensors("alex")
    linear["lin1.model.1.weight"] = -linear["lin1.model.1.weight"]
    with pytest.raises(ValueError, match="lin1 hold negative numbers"):
        convert_alexnet(trunk_tensors("alex"), linear)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(ValueError, match=r"text\.npz: not a readable npz file"):
        read_lpips(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        read_lpips(tmp_path / "none.npz")
