"""The benchmarks of speed and memory, one after another, into one JSON file and the tables beside it.

    make benchmarks                                          # small sizes, for two CPU cores
    python -m benchmarks.everything --published --out DIR    # sizes of the papers, for an accelerator

Each runs in a process of its own, so that none finds another's memory in use, and the others go on where one fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Commands = Mapping[str, Sequence[str]]
"""Arguments of `python -m benchmarks.NAME`, by name."""

SMALL: Commands = {
    "step_cost": ("--depth", "3"),
    "backbone_cost": (),
    "sampler_rate": (),
    "attention": ("--depth", "2", "--side", "64", "--batch", "1", "--lengths", "256", "1024", "2048"),
    "data_rate": ("--steps_at", "10000", "--photographs", "500", "--processes", "2"),
    "checkpoint_stall": (),
}
TRANSFORMER = ("--side", "32", "--batch", "64", "--bfloat16")
PUBLISHED: Commands = {
    "step_cost": ("--width", "768", "--depth", "12", "--heads", "12", *TRANSFORMER),
    "backbone_cost": ("--published", "--batch", "64", "--bfloat16"),
    "sampler_rate": ("--width", "1152", "--depth", "28", "--heads", "16", *TRANSFORMER),
    "attention": ("--bfloat16",),
    "data_rate": ("--steps_at", "10000", "--photographs", "5000", "--processes", "8"),
    "checkpoint_stall": ("--parameters", "675e6", "--step_seconds", "0.5", "--every", "1000", "--rounds", "1"),
}


def run(commands: Commands, folder: Path, *, data_dir: str | None = None) -> dict[str, Any]:
    """What each wrote, by name, or {"error": the end of its output}; written to the folder as it comes in.

    `data_dir` is for the input rate. The folder then has NAME.txt with what each printed, and benchmarks.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for name, arguments in commands.items():
        out = folder / f"{name}.json"
        out.unlink(missing_ok=True)
        extra = ("--data_dir", data_dir) if name == "data_rate" and data_dir else ()
        command = (sys.executable, "-m", f"benchmarks.{name}", *arguments, *extra, "--out", str(out))
        print(f"{name} {' '.join(arguments)}", flush=True)
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        (folder / f"{name}.txt").write_text(done.stdout + done.stderr)
        if done.returncode == 0 and out.exists():
            print(done.stdout, flush=True)
            results[name] = {"arguments": list(arguments), "seconds": seconds, **json.loads(out.read_text())}
        else:
            error = (done.stderr or done.stdout).strip()[-2000:]
            print(f"{name} failed:\n{error}", flush=True)
            results[name] = {"arguments": list(arguments), "seconds": seconds, "error": error}
        (folder / "benchmarks.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def main() -> int:
    """Runs them; 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--published", action="store_true", help="sizes of the papers, for an accelerator")
    parser.add_argument("--only", nargs="*", choices=tuple(SMALL), default=tuple(SMALL))
    parser.add_argument("--data_dir", help="where TFDS data sets are prepared (default: TFDS's own)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the results")
    given = parser.parse_args()
    commands = PUBLISHED if given.published else SMALL
    results = run({name: commands[name] for name in given.only}, given.out, data_dir=given.data_dir)
    print(f"{given.out / 'benchmarks.json'}: {', '.join(results)}")
    return int(any("error" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
