"""Numbers of a benchmark in a file."""

import argparse
import json
from pathlib import Path

import jax

from benchmarks.showing import keep


def test_numbers_are_kept_with_how_they_came_about(tmp_path):
    out = tmp_path / "new" / "rate.json"
    keep(argparse.Namespace(out=out, batch=4, log=Path("runs/a")), rows=[1.5])
    kept = json.loads(out.read_text())
    assert kept == {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "settings": {"batch": 4, "log": "runs/a"},
        "rows": [1.5],
    }


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keep(argparse.Namespace(out=None), rows=[])
    assert not list(tmp_path.iterdir())
