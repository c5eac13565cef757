"""Two processes, each with a part of every large array; the part of the second one is cut short on disk.

python -m tests.damaged_part WORKDIR HOST:PORT PROCESS_ID

trains, damages the newest checkpoint, and says what each process makes of it, first without leave to go back.
"""

import sys
from pathlib import Path

from tests.tiny import BRIEF, HEARTBEAT_SECONDS, experiment
from train import Processes, Refused, Resume, fit, start_processes
from train.agreement import on_first


def cut_short(checkpoint: Path) -> None:
    parts = [path for path in (checkpoint / "state" / "ocdbt.process_1" / "d").iterdir() if path.is_file()]
    largest = max(parts, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def main(workdir: Path, address: str, index: int) -> None:
    start_processes(Processes(address, 2, index), timeout_seconds=100, heartbeat_seconds=HEARTBEAT_SECONDS)
    # 256 x 256 weights are large enough to be split over the fsdp axis.
    wide = experiment(dim=256, fsdp=2, **BRIEF)
    fit(wide, workdir)
    on_first(lambda: cut_short(workdir / "checkpoints" / "12"))
    try:
        fit(wide, workdir)
    except Refused as error:
        sys.stdout.write(f"refused: {error}\n")
    again = fit(wide, workdir, resume=Resume(fallback=True))
    sys.stdout.write(f"{again.steps_taken} steps to {int(again.state.step)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
