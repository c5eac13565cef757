"""Evaluate a run: restore it, draw samples from each of its samplers, judge them, keep the rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from .draw import Sampler, draw
from .judge import Batches
from .rows import Row, append_rows

Judge = Callable[[Batches], list[Row]]


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
    def judge(self) -> Judge: ...  # noqa: D102


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
    judge: Judge | None = None,
    facts: Row | None = None,
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
        judge: in place of the experiment's own.
        facts: more for the rows, such as the values of a config that were changed.

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
        judged = judge_sampler(
            sampler,
            params,
            experiment.judge if judge is None else judge,
            facts={**(facts or {}), "step": step, "average": average},
            n=n,
            seed=seed,
            num_classes=experiment.num_classes,
            batch_size=batch_size,
        )
        keep_rows(workdir, judged)
        rows += judged
    return rows


def judge_sampler(
    sampler: Sampler,
    params: Any,
    judge: Judge,
    *,
    facts: Row,
    n: int,
    seed: int,
    num_classes: int,
    batch_size: int,
) -> list[Row]:
    """The rows of a judge for n samples, with what they depend on: `nfe`, `step`, `seed`, `sampler`, `average`, ...

    Args:
        sampler: how to sample.
        params: of its networks.
        judge: of the samples.
        facts: `step`, `average` and what else is known of the parameters.
        n: samples.
        seed: of the samples.
        num_classes: 0 if unconditional.
        batch_size: images in one call.
    """
    known = {"nfe": sampler.nfe, "step": None, "seed": seed, "sampler": sampler.name, **facts}
    batches = draw(sampler, params, n=n, seed=seed, num_classes=num_classes, batch_size=batch_size)
    return [{"metric": row["metric"], "value": row["value"], **known, **row} for row in judge(batches)]


def keep_rows(workdir: Path, rows: Sequence[Row]) -> None:
    """Append rows to `workdir/metrics.jsonl`; of several hosts the first one does."""
    if jax.process_index() == 0:
        append_rows(workdir / "metrics.jsonl", rows)
