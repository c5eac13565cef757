"""Runs are judged as their configs say: in features, against what is given, and on a schedule that training ignores."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
import eval as evaluation
from configs import judged, judging
from configs.judged import evaluations
from tests import tiny
from tests.configs import made_up
from tests.configs.made_up import module, small
from tests.configs.toy import TOY
from train import Sampler, fit

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


# ---- By the values of a config ---------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Those of a toy network, which is the only one that there is."""
    monkeypatch.setattr(judging, "features", partial(judging.features, networks=[TOY]))
    monkeypatch.setattr(judging, "check_features", partial(judging.check_features, networks=[TOY]))
    pixels = np.prod(made_up.SHAPE) // 4
    np.save(tmp_path / "toy.npy", np.random.default_rng(0).standard_normal((pixels, 3)).astype(np.float32))
    return tmp_path / "toy.npy"


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_a_run_on_cifar10_has_a_fid_while_it_trains(weights, tmp_path):
    changes = {"judged_features": ("inception", "inception_logits"), "feature_weights": str(weights), "steps": 4}
    config = small("cifar10_edm", **changes, judged_every=2, judged_often_samples=40, heun_steps=2)
    fit(module("cifar10_edm").build(config), tmp_path / "run")
    rows = evaluation.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["metric"] == "fid_tf1_40"] == [2, 4]
    names = {row["metric"] for row in rows}
    assert {"inception_score_adm_tf1_40", "kid_inception_tf1_40", "precision_inception_tf1_40"} < names
    row = next(row for row in rows if row["metric"] == "fid_tf1_40")
    assert (row["average"], row["reference"]) == ("ema", "made_up")
    assert row["weights_sha256"] == evaluation.file_sha256(weights)


@pytest.mark.usefixtures("small_data")
def test_real_images_are_at_no_distance_from_themselves(weights, tmp_path):
    """By moments of the run's own images, of a file of images, and of a file of moments."""
    images = made_up.images()
    np.savez(tmp_path / "images.npz", arr_0=images.image)
    features = judging.features(("inception",), weights=weights)[0][0]
    measured = evaluation.make_reference("made_up", features, images.image)
    evaluation.write_reference(tmp_path / "moments.npz", measured, preprocessing="none")
    for against in ("", "images.npz", "moments.npz"):
        told = {"judged_features": ("inception",), "feature_weights": str(weights)}
        told |= {"judged_against": str(tmp_path / against) if against else ""}
        experiment = module("imagenet64_edm").build(small("imagenet64_edm", **told))
        rows = experiment.judge([(images.image, images.label)])
        assert rows[0]["metric"] == "fid_tf1_64"
        assert abs(rows[0]["value"]) < 1e-3


@pytest.mark.usefixtures("small_data")
def test_what_cannot_be_judged_is_told_before_the_first_step(weights, tmp_path):
    def build(**changes):
        return module("imagenet64_edm").build(small("imagenet64_edm", **changes))

    with pytest.raises(ValueError, match=r"no features 'inceptoin'; .*; did you mean inception\?"):
        build(judged_features=("inceptoin",))
    with pytest.raises(ValueError, match=r"judged_every=10 needs judged_features"):
        build(judged_every=10)
    with pytest.raises(FileNotFoundError, match=r"judged_against=.*absent\.npz: no such file of moments"):
        build(judged_features=("inception",), judged_against=str(tmp_path / "absent.npz"))
    absent = str(tmp_path / "absent.pth")
    experiment = build(judged_features=("inception",), feature_weights=absent, judged_every=10)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        fit(experiment, tmp_path / "run")
    told = {"judged_features": ("inception",), "feature_weights": str(weights), "judged_every": 10}
    few = build(**told, judged_often_samples=3)
    with pytest.raises(ValueError, match=r"judged_often_samples=3 are too few for a distance in 3 dimensions of incep"):
        fit(few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pixels_of_large_images_are_refused_with_what_they_would_take():
    source = data.ArraySource("large", np.zeros((2, 64, 64, 3), np.uint8), None, 0)
    with pytest.raises(ValueError, match=r"are 12,288 numbers, whose covariance takes 1 GiB; judge them by features"):
        judged.judges.pixel_judge(source)


def test_pixels_are_compared_with_images_from_all_of_a_source():
    image = np.repeat(np.arange(10, dtype=np.uint8), 20)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = data.ArraySource("sorted", image, None, 0)
    values = {}
    for limit, name in ((40, "40 of sorted"), (200, "sorted[:200]")):
        rows = judged.judges.pixel_judge(source, limit=limit)([(image, None)])
        (fd,) = (row for row in rows if row["metric"] == "fd_pixels_200")
        assert (fd["reference"], fd["reference_n"]) == (name, limit)
        values[limit] = fd["value"]
    first = evaluation.make_reference("first", evaluation.pixels, image[:40])
    of_first = evaluation.judge([(image, None)], references=[first])[0]["value"]
    assert values[200] < values[40] < 0.2 * of_first


def test_own_images_are_judged_in_pixels_where_they_are_small(tmp_path):
    def experiment(side, **changes):
        image = np.random.default_rng(0).integers(0, 256, (200, side, side, 3), np.uint8)
        np.savez(tmp_path / "images.npz", image=image)
        return module("own_images").build(small("own_images", path=str(tmp_path / "images.npz"), **changes)), image

    found, image = experiment(8)
    assert "fd_pixels_200" in {row["metric"] for row in found.judge([(image[:100], None), (image[100:], None)])}
    found, image = experiment(64)
    assert {row["metric"] for row in found.judge([(image, None)])} == {"constant_images_200"}
    found, _ = experiment(64, judged_every=5)
    with pytest.raises(ValueError, match=r"images of \(64, 64, 3\) are 12,288 numbers"):
        fit(found, tmp_path / "run")
