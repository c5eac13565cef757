"""From finished runs to a page of Markdown tables."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eval import Row

from .results_rows import Run, Table
from .results_runs import RUNS, Finished, Place, arguments, preparations

AGREEMENT = "label_agreement_"
COLUMNS = (1, 2, 4, 8)  # numbers of steps with a column of their own
NOT_RUN = "not run"
NOTES = "<!-- Written by hand from here on; a rebuild of this page keeps it. -->"
HEADING = """# Results

`make results` trains what is missing and rebuilds this page from the runs' own `metrics.jsonl`; their numbers are kept
in [results](results). All runs of a table have one network, one budget of steps, one data set and one judge; what
differs is the method.
"""


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        label: what it is called.
        view: what of the label is its own, where a run has several lines.
        ending: how the names of its samplers end.
        runs: those of this label.
        done: those of them that are done.
    """

    label: str
    view: str
    ending: str
    runs: tuple[Run, ...]
    done: Mapping[str, Finished]

    def values(self, metric: str) -> dict[int, list[float]]:
        """Values of the metric whose name begins so, by number of network evaluations; one of each run that has it."""
        result: dict[int, list[float]] = {}
        for run in self.runs:
            for row in self.done[run.name].rows if run.name in self.done else ():
                mine = row["sampler"].endswith(self.ending) and (not run.nfe or row["nfe"] in run.nfe)
                if mine and row["metric"].startswith(metric):
                    result.setdefault(row["nfe"], []).append(row["value"])
        return dict(sorted(result.items()))


def lines_of(table: Table, done: Mapping[str, Finished]) -> list[Line]:
    """The lines of a table in the order of its runs."""
    runs: dict[tuple[str, str, str], list[Run]] = {}
    for run in table.runs:
        for view, ending in run.views.items():
            runs.setdefault((run.label, view, ending), []).append(run)
    return [
        Line(label + view, view, ending, tuple(same), {run.name: done[run.name] for run in same if run.name in done})
        for (label, view, ending), same in runs.items()
    ]


# ---- The page --------------------------------------------------------------------------------------------------------


def notes_of(page: Path) -> str:
    """What somebody wrote below the marker of an existing page; empty if there is no page.

    Raises:
        ValueError: the page has no marker, so it was not made here.
    """
    if not page.exists():
        return "\n"
    _, marker, notes = page.read_text().partition(NOTES)
    if not marker:
        raise ValueError(f"{page} has no line {NOTES!r}; below it stands what a rebuild keeps")
    return notes


def section_of(page: Path, table: Table) -> str:
    """The part of an existing page that shows a table; empty if there is none."""
    text = page.read_text().partition(NOTES)[0] if page.exists() else ""
    _, heading, rest = text.partition(heading_of(table))
    following = rest.find("\n## ")
    return heading + (rest[:following] if following >= 0 else rest.removesuffix("\n"))


def heading_of(table: Table) -> str:
    """The first line of its section."""
    return f"## {table.title}\n"


def page_of(sections: Sequence[str], notes: str) -> str:
    """The whole page."""
    return "\n".join([HEADING, *sections, NOTES]) + notes


def section(table: Table, done: Mapping[str, Finished], pictures: Sequence[tuple[str, str]]) -> str:
    """The part of the page that shows one table.

    Args:
        table: its runs.
        done: those of them that are done, by name.
        pictures: captions and links, relative to the page.

    Raises:
        ValueError: the runs were not judged in one way.
    """
    lines = lines_of(table, done)
    fd, agreement = metric_name(done, table.distance), metric_name(done, AGREEMENT)
    halves, held_out = bounds(done, table.distance, "real_floor"), bounds(done, AGREEMENT, "held_out_accuracy")
    parts = [f"{heading_of(table)}\n{table.text}\n", *(f"- {fact}" for fact in facts(table, done))]
    parts += [f"\nFréchet distance `{fd}` by number of network evaluations, lower is better{spread_note(table)}."]
    parts += [f"One half of the real images against the other has {halves}, both being smaller.\n"] if halves else [""]
    parts += markdown(
        ["method", "paper", *(str(n) for n in COLUMNS), "more", "training, s"],
        [
            [line.label, line.runs[0].paper, *cells(line, table.distance), training_cell(line, table, done)]
            for line in lines
        ],
    )
    parts += [f"\n![{caption}]({link})" for caption, link in pictures]
    parts += [f"\nLabel agreement `{agreement}`, higher is better."]
    parts += [f"The classifier that judges has {held_out} on real images it has not seen.\n"] if held_out else [""]
    parts += markdown(
        ["method", *(str(n) for n in COLUMNS), "more"], [[line.label, *cells(line, AGREEMENT)] for line in lines]
    )
    parts += ["\nThe commands, in an order in which they can be given:\n", "```bash"]
    place = Place(RUNS)
    commands = [command for run in table.runs for command in (*preparations(run, place), arguments(run, place))]
    parts += dict.fromkeys(shlex.join(["python", *command]) for command in commands)
    return "\n".join([*parts, "```", ""])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---" if name == "paper" else "---:" for name in header[1:]]]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]


