"""What stays of runs when their folders are gone: numbers and a strip of samples of each, in docs/results/.

So a table can get a line more, or one line anew, on a machine that has none of its other runs.
"""

import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .results_rows import Run
from .results_runs import Finished, is_of, without_places


class Kept(NamedTuple):
    """The folder of what is kept, which is part of the repository."""

    folder: Path

    def numbers(self, run: Run) -> Path:
        """The file of a run's numbers."""
        return self.folder / f"{run.name}.json"

    def samples(self, name: str) -> Path:
        """The picture of samples of a run, or of a table's real images."""
        return self.folder / f"{name}.png"


def keep(run: Run, finished: Finished, kept: Kept) -> None:
    """Write the numbers of a run; where its teachers and data lay is left out, as it is not what the run is."""
    kept.folder.mkdir(parents=True, exist_ok=True)
    record = finished._replace(config=without_places(run, finished.config))._asdict()
    kept.numbers(run).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def recall(run: Run, kept: Kept) -> Finished | None:
    """The numbers of a run; None if there are none of this very config."""
    try:
        finished = Finished(**json.loads(kept.numbers(run).read_text()))
    except FileNotFoundError:
        return None
    return finished if is_of(run, finished.config_file, finished.config) else None


def recall_samples(name: str, kept: Kept) -> Image.Image | None:
    """A strip of samples; None if there is none."""
    try:
        with Image.open(kept.samples(name)) as image:
            return image.copy()
    except FileNotFoundError:
        return None
