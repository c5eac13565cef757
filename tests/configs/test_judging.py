"""Features by name with a toy network, images by name, evaluation while training."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eval as evaluation
import losses
from configs import judging
from configs.feature_networks import Network, Prepare
from configs.judging import evaluations, examples, features, images
from eval.names import LOGITS, POOL, SPATIAL
from models import vgg
from tests import tiny
from tests.drawn import linear_tensors, lpips_vgg, trunk_tensors
from train import Sampler, fit


def halved(x):
    return x.astype(jnp.float32)[:, ::2, ::2] / 255


TOY = Network(
    outputs={POOL: lambda out: out[0], SPATIAL: lambda out: out[0][:, :2], LOGITS: lambda out: out[1]},
    resizes={
        "tf1": Prepare(halved),
        "clean": Prepare(lambda x: x / 255, host=lambda x: x[:, 1::2, 1::2].astype(np.float32)),
    },
    weights=evaluation.WeightFile("toy.npy", "https://example.org/toy.npy", "", "a toy"),
    load=lambda path: (lambda params, x: (x.reshape(len(x), -1) @ params, x.reshape(len(x), -1)), np.load(path)),
)


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
    with pytest.raises(ValueError, match=r"needs --weights FILE\.npz with VGG16's trunk"):
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


# ---- While training --------------------------------------------------------------------------------------------------

DIM = tiny.DIM


def sample(params, keys, labels):
    noise = jax.vmap(lambda key: jax.random.normal(key, (DIM,)))(keys)
    return jnp.tanh(noise @ params["weight"] + params["bias"]).reshape(len(keys), 4, 4, 1)


def judge(batches):
    found = np.concatenate([x for x, _ in batches])
    return [{"metric": f"mean_{len(found)}", "value": float(found.mean()), "n": len(found)}]


def run(workdir, periodic):
    """A finished run, and how many batches were read from how many iterators."""
    read: list[int] = []
    started: list[int] = []
    whole = tiny.experiment()

    def batches(start, rows=None):
        started.append(start)
        for batch in whole.batches(start, rows):
            read.append(1)
            yield batch

    done = fit(whole._replace(batches=batches, periodic=periodic), workdir)
    return done.state, len(read), started


def test_averages_are_judged_on_a_schedule_and_the_training_does_not_notice(tmp_path):
    samplers = (Sampler("one", 1, sample), Sampler("two", 2, sample))
    schedule = evaluations(samplers, judge, every=8, averages=("params", "long"), n=10, num_classes=0)
    often = evaluations(samplers[:1], judge, every=5, averages=("short",), n=6, num_classes=0, seed=3)
    state, read, started = run(tmp_path / "judged", (schedule, often))
    plain, plain_read, _ = run(tmp_path / "plain", ())
    assert (read, started) == (plain_read, [0])  # one iterator, no batch skipped or read twice
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)

    rows = evaluation.read_rows(tmp_path / "judged" / "metrics.jsonl")
    found = [(row["step"], row["average"], row["sampler"]) for row in rows if row["metric"] == "mean_10"]
    assert found == [
        (step, average, sampler) for step in (8, 16, 20) for average in ("params", "long") for sampler in ("one", "two")
    ]
    assert [row["step"] for row in rows if row["metric"] == "mean_6"] == [5, 10, 15, 20]
    assert {row["seed"] for row in rows if row["metric"] == "mean_6"} == {3}
    log = [json.loads(line) for line in (tmp_path / "judged" / "train.jsonl").read_text().splitlines()]
    logged = {key: row["step"] for row in log for key in row if key.startswith("mean_")}
    assert logged == {
        **{f"mean_10/{average}/nfe{nfe}": 20 for average in ("params", "long") for nfe in (1, 2)},
        "mean_6/short": 20,
    }
    last = {row["average"]: row["value"] for row in rows if row["step"] == 20 and row["metric"] == "mean_10"}
    assert last["params"] != last["long"]


def test_an_average_that_is_not_there(tmp_path):
    schedule = evaluations((Sampler("one", 1, sample),), judge, every=5, averages=("emma",), n=4, num_classes=0)
    with pytest.raises(ValueError, match="reads the average 'emma'; there are: params, constant"):
        run(tmp_path, (schedule,))
