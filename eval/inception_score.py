"""Inception Score: how sure a classifier is of each image, and how varied its answers are; as three code bases take it.

All take logits without the bias of the last layer, over the 1008 classes of the 2015 network, and differ in what they
average over. Probabilities are never formed where their logarithm is needed, so none that underflows gives NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

SPLITS = 10
ADM_CHUNK = 5000
TORCH_FIDELITY_SEED = 2020


class InceptionScore(NamedTuple):
    """Mean and population standard deviation over splits."""

    mean: float
    standard_deviation: float


def adm(logits: Float[np.ndarray, "n classes"]) -> InceptionScore:
    """As ADM's evaluator: consecutive chunks of 5,000 samples in their order; the last one may be shorter."""
    return over_splits(logits, [logits[i : i + ADM_CHUNK] for i in range(0, len(logits), ADM_CHUNK)])


def ten_splits(logits: Float[np.ndarray, "n classes"]) -> InceptionScore:
    """As StyleGAN's code and ECT: ten consecutive tenths in the order of the samples."""
    return over_splits(logits, _tenths(logits))


def torch_fidelity(logits: Float[np.ndarray, "n classes"]) -> InceptionScore:
    """As torch-fidelity: the samples shuffled by `RandomState(2020)`, then ten tenths."""
    order = np.random.RandomState(TORCH_FIDELITY_SEED).permutation(len(logits))
    return over_splits(logits, _tenths(logits[order]))


def over_splits(
    logits: Float[np.ndarray, "n classes"], splits: Sequence[Float[np.ndarray, "_ classes"]]
) -> InceptionScore:
    """exp(mean KL(p(y|x) || p(y))), each split with its own p(y), in float64.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.

    Raises:
        ValueError: a split is empty, or logits are NaN or infinite.
    """
    if not len(splits) or min(len(split) for split in splits) == 0:
        raise ValueError(f"{len(logits)} samples cannot fill the splits of an Inception Score: at least {SPLITS}")
    if not np.isfinite(logits).all():
        count = int((~np.isfinite(logits).all(axis=1)).sum())
        raise ValueError(f"the logits of {count} of {len(logits)} samples are NaN or infinite")
    scores = [_score(split) for split in splits]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _tenths(logits: np.ndarray) -> list[np.ndarray]:
    n = len(logits)
    return [logits[i * n // SPLITS : (i + 1) * n // SPLITS] for i in range(SPLITS)]


def _score(logits: np.ndarray) -> float:
    log_p = log_softmax(logits)
    mean = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return float(np.exp(np.mean(np.sum(np.exp(log_p) * (log_p - mean), axis=1))))


def log_softmax(logits: Float[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    """Logarithms of the probabilities, in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
