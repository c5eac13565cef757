import numpy as np
import pytest

from eval.features import Features, pixels
from eval.frechet import frechet_distance
from eval.judge import judge
from eval.names import LOGITS
from eval.real import make_reference, measure_stream
from eval.scores import Score, diversity_score, images, inception_scores
from eval.sets import compare_sets


@pytest.fixture(scope="module")
def reference(toy):
    return make_reference("toy/train", pixels, toy.image)


@pytest.fixture(scope="module")
def samples(toy):
    order = np.random.RandomState(5).permutation(len(toy.image))[:100]
    noise = np.random.RandomState(6).randint(0, 6, (100, 3, 3, 1)).astype(np.uint8)
    return toy.image[order] + noise, toy.label[order]


def test_rows_say_what_they_are(reference, samples, classifier):
    rows = judge([samples], references=[reference], classifier=classifier)
    by_metric = {row["metric"]: row for row in rows}
    assert list(by_metric) == [
        *("fd_pixels_100", "kid_pixels_100", "precision_pixels_100", "recall_pixels_100"),
        *("label_agreement_100", "constant_images_100"),
    ]
    facts = {"n": 100, "feature": "pixels", "resize": "none", "reference": "toy/train", "reference_n": 200}
    features = pixels.extract(samples[0])
    moments = features.mean(axis=0, dtype=np.float64), np.cov(features.astype(np.float64), rowvar=False)
    fd = frechet_distance(*moments, reference.mean, reference.covariance)
    assert by_metric["fd_pixels_100"]["value"] == pytest.approx(fd, rel=1e-10)
    values = {"fd": by_metric["fd_pixels_100"]["value"], **compare_sets(features, reference.real)}
    for measure, value in values.items():
        assert by_metric[f"{measure}_pixels_100"] == {
            "metric": f"{measure}_pixels_100",
            "value": value,
            **facts,
            "reference_sha256": reference.sha256,
            **({} if measure == "fd" else {"real_n": 200}),
            "real_floor": reference.floor[measure],
        }
    assert by_metric["label_agreement_100"] == {
        "metric": "label_agreement_100",
        "value": 1.0,
        "n": 100,
        "classifier": classifier.name,
        "held_out_accuracy": 1.0,
        "held_out_n": 60,
    }


@pytest.mark.parametrize("batch_size", [7, 33])
def test_does_not_depend_on_the_batches(reference, samples, classifier, batch_size):
    images, labels = samples
    batches = [(images[i : i + batch_size], labels[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    whole = judge([samples], references=[reference], classifier=classifier)
    cut = judge(iter(batches), references=[reference], classifier=classifier)
    for a, b in zip(cut, whole, strict=True):
        assert a["metric"] == b["metric"]
        np.testing.assert_allclose(a["value"], b["value"], rtol=1e-10)


def test_every_reference_gives_rows(reference, samples):
    halves = Features("halves", lambda images: pixels.extract(images)[:, :4])
    second = make_reference("toy/train", halves, samples[0])._replace(real=None)
    rows = judge([(samples[0], None)], references=[reference, second])
    assert [row["metric"] for row in rows][4:] == ["fd_halves_100", "constant_images_100"]
    assert abs(rows[4]["value"]) < 1e-10


def test_constant_images_are_counted(reference, samples):
    images = samples[0].copy()
    images[[2, 50, 99]] = 17
    rows = judge([(images[:40], None), (images[40:], None)], references=[reference])
    assert rows[-1] == {"metric": "constant_images_100", "value": 3, "n": 100}


def test_few_samples_are_refused_or_marked(reference, samples):
    few = samples[0][:9]
    with pytest.raises(ValueError, match=r"9 samples for 9 dimensions of pixels.*draw more than 9"):
        judge([(few, None)], references=[reference])
    rows = judge([(few, None)], references=[reference], allow_few=True)
    assert "biased upward" in rows[0]["warning"]
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        judge([(few[:1], None)], references=[reference], allow_few=True)
    with pytest.raises(ValueError, match="no samples"):
        judge([], references=[reference])


def test_bad_batches(reference, samples, classifier):
    with pytest.raises(ValueError, match="float32"):
        judge([(samples[0].astype(np.float32), None)], references=[reference])
    with pytest.raises(ValueError, match=r"samples have shape \(3, 2, 1\), the real images of toy/train \(3, 3, 1\)"):
        judge([(samples[0][:, :, :2], None)], references=[reference])
    with pytest.raises(ValueError, match="needs the labels"):
        judge([(samples[0], None)], references=[reference], classifier=classifier)


def test_scores_are_measured_of_all_samples_in_their_order(reference, samples):
    logits = Features(LOGITS, lambda x: pixels.extract(x)[:, :4], "tf1", weights="0" * 64)
    seen: list[tuple] = []

    def see(x, labels):
        seen.append((x, labels))
        return 1.0

    kept = Score("seen", images, see)
    batches = [(samples[0][:30], samples[1][:30]), (samples[0][30:], samples[1][30:])]
    rows = judge(batches, references=[], scores=[*inception_scores(logits), diversity_score(pixels), kept])
    assert [row["metric"] for row in rows] == [
        *("inception_score_adm_tf1_100", "inception_score_splits_tf1_100", "inception_score_torch_fidelity_tf1_100"),
        *("diversity_pixels_100", "seen_100", "constant_images_100"),
    ]
    assert all(row["value"] > least for row, least in zip(rows[:4], (1, 1, 1, 0), strict=True))
    assert rows[0].items() >= {"feature": LOGITS, "resize": "tf1", "weights_sha256": "0" * 64, "n": 100}.items()
    np.testing.assert_array_equal(seen[0][0], samples[0])
    np.testing.assert_array_equal(seen[0][1], samples[1])


def test_a_resize_is_part_of_the_name_and_provenance_of_the_row(samples):
    inception = Features("inception", pixels.extract, "clean")
    foreign = make_reference("cifar10", inception, samples[0])._replace(real=None, provenance="edm.npz: mu and sigma")
    row = judge([samples], references=[foreign])[0]
    assert row["metric"] == "fid_clean_100"
    assert row["reference_provenance"] == "edm.npz: mu and sigma"


def test_some_real_features_can_be_kept_of_many(toy, samples):
    reference = measure_stream("toy/train", pixels, [toy.image[:120], toy.image[120:]], keep=50).reference
    assert reference.real is not None
    rows = {row["metric"]: row for row in judge([samples], references=[reference])}
    assert rows["recall_pixels_100"].items() >= {"reference_n": 200, "real_n": 50}.items()
    assert "real_n" not in rows["fd_pixels_100"]
    assert rows["recall_pixels_100"]["value"] == compare_sets(pixels.extract(samples[0]), reference.real)["recall"]
    whole = judge([samples], references=[make_reference("toy/train", pixels, toy.image)])
    assert rows["fd_pixels_100"]["value"] == pytest.approx(whole[0]["value"], rel=1e-10)


def test_features_of_another_dimension_than_the_reference(reference, samples):
    other = reference._replace(features=Features("halves", lambda images: pixels.extract(images)[:, :4]))
    with pytest.raises(ValueError, match="features have dimension 4, expected 9"):
        judge([samples], references=[other])
