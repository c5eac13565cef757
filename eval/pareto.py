"""Which settings no other one beats in everything, and their picture."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plots import COLORS, style
from .rows import Row

LESS_IS_BETTER = ("fd", "fid", "sfid", "kid", "cmmd")


class Point(NamedTuple):
    """A way to sample, and its value in each of the measures asked for."""

    label: str
    values: tuple[float, ...]


def front(goodness: Float[np.ndarray, "n measures"]) -> Bool[np.ndarray, " n"]:
    """The points that no other point equals or exceeds in all measures and exceeds in one; more is better."""
    at_least = np.all(goodness[None] >= goodness[:, None], axis=2)
    more = np.any(goodness[None] > goodness[:, None], axis=2)
    return np.logical_not(np.any(at_least & more, axis=1))


def goodness(values: Float[np.ndarray, "n measures"], metrics: Sequence[str]) -> Float[np.ndarray, "n measures"]:
    """Values turned so that more is better: distances change their sign."""
    signs = [-1.0 if metric.split("_")[0] in LESS_IS_BETTER else 1.0 for metric in metrics]
    return values * np.asarray(signs)


def points(rows: Sequence[Row], metrics: Sequence[str]) -> list[Point]:
    """One point for each setting and sampler that has all of these metrics.

    Raises:
        ValueError: none has; lists the metrics that there are.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        found.setdefault((row.get("samples", ""), row["sampler"]), {})[row["metric"]] = row["value"]
    result = [
        Point(", ".join(filter(None, key)), tuple(values[metric] for metric in metrics))
        for key, values in found.items()
        if all(metric in values for metric in metrics)
    ]
    if not result:
        raise ValueError(f"no setting has all of {', '.join(metrics)}; there are {sorted({r['metric'] for r in rows})}")
    return result


def pareto_plot(found: Sequence[Point], metrics: Sequence[str]) -> Figure:
    """A panel for each two of the metrics: all settings, and the front of these two joined by a line.

    Raises:
        ValueError: fewer than two metrics.
    """
    if len(metrics) < 2:
        raise ValueError(f"a front is of two measures or more, got {', '.join(metrics) or 'none'}")
    values = np.array([point.values for point in found])
    good = goodness(values, metrics)
    pairs = list(combinations(range(len(metrics)), 2))
    figure = Figure(figsize=(4.6 * len(pairs) + 2.6, 3.8), layout="constrained")
    for panel, (i, j) in enumerate(pairs, start=1):
        axes = figure.add_subplot(1, len(pairs), panel)
        style(axes, metrics[j], metrics[i])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        for k, point in enumerate(found):
            axes.plot(values[k, i], values[k, j], "o", color=COLORS[k % len(COLORS)], label=point.label)
        best = np.flatnonzero(front(good[:, [i, j]]))
        order = best[np.argsort(values[best, i])]
        axes.plot(values[order, i], values[order, j], color="0.6", linewidth=1, zorder=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right center")
    return figure
