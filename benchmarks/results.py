"""One table of all methods: trains the runs of results_rows.py that are missing and rebuilds docs/results.md.

    python -m benchmarks.results                                      all runs, one after another
    python -m benchmarks.results --jobs 2 --only digits_ect digits_ct   two at a time, these and their teachers alone
    python -m benchmarks.results --page_only                          train nothing; rebuild the page of what is there

Runs lie in runs/results, each a workdir of main.py with its output in NAME.log beside it. Runs that are done are
skipped, interrupted ones go on, so the same command can be given again at any time. Their numbers are kept in
docs/results; the page shows those of runs whose folders are elsewhere or gone, and trains them again if asked to.
"""

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

import data

from . import results_kept, results_page, results_pictures, results_runs, results_training
from .results_kept import Kept
from .results_rows import TABLES, Run, Table
from .results_runs import RUNS, Place
from .results_training import Look

SECONDS_BETWEEN_LINES = 30.0  # where there is no terminal to redraw lines on


def main() -> None:
    """Train, judge, write; exit code 1 if a run failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs and their teachers; all by default")
    parser.add_argument("--page_only", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"), help="the page; pictures go to images/")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; the CPU cores are shared out")
    parser.add_argument("--data_dir", help="where TFDS data sets are prepared (default: TFDS's own)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: the runs are asked to stop
    place = Place(options.runs, options.data_dir)
    try:
        if not 1 <= options.jobs <= (os.cpu_count() or 1):
            raise ValueError(f"jobs is {options.jobs}; it must be between 1 and the {os.cpu_count()} CPU cores")
        notes = results_page.notes_of(options.out)
        with_data = [table for table in TABLES if has_data(table, options.data_dir)]
        runs = [] if options.page_only else chosen([run for table in with_data for run in table.runs], options.only)
        results_runs.check(runs)
        failed = {}
        if runs:
            with board(len(runs), options.jobs) as show:
                failed = results_training.train_missing(runs, place, jobs=options.jobs, show=show)
        write_page(options.out, notes, with_data, place)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from there") from None
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    print(options.out)
    sys.exit(1 if failed else 0)


def has_data(table: Table, data_dir: str | None) -> bool:
    """Whether the data of a table are here; says so if they are not."""
    if table.tfds:
        try:
            data.tfds_source(table.tfds, data_dir=data_dir)
        except FileNotFoundError:
            print(f"{table.title}: nothing is trained, {table.tfds} is not in {data_dir or '~/tensorflow_datasets'}")
            return False
    return True


def chosen(runs: Sequence[Run], names: Sequence[str] | None) -> list[Run]:
    """The runs of these names with their teachers; all if names is None.

    Raises:
        ValueError: there is no such run; lists those there are.
    """
    if names is None:
        return list(runs)
    unknown = sorted(set(names) - {run.name for run in runs})
    if unknown:
        raise ValueError(f"no run {', '.join(unknown)}; there are {', '.join(run.name for run in runs)}")
    return results_runs.with_teachers([run for run in runs if run.name in names], runs)


def write_page(page: Path, notes: str, with_data: Sequence[Table], place: Place) -> None:
    """The page and its pictures, of the runs that are done here or were kept; samples are drawn where the data are."""
    sections, kept = [], Kept(page.with_suffix(""))
    for table in TABLES:
        here = {run.name: results_runs.finished(run, place) for run in table.runs}
        found = {run.name: here[run.name] or results_kept.recall(run, kept) for run in table.runs}
        done = {name: finished for name, finished in found.items() if finished is not None}
        standing = results_page.section_of(page, table)
        if standing and not any(place.workdir(run).exists() or kept.numbers(run).exists() for run in table.runs):
            sections.append(standing)  # nothing is known here of the runs it shows
            continue
        fd, samples = (page.parent / "images" / f"{table.pictures}_{name}.png" for name in ("fd", "samples"))
        results_pictures.draw_plot(table, done, fd)
        if table in with_data:
            results_pictures.draw_samples(table, done, place, kept, samples)
        for run in table.runs:
            if (finished := here[run.name]) is not None:
                results_kept.keep(run, finished, kept)
        captions = {fd: "Fréchet distance over network evaluations", samples: "Samples from the same noise"}
        links = [(text, str(path.relative_to(page.parent))) for path, text in captions.items() if path.exists()]
        sections.append(results_page.section(table, done, links))
    page.parent.mkdir(parents=True, exist_ok=True)
    partial = page.with_suffix(".partial")
    partial.write_text(results_page.page_of(sections, notes))
    os.replace(partial, page)


# ---- One view of all runs --------------------------------------------------------------------------------------------


@contextmanager
def board(total: int, jobs: int) -> Iterator[Callable[[Look], None]]:
    """A live line for all runs and one for each that is running; a line every half minute without a terminal."""
    console = Console()
    if console.is_terminal:
        with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}")) as bars:
            everything = bars.add_task("all runs", total=total, told="")
            tasks: dict[str, TaskID] = {}

            def redraw(look: Look) -> None:
                bars.update(everything, completed=look.done + len(look.failed), told=escape(summary(look, total, jobs)))
                running = {job.run.name: (job, step) for job, step in look.jobs}
                for name in set(tasks) - set(running):
                    bars.remove_task(tasks.pop(name))
                for name, (job, step) in running.items():
                    if name not in tasks:
                        tasks[name] = bars.add_task(escape(name), total=job.steps, told="")
                    bars.update(tasks[name], completed=step, told=f"step {step}/{job.steps}")

            yield redraw
        return

    last, shown = 0.0, (-1, -1)

    def line(look: Look) -> None:
        nonlocal last, shown
        settled = (look.done, len(look.failed))
        if settled == shown and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last, shown = time.monotonic(), settled
        running = "".join(f"  {job.run.name} step {step}/{job.steps}" for job, step in look.jobs)
        console.print(f"{summary(look, total, jobs)}{running}", highlight=False, markup=False, soft_wrap=True)

    yield line


def summary(look: Look, total: int, jobs: int) -> str:
    """How many of how many, and how long it will take."""
    left = seconds_left(look, jobs)
    failed = f", {len(look.failed)} failed" if look.failed else ""
    remaining = "" if left is None else f", {left / 60:.0f} min left" if left >= 60 else f", {left:.0f} s left"
    return f"{look.done} of {total} done{failed}{remaining}"


def seconds_left(look: Look, jobs: int) -> float | None:
    """Seconds until the last run ends, if those that wait take as long as those seen; None while none was seen.

    A run of which something is known takes what its rate says and not less than it has taken already.
    """
    now = time.monotonic()
    expected = {}
    for job, step in look.jobs:
        elapsed = now - job.started
        taken = step - job.first_step
        if taken > 0:
            expected[job.run.name] = elapsed / taken * (job.steps - job.first_step)
    seen = [*look.seconds.values(), *expected.values()]
    if not seen:
        return None if look.jobs or look.waiting else 0.0
    usual = statistics.median(seen)
    running = [max(expected.get(job.run.name, usual) - (now - job.started), 0.0) for job, _ in look.jobs]
    return (sum(running) + usual * len(look.waiting)) / jobs


if __name__ == "__main__":
    main()