# ---- Cells -----------------------------------------------------------------------------------------------------------


def cells(line: Line, metric: str) -> list[str]:
    """The cells of COLUMNS and one for all other numbers of steps, as "0.0794 (35)"."""
    values = line.values(metric)
    more = "; ".join(f"{cell(line, values, n, metric)} ({n})" for n in values if n not in COLUMNS)
    return [*(cell(line, values, n, metric) for n in COLUMNS), more]


def cell(line: Line, values: Mapping[int, Sequence[float]], nfe: int, metric: str) -> str:
    """Mean and range over the seeds that are done; "not run" if a missing run could have told, "" if none could."""
    missing = sum(run.name not in line.done and (not run.nfe or nfe in run.nfe) for run in line.runs)
    found = values.get(nfe, ())
    if not found:
        return NOT_RUN if missing else ""
    few = f", {len(found)} of {len(found) + missing} seeds" if missing else ""
    return spread(found, ".3f" if metric == AGREEMENT else ".3g") + few


def spread(values: Sequence[float], form: str) -> str:
    """The mean, with the smallest and the largest of several values."""
    mean = f"{np.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def bounds(done: Mapping[str, Finished], metric: str, key: str) -> str:
    """What real images score, as every run measured it for itself; "" if none is done."""
    values = sorted({f"{row[key]:.3f}" for row in all_rows(done) if row["metric"].startswith(metric) and key in row})
    return " to ".join(dict.fromkeys([*values[:1], *values[-1:]]))


def training_cell(line: Line, table: Table, done: Mapping[str, Finished]) -> str:
    """Seconds of training of a run, and of the teachers it cannot do without."""
    if not line.done:
        return NOT_RUN
    own = spread([finished.train_seconds for finished in line.done.values()], ".0f")
    by_name = {run.name: run for run in table.runs}
    teachers = list(dict.fromkeys(name for run in line.runs for name in run.teachers.values()))
    for name in teachers:
        teachers += [other for other in by_name[name].teachers.values() if other not in teachers]
    return " + ".join([own, *(f"{done[t].train_seconds:.0f} teacher" if t in done else NOT_RUN for t in teachers)])


# ---- Facts -----------------------------------------------------------------------------------------------------------


def facts(table: Table, done: Mapping[str, Finished]) -> list[str]:
    """What the finished runs share, read from their own records; and who deviates."""
    if not done:
        return ["No run is done."]
    shared, deviating = [], []
    for name in table.same:
        values = {run: repr(finished.config[name]) for run, finished in done.items() if name in finished.config}
        usual = Counter(values.values()).most_common(1)
        shared += [f"{name} {value}" for value, _ in usual]
        deviating += [f"{name} {value} in `{run}`" for run, value in values.items() if value != usual[0][0]]
    fd_rows = [row for row in all_rows(done) if row["metric"].startswith(table.distance)]
    references = dict.fromkeys(f"{row['reference']}, {row['reference_n']:,} images" for row in fd_rows)
    averages = dict.fromkeys(row["average"] for row in fd_rows)
    cores = sorted({finished.cores for finished in done.values() if finished.cores is not None})
    devices = {finished.device for finished in done.values()} - {"cpu"}
    hardware = [*(f"{n} CPU core{'s' * (n > 1)}" for n in cores), *sorted(devices)]
    return [
        f"Equal in all runs: {', '.join(shared)}" + (f"; except {', '.join(deviating)}." if deviating else "."),
        f"Judged: {' and '.join(averages)} weights, {fd_rows[0]['n']:,} samples of sampling seed 0, "
        f"in {fd_rows[0]['feature']}, against {' and '.join(references)}.",
        "Seconds of training are as measured, with compilation, without judging"
        + (f", each run on {' or '.join(hardware)}" if hardware else "")
        + f"; jax {' and '.join(sorted({finished.jax for finished in done.values()}))}.",
    ]


def spread_note(table: Table) -> str:
    """What stands in brackets, where there is something."""
    seeds = any(run.values.get("seed", 0) for run in table.runs)
    return "; of several seeds the mean, in brackets the smallest and the largest" if seeds else ""


def metric_name(done: Mapping[str, Finished], metric: str) -> str:
    """The full name of the metric whose name begins so.

    Raises:
        ValueError: it has several, or was measured against several references.
    """
    judges = sorted({(row["metric"], row.get("reference_sha256", "")) for row in all_rows(done, metric)})
    if len(judges) > 1:
        raise ValueError(f"the runs were judged in more than one way and cannot share a table: {judges}")
    return judges[0][0] if judges else f"{metric}*"


def all_rows(done: Mapping[str, Finished], metric: str = "") -> list[Row]:
    """The rows of all runs whose metric begins so."""
    return [row for finished in done.values() for row in finished.rows if row["metric"].startswith(metric)]
