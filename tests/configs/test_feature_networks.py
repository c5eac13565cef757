"""Published networks as features: weights of a file, images of any size, metrics by the names of what they are."""

import pickle
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import eval as evaluation
from configs import feature_networks, judging
from eval import fid
from eval.names import POOL
from eval.resize import torch_bicubic
from models.dinov2 import normalised, to_scale
from models.inception import SIDE, InceptionV3
from models.pretrained import read
from models.pretrained.dinov2 import dinov2
from models.pretrained.inception import names
from tests.drawn import inception_tensor
from tests.models.pretrained.dinov2_files import as_hugging_face, as_meta, timm_tensors

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
published = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks are not here")


@cache
def state_dict():
    """Random weights under pytorch-fid's names."""
    initial = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(initial):
        (name,) = names(tuple(key.key for key in path))
        order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(leaf.shape), range(len(leaf.shape)))
        found[name] = inception_tensor(name, tuple(leaf.shape[i] for i in order))
    return found


@pytest.fixture
def weights(tmp_path):
    save_file(state_dict(), tmp_path / "inception.safetensors")
    return tmp_path / "inception.safetensors"


@pytest.mark.slow
def test_a_distance_of_inception_from_the_command_line(weights, tmp_path):
    """Two sets of few images: the distance is that of the features, and the name says the resize."""
    random = np.random.RandomState(0)
    sets = {name: random.randint(low, 256, (4, 32, 32, 3)).astype(np.uint8) for name, low in (("a", 0), ("b", 90))}
    for name, images in sets.items():
        np.savez(tmp_path / f"{name}.npz", arr_0=images)
    out = tmp_path / "rows.jsonl"
    command = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--features", POOL, "--weights", str(weights)]
    fid.main([*command, "--allow-few", "--batch-size", "4", "--out", str(out)])
    (row,) = [row for row in evaluation.read_rows(out) if row["metric"] == "fid_tf1_4"]

    ((features,), _) = judging.features([POOL], weights=weights, batch_size=4)
    moments = [
        (f.mean(0, dtype=np.float64), np.cov(f, rowvar=False)) for f in (features.extract(x) for x in sets.values())
    ]
    np.testing.assert_allclose(row["value"], evaluation.frechet_distance(*moments[0], *moments[1]), rtol=1e-5)
    assert row["resize"] == "tf1"


@published
def test_the_class_token_of_dinov2_whatever_the_size_of_images(monkeypatch):
    """At 224 pixels, of a network too small for its number of heads to be known."""
    path = FIXTURES / "dinov2_tiny_42.timm.pth"
    monkeypatch.setattr(feature_networks, "dinov2", partial(dinov2, heads=3))
    ((features,), scores) = judging.features(["dinov2"], weights=path, batch_size=2)
    images = np.random.RandomState(0).randint(0, 256, (3, 20, 20, 1)).astype(np.uint8)
    module, params = dinov2(read(path), heads=3)
    coloured = jnp.repeat(jnp.asarray(images), 3, axis=-1)
    module = module.clone(resample=to_scale)
    tokens = np.asarray(module.apply(params, normalised(torch_bicubic(coloured, 224))))
    np.testing.assert_allclose(features.extract(images), tokens[:, 0], atol=2e-5)
    assert (features.resize, scores) == ("bicubic", ())


def test_the_library_of_a_file_of_dinov2_is_no_matter(tmp_path, monkeypatch):
    """Libraries take positions to another grid in ways of their own; the metric's is Meta's."""
    monkeypatch.setattr(feature_networks, "dinov2", partial(dinov2, heads=3))
    images = np.random.RandomState(0).randint(0, 256, (2, 20, 20, 3)).astype(np.uint8)
    found = []
    for named in (as_meta, dict, as_hugging_face):
        path = tmp_path / f"{named.__name__}.safetensors"
        save_file({name: np.ascontiguousarray(a) for name, a in named(timm_tensors(patch=14)).items()}, path)
        ((features,), _) = judging.features(["dinov2"], weights=path, batch_size=2)
        found.append(features.extract(images))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_moments_in_a_pickle_of_edm2(tmp_path):
    path = tmp_path / "img512.pkl"
    path.write_bytes(pickle.dumps({"num_images": 9, "fid": {"mu": np.ones(3), "sigma": np.eye(3)}}))
    found = judging.numbers(path)
    assert found["num_images"] == 9
    np.testing.assert_array_equal(found["fid"]["mu"], np.ones(3))
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="expected numbers by their names, found list"):
        judging.numbers(path)


@pytest.mark.parametrize(
    ("n", "devices", "at_once"),
    [(1, 1, 1), (3, 1, 2), (4, 1, 2), (12, 2, 4), (10, 2, 4), (2, 2, 2), (12, 3, 6), (8, 3, 8)],
)
def test_images_in_pairs_have_the_features_that_they_have_together(n, devices, at_once):
    images = jax.random.normal(jax.random.key(n), (n, 3, 2, 1))
    calls = []

    def network(params, images):
        calls.append(len(images))
        return {"sum": params * images.sum((1, 2, 3)), "map": images**2}

    expected = network(2.0, images)
    calls.clear()
    jax.tree.map(np.testing.assert_array_equal, feature_networks.in_pairs(network, devices)(2.0, images), expected)
    assert set(calls) == {at_once}
