"""Measures of samples alone, without real images: how they enter a judge."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from . import inception_score
from .diversity import PairDistance, euclidean, within_class_diversity
from .features import Features

Measure = Callable[[np.ndarray, np.ndarray | None], float]
"""measure(features[n, ...], labels[n] or None) -> value"""


class Score(NamedTuple):
    """A measure of samples alone.

    Attributes:
        name: first part of the metric's name; says the features too.
        features: what is measured of each image, all kept in memory.
        measure: (features, labels) -> value.
    """

    name: str
    features: Features
    measure: Measure


def inception_scores(logits: Features) -> tuple[Score, ...]:
    """Inception Scores in the conventions of ADM, of StyleGAN's code (and ECT), and of torch-fidelity.

    Args:
        logits: of the last layer without its bias.
    """
    conventions = {
        "inception_score_adm": inception_score.adm,
        "inception_score_splits": inception_score.ten_splits,
        "inception_score_torch_fidelity": inception_score.torch_fidelity,
    }

    def of(convention: Callable[[np.ndarray], inception_score.InceptionScore]) -> Measure:
        return lambda features, labels: convention(features).mean

    return tuple(Score(name, logits, of(convention)) for name, convention in conventions.items())


def diversity_score(features: Features, *, distance: PairDistance = euclidean, pairs: int = 100) -> Score:
    """Distance of samples of one class, `diversity_<feature>`; over images if `features.extract` returns them."""
    measure = partial(within_class_diversity, distance=distance, pairs=pairs)
    return Score(f"diversity_{features.name}", features, measure)


images = Features("images", lambda images: images)
"""The images themselves, for distances that are taken between images."""
