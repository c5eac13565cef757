import pytest

from eval.compare import compare, main
from eval.rows import append_rows, read_rows


def row(value, nfe, metric="fd_pixels_2k", reference="a" * 64):
    return {"metric": metric, "value": value, "nfe": nfe, "sampler": f"euler {nfe}", "reference_sha256": reference}


@pytest.fixture
def runs(tmp_path):
    for name, values in (("one", (3.0, 1.0)), ("two", (5.0, 2.0))):
        rows = [
            {**row(value, nfe), "reference": "r", "reference_n": 9, "feature": "pixels"}
            for value, nfe in zip(values, (1, 4), strict=True)
        ]
        append_rows(tmp_path / name / "metrics.jsonl", rows)
    append_rows(tmp_path / "two" / "metrics.jsonl", [row(0.5, 1, "recall_pixels_2k")])
    return tmp_path


def test_rows_of_runs_are_joined_under_their_names(runs):
    rows = compare([runs / "one", runs / "two"], ["fd_pixels_2k"])
    assert [(row["samples"], row["nfe"], row["value"]) for row in rows] == [
        ("one", 1, 3.0),
        ("one", 4, 1.0),
        ("two", 1, 5.0),
        ("two", 4, 2.0),
    ]
    assert len(compare([runs / "two"])) == 3


def test_names_go_as_far_back_as_tells_runs_apart(tmp_path):
    for folder in ("a/run", "b/run"):
        append_rows(tmp_path / folder / "metrics.jsonl", [row(1.0, 1)])
    rows = compare([tmp_path / "a/run", tmp_path / "b/run"])
    assert [row["samples"] for row in rows] == ["a/run", "b/run"]
    with pytest.raises(ValueError, match="a run is given twice"):
        compare([tmp_path / "a/run", tmp_path / "a/run"])


def test_the_command_writes_table_rows_and_picture(runs, capsys):
    arguments = [str(runs / "one"), str(runs / "two"), "--metric", "fd_pixels_2k"]
    assert main([*arguments, "--picture", str(runs / "x.png"), "--out", str(runs / "x.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "one" in printed
    assert "two" in printed
    assert (runs / "x.png").stat().st_size > 1000
    assert len(read_rows(runs / "x.jsonl")) == 4
    assert main([*arguments, "--picture", str(runs / "x.png")]) == 2


def test_what_cannot_be_compared(runs):
    append_rows(runs / "three" / "metrics.jsonl", [row(1.0, 1, reference="b" * 64)])
    with pytest.raises(ValueError, match=r"fd_pixels_2k was measured against 2 references.*aaaaaaaaaaaa, bbbbbbbbbbbb"):
        compare([runs / "one", runs / "three"])
    for name, n in (("five", 500), ("ten", 10_000)):
        append_rows(runs / name / "metrics.jsonl", [row(1.0, 1, "recall_pixels_2k") | {"real_n": n}])
    with pytest.raises(ValueError, match="recall_pixels_2k was measured against 500 and 10,000 real images"):
        compare([runs / "five", runs / "ten"])
    with pytest.raises(FileNotFoundError, match=r"was the run in .*absent judged"):
        compare([runs / "one", runs / "absent"])
    with pytest.raises(ValueError, match="no run has fid_50k"):
        compare([runs / "one"], ["fid_50k"])
