"""How far samples of one class are from each other: the variety that a condition leaves."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Integer, Num

PairDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""distance(a[P, ...], b[P, ...]) -> [P]"""


def within_class_diversity(
    x: Num[np.ndarray, "n *shape"],
    labels: Integer[np.ndarray, " n"] | None,
    *,
    distance: PairDistance,
    pairs: int = 100,
    seed: int = 2020,
) -> float:
    """Mean distance of two different samples of one class, averaged over classes.

    With LPIPS of images as distance it is what is called intra-LPIPS; with `euclidean` it is of features. Of a class
    with more pairs than asked for, so many are drawn without replacement.

    Args:
        x: images or features.
        labels: their classes; None takes all as one.
        distance: of a batch of pairs.
        pairs: at most so many of each class.
        seed: of the drawn pairs.

    Raises:
        ValueError: a class has a single sample; names it.
    """
    labels = np.zeros(len(x), np.int32) if labels is None else labels
    random = np.random.RandomState(seed)
    means = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(f"class {label} has {len(members)} sample, a distance needs two")
        first, second = _pairs(len(members), pairs, random)
        means.append(np.mean(distance(x[members[first]], x[members[second]])))
    return float(np.mean(means))


def euclidean(a: Float[np.ndarray, "pairs dim"], b: Float[np.ndarray, "pairs dim"]) -> Float[np.ndarray, " pairs"]:
    """Distance of feature vectors, in float64."""
    return np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1)


def _pairs(n: int, pairs: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Pairs i < j of n, each at most once."""
    first, second = np.triu_indices(n, 1)
    chosen = random.choice(len(first), pairs, replace=False) if len(first) > pairs else np.arange(len(first))
    return first[chosen], second[chosen]
