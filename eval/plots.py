"""Curves of a run: the loss and its parts over training steps, a metric over network evaluations."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .rows import Row

# Okabe and Ito's colours, told apart by all common kinds of colour vision; their yellow is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Curve = Callable[[Axes, np.ndarray, np.ndarray, str, str], None]
QUARTILES = ("loss_t1", "loss_t2", "loss_t3", "loss_t4")


def loss_curves(rows: Sequence[Row]) -> Figure:
    """Plot the rows of `train.jsonl`: loss, loss by noise level, gradient norm and learning rate.

    Args:
        rows: each with `step` and any of `loss`, `loss_t1` (least noise) to `loss_t4` (most noise),
            `gradient_norm`, `learning_rate`; a panel without values is left out.

    Returns:
        A figure that belongs to no global state; save it with `.savefig("loss.png")`.

    Raises:
        ValueError: no row has any of these.
    """
    names = ("quartile 1, least noise", "quartile 2", "quartile 3", "quartile 4, most noise")
    panels: list[tuple[str, Curve, dict[str, str]]] = [
        ("loss", _noisy, {"loss": "loss"}),
        ("loss by noise level", _noisy, dict(zip(QUARTILES, names, strict=True))),
        ("gradient norm", _noisy, {"gradient_norm": "gradient norm"}),
        ("learning rate", _exact, {"learning_rate": "learning rate"}),
    ]
    panels = [panel for panel in panels if any(key in row for row in rows for key in panel[2])]
    if not panels:
        raise ValueError("no row has a loss, a gradient norm or a learning rate")
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.4 * lines), layout="constrained")
    for i, (title, curve, keys) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, i)
        style(axes, title, "training step")
        drawn: list[int | float] = []
        for color, (key, label) in zip(COLORS, keys.items(), strict=False):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                steps, values = zip(*points, strict=True)
                curve(axes, np.asarray(steps), np.asarray(values), color, label)
                drawn += values
        _log_if_wide(axes, drawn)
        if len(keys) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure


def metric_against_nfe(rows: Sequence[Row], metric: str) -> Figure:
    """Plot one metric over the number of network evaluations, a line for each sampler name.

    The dashed line is what real data score, where the rows say it.

    Args:
        rows: rows of `metrics.jsonl`.
        metric: full name, as "fd_pixels_2k".

    Raises:
        ValueError: no row has that metric; lists those there are.
    """
    chosen = [row for row in rows if row["metric"] == metric and row.get("nfe")]  # 0 has no place on the axis
    if not chosen:
        there = sorted({row["metric"] for row in rows if row.get("nfe")})
        raise ValueError(f"no row with nfe has metric {metric!r}; there are {there}")
    names = list(dict.fromkeys(row["sampler"] for row in chosen))
    crowded = len(names) > 5
    height = max(4.8, 0.19 * (len(names) + 3))  # of the legend beside it
    figure = Figure(figsize=(8.5, height) if crowded else (5.0, 3.6), layout="constrained")
    axes = figure.subplots()
    style(axes, metric, "network evaluations")
    for i, name in enumerate(names):
        points = sorted({row["nfe"]: row["value"] for row in chosen if row["sampler"] == name}.items())
        nfe, values = zip(*points, strict=True)
        # From the eighth line on, colours come back with other markers.
        marker = MARKERS[(i + i // 7) % 7]
        axes.plot(nfe, values, color=COLORS[i % 7], marker=marker, label=name, clip_on=False)
    drawn = [row["value"] for row in chosen]
    for key, label in (("real_floor", "real against real"), ("held_out_accuracy", "real held-out images")):
        levels = {row[key] for row in chosen if key in row}
        for level in levels:
            axes.axhline(level, color="0.45", linestyle="--", linewidth=1, label=label)
            drawn.append(level)
    axes.set_xscale("log", base=2)
    ticks = sorted({row["nfe"] for row in chosen})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    _log_if_wide(axes, drawn)
    if crowded:
        figure.legend(frameon=False, fontsize=8, loc="outside right center")
    else:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _exact(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    axes.plot(steps, values, color=color, linewidth=1.5, label=label)


def _noisy(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    """Many points are shown pale, with their running mean on top."""
    window = len(values) // 20
    if window < 2:
        _exact(axes, steps, values, color, label)
        return
    axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.35)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    axes.plot(steps[window // 2 :][: len(mean)], mean, color=color, linewidth=1.5, label=label)


def style(axes: Axes, title: str, x_label: str) -> None:
    """What all panels look like."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _log_if_wide(axes: Axes, values: Sequence[int | float]) -> None:
    """A logarithmic axis for positive values that span more than a factor of ten."""
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 10 * min(finite):
        axes.set_yscale("log")
        # Few decades have few whole powers of ten, and would be left with one or two labels.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(finite) < 1e3 * min(finite) else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
