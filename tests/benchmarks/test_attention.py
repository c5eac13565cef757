"""What streaming attention saves, measured by the command at a tiny size."""

import json

import pytest

from benchmarks import attention

TINY = ["--width=16", "--depth=2", "--heads=2", "--side=8", "--batch=2", "--lengths", "16", "--rounds=1"]


@pytest.mark.parametrize("more", [[], ["--remat", "--bfloat16"]])
def test_the_command_writes_memory_and_times_of_both(more, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(attention, "STEPS", ("flow matching",))
    monkeypatch.setattr("sys.argv", ["attention", *TINY, *more, "--out", str(tmp_path / "attention.json")])
    attention.main()
    found = json.loads((tmp_path / "attention.json").read_text())
    (memory,) = found["memory"]
    assert memory["recipe"] == "flow matching"
    assert memory["ratio"] == pytest.approx(memory["streamed"] / memory["plain"])
    assert [row["what"] for row in found["times"]] == ["forward", "tangent", "gradient"]
    assert all(row["tokens"] == 16 and row["ratio"] == row["streamed"] / row["plain"] for row in found["times"])
    assert "temporaries of a step" in capsys.readouterr().out


def test_a_slice_that_is_none_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attention", *TINY, "--tpu", "foo"])
    with pytest.raises(SystemExit, match="2"):
        attention.main()
    assert "--tpu: topology is 'foo', it must be a chip and a shape" in capsys.readouterr().err
