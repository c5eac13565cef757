import json

import pytest

from eval.rows import append_rows, count_name, read_rows


@pytest.mark.parametrize(("n", "name"), [(2000, "2k"), (50_000, "50k"), (1797, "1797"), (999, "999"), (0, "0")])
def test_count_name(n, name):
    assert count_name(n) == name


def test_rows_are_appended_one_object_a_line(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    append_rows(path, [{"metric": "a", "value": 1.5}])
    append_rows(path, [{"metric": "b", "value": 2}, {"metric": "c", "value": 3}])
    assert [json.loads(line)["metric"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert read_rows(path)[0] == {"metric": "a", "value": 1.5}


def test_a_line_cut_short_costs_no_other_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_rows(path, [{"metric": "a"}])
    with path.open("a") as file:
        file.write('{"metric": "b", "val')
    append_rows(path, [{"metric": "c"}])
    with pytest.warns(UserWarning, match=r"metrics\.jsonl, line 2 is not JSON"):
        assert read_rows(path) == [{"metric": "a"}, {"metric": "c"}]


def test_nan_is_not_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(ValueError, match="JSON compliant"):
        append_rows(path, [{"metric": "a", "value": float("nan")}])
    assert not path.exists()
