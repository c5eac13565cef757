"""Command line: what several runs came to, in one table and one picture.

python -m eval.compare runs/a runs/b --metric fd_pixels_2k --picture compared.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .fid import report
from .plots import metric_against_nfe
from .rows import Row, read_rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if the input was refused."""
    return report(_parser(), _compared, arguments)


def compare(workdirs: Sequence[str | Path], metrics: Sequence[str] = ()) -> list[Row]:
    """The rows of several runs, each with the name of its run under `samples`; of repeated ones the last counts.

    Args:
        workdirs: folders with metrics.jsonl.
        metrics: only these, in full; all if empty.

    Raises:
        FileNotFoundError: a folder has no rows.
        ValueError: no run has such a metric, or numbers under one name were measured against different references, or
            against different numbers of their images.
    """
    rows: list[Row] = []
    for name, workdir in zip(_names(workdirs), workdirs, strict=True):
        path = Path(workdir) / "metrics.jsonl"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; was the run in {workdir} judged?")
        found = [row for row in read_rows(path) if not metrics or row["metric"] in metrics]
        rows += [{"metric": row["metric"], "value": row["value"], "samples": name, **row} for row in found]
    if not rows:
        raise ValueError(f"no run has {' or '.join(metrics) or 'any rows'}")
    for metric in dict.fromkeys(row["metric"] for row in rows):
        references = {row["reference_sha256"] for row in rows if row["metric"] == metric and "reference_sha256" in row}
        if len(references) > 1:
            raise ValueError(
                f"{metric} was measured against {len(references)} references, which cannot be compared: "
                f"{', '.join(sorted(sha256[:12] for sha256 in references))}"
            )
        kept = {row["real_n"] for row in rows if row["metric"] == metric and "real_n" in row}
        if len(kept) > 1:
            told = " and ".join(f"{n:,}" for n in sorted(kept))
            raise ValueError(f"{metric} was measured against {told} real images, which cannot be compared")
    return rows


def _names(workdirs: Sequence[str | Path]) -> list[str]:
    """The last parts of the folders' names, as far back as tells them apart."""
    paths = [Path(workdir).resolve() for workdir in workdirs]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"a run is given twice: {', '.join(map(str, workdirs))}")


def _compared(options: argparse.Namespace) -> list[Row]:
    rows = compare(options.workdirs, options.metric)
    if options.picture is not None:
        if options.picture.exists():
            raise FileExistsError(f"{options.picture} exists; choose another name for the picture")
        metric = options.metric[0] if options.metric else rows[0]["metric"]
        # A line for each run instead of one for each sampler.
        metric_against_nfe([{**row, "sampler": row["samples"]} for row in rows], metric).savefig(options.picture)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", type=Path, help="folders of judged runs")
    parser.add_argument("--metric", nargs="+", default=[], help="only these, as fd_pixels_2k (default: all)")
    parser.add_argument("--picture", type=Path, help="plot the first metric over network evaluations into this file")
    parser.add_argument("--out", type=Path, help="also write the rows to this new file, one JSON object a line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
