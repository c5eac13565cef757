import json
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.soak import compare, soak
from tests.tiny import experiment
from train import fit


@pytest.mark.slow
def test_a_run_killed_six_times_at_random_ends_with_the_bits_of_one_that_was_not(tmp_path):
    tally = soak(tmp_path / "soak", steps=60, minutes=15, seed=1, kills=6)
    assert sum(tally.kills.values()) >= 6
    json.dumps(asdict(tally))  # as --out writes it
    assert set(tally.kills) == {"SIGKILL", "SIGTERM"}
    assert tally.rounds >= 1


def test_the_comparison_sees_another_run(tmp_path):
    brief: dict[str, Any] = {"steps": 4, "snapshot_every": 0, "averages": {}, "judged_average": "params"}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(experiment(**brief, seed=seed), tmp_path / name)
        (tmp_path / name / "metrics.jsonl").write_text('{"metric": "fd", "sampler": "one", "value": 1.5}\n')
    compare(tmp_path / "a", tmp_path / "b", 4)
    with pytest.raises(ValueError, match=r"c does not equal .*a: .*params"):
        compare(tmp_path / "a", tmp_path / "c", 4)
    with pytest.raises(ValueError, match="ended at step 4 of 5"):
        compare(tmp_path / "a", tmp_path / "b", 5)
    (tmp_path / "b" / "metrics.jsonl").write_text('{"metric": "fd", "sampler": "one", "value": 1.25}\n')
    with pytest.raises(ValueError, match="were not judged as"):
        compare(tmp_path / "a", tmp_path / "b", 4)
