"""Evaluate a run: restore it, draw samples from each of its samplers, judge them, keep the rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .draw import Sampler, draw
from .judge import Batches
from .rows import Row, append_rows


@runtime_checkable
class Experiment(Protocol):
    """What evaluation needs to know of an experiment.

    Attributes:
        samplers: the ways to sample it.
        num_classes: number of classes; 0 if it is unconditional.
        restore: `restore(workdir, average, step) -> (params, step)`; the newest checkpoint if step is None.
        judged_average: the average to restore if none is asked for.
        judged_samples: samples of each sampler if no number is asked for.
        judge: `judge(batches of uint8 images and labels) -> rows`, with its references bound.
    """

    @property
    def samplers(self) -> Sequence[Sampler]: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    @property
    def judged_average(self) -> str: ...  # noqa: D102
    @property
    def judged_samples(self) -> int: ...  # noqa: D102
    @property
    def restore(self) -> Callable[[Path, str, int | None], tuple[Any, int]]: ...  # noqa: D102
    @property
    def judge(self) -> Callable[[Batches], list[Row]]: ...  # noqa: D102


def evaluate(
    experiment: Experiment,
    workdir: str | Path,
    *,
    n: int,
    seed: int,
    average: str,
    batch_size: int,
    samplers: Sequence[Sampler] | None = None,
    step: int | None = None,
) -> list[Row]:
    """Judge n samples of every sampler and append the rows to `workdir/metrics.jsonl`.

    Rows are written when a sampler is done, so an interrupted evaluation keeps those before it.

    Args:
        experiment: what to evaluate.
        workdir: where its checkpoints are.
        n: samples of each sampler.
        seed: of the samples; sample i depends on (seed, i) alone.
        average: which weights to restore.
        batch_size: images in one call; the results do not depend on it.
        samplers: which samplers; all of the experiment's if None.
        step: which checkpoint; the newest if None.

    Returns:
        The judge's rows with `nfe`, `step`, `seed`, `sampler` and `average`.

    Raises:
        ValueError: there is no sampler, or n, batch_size or the samples are refused.
    """
    samplers = experiment.samplers if samplers is None else samplers
    if not samplers:
        raise ValueError("there is no sampler to evaluate")
    workdir = Path(workdir)
    params, step = experiment.restore(workdir, average, step)
    rows: list[Row] = []
    for sampler in samplers:
        own = {
            "nfe": sampler.nfe,
            "step": step,
            "seed": seed,
            "sampler": sampler.name,
            "average": average,
        }
        batches = draw(sampler, params, n=n, seed=seed, num_classes=experiment.num_classes, batch_size=batch_size)
        judged = [{"metric": row["metric"], "value": row["value"], **own, **row} for row in experiment.judge(batches)]
        append_rows(workdir / "metrics.jsonl", judged)
        rows += judged
    return rows
