"""Networks that make no samples, by the command line: to our format, to the place that uses them, and back."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import eval as evaluation
from configs import feature_networks, judging
from models.pretrained import read
from models.pretrained.__main__ import main
from models.pretrained.dinov2 import dinov2
from models.pretrained.lpips import read_lpips
from models.pretrained.stable_autoencoder import read_autoencoder, read_network
from tests.configs.made_up import autoencoder_folder
from tests.drawn import linear_tensors, lpips_vgg, trunk_tensors
from tests.models.pretrained.dinov2_files import as_hugging_face, as_meta, timm_tensors


def save(path, tensors):
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return path


def converted(source, out, *arguments):
    """Convert, and check that what goes back is what it was, all of it."""
    assert main([str(source), f"--out={out}", *arguments]) == 0
    back = out.parent / f"{out.name}_back.safetensors"
    assert main([str(out), f"--export={back}"]) == 0
    return read(back)


def assert_equal_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("named", [dict, as_meta, as_hugging_face])
@pytest.mark.parametrize("gated", [False, True])
def test_dinov2(named, gated, tmp_path):
    tensors = named(timm_tensors(gated))
    source = save(tmp_path / "dinov2.safetensors", tensors)
    assert_equal_tensors(converted(source, tmp_path / "dinov2", "--heads=3"), tensors)


def test_features_of_a_folder_are_those_of_its_file(tmp_path, monkeypatch, capsys):
    source = save(tmp_path / "dinov2.safetensors", as_meta(timm_tensors(patch=14)))
    converted(source, tmp_path / "dinov2", "--heads=3")
    told = capsys.readouterr().out
    for line in ("family      dinov2", "tensors     35", "names       Meta", "makes       no samples"):
        assert line in told
    monkeypatch.setattr(feature_networks, "dinov2", partial(dinov2, heads=3))
    images = np.random.RandomState(0).randint(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    ((of_folder,), _), ((of_file,), _) = (
        judging.features(["dinov2"], weights=path, batch_size=2) for path in (tmp_path / "dinov2", source)
    )
    np.testing.assert_array_equal(of_folder.extract(images), of_file.extract(images))
    assert of_folder.weights == of_file.weights
    with pytest.raises(ValueError, match="has weights of the family dinov2; these features need inception"):
        judging.features(["inception"], weights=tmp_path / "dinov2")
    with pytest.raises(ValueError, match="of the family dinov2, which make no samples; it is given as --weights"):
        evaluation.load_experiment(tmp_path / "dinov2")


def test_an_autoencoder_of_diffusers(tmp_path):
    source = tmp_path / "vae"
    source.mkdir()
    autoencoder_folder(source)
    out = tmp_path / "autoencoder"
    assert_equal_tensors(converted(source, out), read(source / "diffusion_pytorch_model.safetensors"))
    assert read_network(out) == read_network(source)
    jax.tree.map(np.testing.assert_array_equal, read_autoencoder(out)[1], read_autoencoder(source)[1])
    assert json.loads((out / "model.json").read_text())["source"]["file"] == "diffusion_pytorch_model.safetensors"


def test_lpips(tmp_path):
    """Of AlexNet's two files, and of an npz of VGG16's, which is a distance."""
    trunk, linear = trunk_tensors("alex"), linear_tensors("alex")
    source = tmp_path / "source"
    source.mkdir()
    save(source / "alexnet-owt-7be5be79.pth", trunk | {"classifier.1.bias": np.zeros(3, np.float32)})
    save(source / "alex.pth", linear)
    assert_equal_tensors(converted(source, tmp_path / "alexnet"), trunk | linear)
    with pytest.raises(ValueError, match="has AlexNet and its layers; LPIPS is taken here of VGG16"):
        read_lpips(tmp_path / "alexnet")

    np.savez(tmp_path / "lpips.npz", **trunk_tensors("vgg"), **linear_tensors("vgg"))
    assert main([str(tmp_path / "lpips.npz"), f"--out={tmp_path / 'lpips'}"]) == 0
    jax.tree.map(np.testing.assert_array_equal, read_lpips(tmp_path / "lpips"), lpips_vgg())


def test_what_is_no_file_of_a_network_is_refused(tmp_path, capsys):
    tensors = as_meta(timm_tensors()) | {"register_tokens": np.zeros((1, 4, 12), np.float32)}
    del tensors["norm.bias"]
    source = save(tmp_path / "dinov2.safetensors", tensors)
    assert main([str(source), f"--out={tmp_path / 'out'}", "--heads=3"]) == 2
    told = capsys.readouterr().err
    assert "norm.bias is missing" in told
    assert "register_tokens is not a tensor of this network" in told
    assert not (tmp_path / "out").exists()
