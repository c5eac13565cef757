"""Distances with parameters of their own, as configs take them. Not a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from losses import l2, lpips
from losses.types import Distance
from models import vgg
from models.pretrained import lpips as lpips_weights


class Metric(NamedTuple):
    """A distance with frozen parameters of its own: how they are read, and what they make."""

    params: Callable[[], Any]
    distance: Callable[[Any], Distance]


def lpips_or_l2(file: str, *, pool: Callable[[jax.Array], jax.Array] = vgg.max_pool) -> Metric:
    """LPIPS by the weights in a file or a folder, on images enlarged to 224 pixels; squared l2 if none is given.

    That is what `models.pretrained.lpips.read_lpips` reads, and its errors come when the parameters are read.
    """
    if not file:
        return Metric(lambda: None, lambda params: l2)

    def distance(params: Any) -> Distance:
        trunk, weights = params
        features = vgg.lpips_features(trunk, pool)
        return lambda a, b: lpips(vgg.enlarge(a), vgg.enlarge(b), features=features, weights=weights)

    return Metric(lambda: lpips_weights.read_lpips(file), distance)
