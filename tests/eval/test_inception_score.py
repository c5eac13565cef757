from itertools import pairwise

import numpy as np
import pytest

from eval import inception_score
from eval.inception_score import log_softmax, over_splits

CONVENTIONS = (inception_score.adm, inception_score.ten_splits, inception_score.torch_fidelity)


def sure(labels, classes=7, margin=800.0):
    """Logits that name a class beyond doubt: all other probabilities underflow."""
    return margin * np.eye(classes, dtype=np.float32)[labels]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sure_and_even_answers_score_the_number_of_classes(convention):
    labels = np.arange(70_000) % 5
    score = convention(sure(labels, classes=5))
    # Chunks and tenths in order hold each class alike; of shuffled ones log 5 falls by about 4 / (2 7000).
    assert score.mean == pytest.approx(5.0, rel=1e-12 if convention is not inception_score.torch_fidelity else 1e-3)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    "logits", [sure(np.zeros(50, int)), np.zeros((50, 7)), np.tile([3.0, -1, 0, 2, 0, 0, 1], (50, 1))]
)
def test_one_answer_for_all_scores_one(convention, logits):
    assert convention(logits) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_an_unsure_binary_classifier_has_a_closed_form():
    # Half the samples say (p, 1 - p), half the reverse: p(y) is even, and the score exp(log 2 - H(p)).
    p = 0.8
    logits = np.log(np.array([[p, 1 - p], [1 - p, p]] * 30))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert over_splits(logits, [logits]).mean == pytest.approx(np.exp(np.log(2) - entropy), rel=1e-12)


def test_probabilities_that_underflow_do_not_give_nan():
    p = np.exp(log_softmax(sure(np.array([0, 1, 2]))))
    assert (p == 0).any()
    assert np.isfinite(inception_score.adm(sure(np.arange(3))).mean)


def test_conventions_are_what_their_code_does():
    logits = np.random.RandomState(3).normal(0, 2, (5100, 4)).astype(np.float32)

    def score(x):
        p = np.exp(x.astype(np.float64))
        p /= p.sum(axis=1, keepdims=True)
        return np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(axis=0))), axis=1)))

    edges = [len(logits) * i // 10 for i in range(11)]
    shuffled = logits[np.random.RandomState(2020).permutation(len(logits))]
    expected = (
        [score(logits[:5000]), score(logits[5000:])],
        [score(logits[a:b]) for a, b in pairwise(edges)],
        [score(shuffled[a:b]) for a, b in pairwise(edges)],
    )
    for convention, values in zip(CONVENTIONS, expected, strict=True):
        assert convention(logits) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)
    # Order matters to the second and not to the third.
    assert inception_score.ten_splits(logits) != inception_score.torch_fidelity(logits)


def test_refusals():
    with pytest.raises(ValueError, match="9 samples cannot fill"):
        inception_score.ten_splits(np.zeros((9, 4)))
    with pytest.raises(ValueError, match="0 samples cannot fill"):
        inception_score.adm(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="logits of 1 of 20 samples"):
        inception_score.adm(np.where(np.arange(20)[:, None] == 3, np.nan, np.zeros((20, 4))))
