"""Features by name with a toy network, images by name."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

import eval as evaluation
import losses
from configs import judging
from configs.judging import examples, features, images
from eval.names import LOGITS, POOL, SPATIAL
from models import vgg
from tests.configs.toy import TOY
from tests.drawn import linear_tensors, lpips_vgg, trunk_tensors


@pytest.fixture
def weights(tmp_path):
    np.save(tmp_path / "toy.npy", np.eye(4, 3, dtype=np.float32))
    return tmp_path / "toy.npy"


def test_features_of_a_network_have_its_weights_and_resize(weights):
    x = np.random.RandomState(0).randint(0, 256, (5, 4, 4, 1)).astype(np.uint8)
    (pool, spatial), scores = features([POOL, SPATIAL, LOGITS], weights=weights, networks=[TOY])
    np.testing.assert_allclose(pool.extract(x), x[:, ::2, ::2].reshape(5, 4)[:, :3] / 255, rtol=1e-6)
    assert spatial.extract(x).shape == (5, 2)
    assert [score.name for score in scores] == [
        *("inception_score_adm", "inception_score_splits", "inception_score_torch_fidelity")
    ]
    assert (pool.name, pool.resize) == ("inception", "tf1")
    assert pool.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
    (other,), _ = features([POOL], weights=weights, resize="clean", networks=[TOY])
    np.testing.assert_allclose(other.extract(x), x[:, 1::2, 1::2].reshape(5, 4)[:, :3] / 255, rtol=1e-6)
    assert evaluation.metric_name("fd", other, 50_000) == "fid_clean_50k"


def test_lpips_is_a_diversity_of_images(tmp_path):
    """Of two pairs in each of two classes; by the distance that `losses` has."""
    tensors = {**trunk_tensors("vgg"), **linear_tensors("vgg")}
    np.savez(tmp_path / "lpips.npz", **tensors)
    none, (score,) = features(["lpips_vgg"], weights=tmp_path / "lpips.npz")
    assert none == ()
    x = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    labels = np.array([0, 1, 0, 1])
    rows = evaluation.judge([(x[:3], labels[:3]), (x[3:], labels[3:])], references=(), scores=(score,))
    trunk, layers = lpips_vgg()
    a, b = (jnp.asarray(part, jnp.float32) / 127.5 - 1 for part in (x[:2], x[2:]))
    distances = losses.lpips(a, b, features=vgg.lpips_features(trunk), weights=layers)
    assert rows[0]["metric"] == "diversity_lpips_vgg_4"
    assert rows[0]["weights_sha256"] == evaluation.file_sha256(tmp_path / "lpips.npz")
    np.testing.assert_allclose(rows[0]["value"], np.mean(distances), rtol=1e-5)


def test_the_files_of_lpips_are_looked_for_where_weights_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "fewstep" / "weights" / "vgg16-397923af.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"vgg16-397923af\.pth: sha256 is .*begins with 397923af"):
        features(["lpips_vgg"])


def test_what_features_do_not_exist(weights):
    second = TOY._replace(outputs={"dinov2": lambda out: out[0]})
    both = {"weights": weights, "networks": [TOY, second]}
    with pytest.raises(
        ValueError, match=r"no features 'inception_pool'; there are pixels, lpips_vgg, inception,.*did you mean"
    ):
        features(["inception_pool"], **both)
    with pytest.raises(ValueError, match="inception and dinov2 are not of one network"):
        features([POOL, "dinov2"], **both)
    with pytest.raises(ValueError, match="inception has no resize 'bicubic'; it has tf1, clean"):
        features([POOL], resize="bicubic", **both)
    with pytest.raises(FileNotFoundError, match=r"a toy, from https://example\.org"):
        features([POOL], weights=weights.with_name("absent"), networks=[TOY])


def test_images_by_name_in_their_order(tmp_path):
    name, batches = images("digits", split="held_out", batch_size=100)
    found = list(batches)
    assert (name, [len(batch) for batch in found]) == ("digits/held_out", [100, 100, 100, 55])
    labels = np.concatenate([labels for _, labels in examples("digits", split="held_out")[1]])
    assert labels.shape == (355,)
    with pytest.raises(FileNotFoundError, match=r"absent/: no such npz file or folder"):
        images(f"{tmp_path}/absent/")


def test_every_network_has_weights_and_names():
    names = [name for network in judging.NETWORKS for name in network.outputs]
    assert len(set(names)) == len(names)
