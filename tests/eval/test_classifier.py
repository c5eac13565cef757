import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from eval.classifier import (
    FEATURE_DIM,
    Network,
    label_agreement,
    load_classifier,
    log_probabilities,
    save_classifier,
    train_classifier,
)


def test_learns_an_easy_task(classifier, toy):
    assert classifier.held_out_accuracy == 1.0
    assert (classifier.n_train, classifier.n_held_out, classifier.image_shape) == (200, 60, (3, 3, 1))
    assert label_agreement(classifier, *toy) == 1.0
    assert label_agreement(classifier, toy.image, 1 - toy.label) == 0.0


def test_outputs(classifier, toy):
    logits, features = classifier.logits(toy.image[:7]), classifier.features(toy.image[:7])
    assert (logits.shape, logits.dtype) == ((7, 2), np.float32)
    assert (features.shape, features.dtype) == ((7, FEATURE_DIM), np.float32)
    last = classifier.params["params"]["Dense_1"]
    np.testing.assert_allclose(features @ last["kernel"] + last["bias"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 5, 1), (28, 28, 1), (32, 32, 3)])
def test_takes_any_shape(shape):
    outputs, params = jax.eval_shape(
        lambda key, images: Network(3).init_with_output(key, images),
        jax.random.key(0),
        jax.ShapeDtypeStruct((4, *shape), np.uint8),
    )
    assert [output.shape for output in outputs] == [(4, 3), (4, FEATURE_DIM)]
    flattened = params["params"]["Dense_0"]["kernel"].shape[0]
    assert flattened <= 4 * 4 * 128


def test_the_seed_decides(classifier, train_toy):
    again, other = train_toy(0), train_toy(1)
    assert again.name == classifier.name != other.name
    jax.tree.map(np.testing.assert_array_equal, again.params, classifier.params)


def test_save_and_load(classifier, toy, tmp_path):
    save_classifier(tmp_path, classifier)
    loaded = load_classifier(tmp_path)
    for fact in ("name", "held_out_accuracy", "n_train", "n_held_out", "image_shape", "num_classes"):
        assert getattr(loaded, fact) == getattr(classifier, fact)
    np.testing.assert_array_equal(loaded.logits(toy.image), classifier.logits(toy.image))


def test_weights_that_were_not_scored_are_refused(classifier, tmp_path):
    save_classifier(tmp_path, classifier)
    facts = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(facts | {"name": "classifier-00000000"}))
    with pytest.raises(ValueError, match="expected classifier-00000000"):
        load_classifier(tmp_path)


def test_refusals(classifier, toy):
    with pytest.raises(ValueError, match=r"label spans \[0, 1\], expected \[0, 0\]"):
        train_classifier(toy.image, toy.label, toy.image, toy.label, num_classes=1)
    with pytest.raises(ValueError, match="held_out_label is empty"):
        train_classifier(toy.image, toy.label, toy.image[:0], toy.label[:0], num_classes=2)
    with pytest.raises(ValueError, match=r"labels spans \[-1, -1\]"):
        label_agreement(classifier, toy.image[:3], np.full(3, -1))
    with pytest.raises(ValueError, match=r"images are \(3, 2, 1\), the classifier takes \(3, 3, 1\)"):
        label_agreement(classifier, toy.image[:, :, :2], toy.label)


@pytest.mark.slow
def test_digits():
    digits = load_digits()
    image = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.RandomState(0).permutation(len(image))
    train, held_out = order[:1437], order[1437:]
    trained = train_classifier(
        image[train], digits.target[train], image[held_out], digits.target[held_out], num_classes=10
    )
    assert trained.held_out_accuracy >= 0.985


def test_log_probabilities_are_those_of_its_logits_and_can_be_differentiated(classifier, toy):
    x = jnp.asarray(toy.image[:5]) / 127.5 - 1.0
    run = lambda x: log_probabilities(classifier.params, x, num_classes=2)
    expected = jax.nn.log_softmax(classifier.logits(toy.image[:5]))
    np.testing.assert_allclose(run(x), expected, rtol=1e-3, atol=1e-4)
    gradient = jax.grad(lambda x: run(x)[:, 0].sum())(x)
    assert gradient.shape == x.shape
    assert (run(x + 1e-2 * gradient)[:, 0] > run(x)[:, 0]).all()
