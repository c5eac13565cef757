"""A short run that has ended, for tests of what may go on from it."""

import shutil
from pathlib import Path

import pytest

from tests.tiny import BRIEF, experiment
from train import fit
from train.checkpoint import steps_in


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of twelve steps with checkpoints of 4, 8 and 12, of which two are kept."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fit(experiment(**BRIEF), folder)
    assert steps_in(folder / "checkpoints") == [8, 12]
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
