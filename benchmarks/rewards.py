"""Rewards: the flow of the digits before and after it is tuned towards one, by three methods under one budget.

    python -m benchmarks.rewards              trains the runs that are missing, and the flow first
    python -m benchmarks.rewards --jobs 2     two at a time

Runs lie in runs/results, as those of benchmarks/results.py do, with the same rules: what is done is skipped and what
was interrupted goes on. The lines of the table are explained in configs/digits_rewards.py: a higher reward is what was
asked for, a judge that agrees says that it was not the rewarding classifier alone that was pleased, and the Fréchet
distance, the recall and the distance of two samples say how much of the variety of the real images is left.
"""

import argparse
import json
import sys
from pathlib import Path

from eval import Row

from . import results_runs, results_training
from .results_rows import Run
from .results_runs import RUNS, Finished, Place

FLOW = Run("digits_rectified_flow", "rectified flow", "Liu et al. 2022", "digits_rectified_flow")
OF_FLOW = {"teacher_run": FLOW.name}
AM = "Domingo-Enrich et al. 2024"
TUNED = (
    Run("digits_reward_before", "before", "", "digits_adjoint_matching", {"steps": 0}, OF_FLOW),
    Run("digits_adjoint_matching", "Adjoint Matching", AM, "digits_adjoint_matching", {}, OF_FLOW),
    Run("digits_continuous_adjoint", "continuous adjoint", AM, "digits_continuous_adjoint", {}, OF_FLOW),
    Run("digits_draft", "DRaFT", "Clark et al. 2023", "digits_draft", {}, OF_FLOW),
    Run("digits_draft_1", "DRaFT-1", "Clark et al. 2023", "digits_draft", {"last": 1}, OF_FLOW),
)
MEASURES = ("reward", "label_agreement", "fd_pixels", "precision_pixels", "recall_pixels", "pairwise_distance")


def main() -> None:
    """Train, print, and write what was printed as JSON if asked to; exit code 1 if a run failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; the CPU cores are shared out")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows of the table")
    options = parser.parse_args()
    runs, place = (FLOW, *TUNED), Place(options.runs)
    results_runs.check(runs)
    options.runs.mkdir(parents=True, exist_ok=True)
    failed = results_training.train_missing(runs, place, jobs=options.jobs, show=lambda look: None)
    done = {run.label: finished for run in TUNED if (finished := results_runs.finished(run, place)) is not None}
    rows = lines(done)
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def lines(done: dict[str, Finished]) -> list[Row]:
    """One row for each run: what it is called, its measures at the most steps, its seconds of training."""
    rows = []
    for label, finished in done.items():
        most = max(row["nfe"] for row in finished.rows)
        values = {row["metric"].rpartition("_")[0]: row["value"] for row in finished.rows if row["nfe"] == most}
        rows.append({"method": label, "nfe": most, **{name: values[name] for name in MEASURES}, **_cost(finished)})
    return rows


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    columns = ("method", "nfe", *MEASURES, "seconds")
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    cells = [[f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in cells)])


def _cost(finished: Finished) -> Row:
    return {"seconds": finished.train_seconds, "cores": finished.cores, "device": finished.device}


if __name__ == "__main__":
    main()
