import io

import pytest
from rich.console import Console

from eval.report import print_report, table


def rows_of(nfe, fd, agreement, **more):
    own = {"nfe": nfe, "sampler": f"{nfe} step", "step": 2000, "average": "ema", "seed": 0, "n": 2000, **more}
    reference = {"feature": "pixels", "reference": "digits/train", "reference_n": 1442}
    return [
        {
            **{"metric": "fd_pixels_2k", "value": fd, "real_floor": 0.3363},
            **reference,
            **{"reference_sha256": "0123456789abcdef"},
            **own,
        },
        {
            **{"metric": "label_agreement_2k", "value": agreement, "held_out_accuracy": 0.9944},
            **{"classifier": "classifier-01234567"},
            **own,
        },
        {"metric": "constant_images_2k", "value": 0, **own},
    ]


def text(rows, width=80):
    stream = io.StringIO()
    print_report(rows, Console(file=stream, width=width))
    return stream.getvalue()


def line(shown, start):
    return next(line.split() for line in shown.splitlines() if line.strip().startswith(start))


def test_a_line_for_each_sampler_and_the_real_data_below():
    shown = text(rows_of(1, 3.14159, 0.9) + rows_of(2, 12.5, 0.95))
    assert line(shown, "1 step") == ["1", "step", "1", "3.14", "0.9000"]
    assert line(shown, "2 step") == ["2", "step", "2", "12.50", "0.9500"]
    assert line(shown, "real halves") == ["real", "halves", "0.34"]
    assert line(shown, "real held-out") == ["real", "held-out", "0.9944"]
    assert "step 2000, average ema, seed 0" in shown
    assert "digits/train, 1442 images, pixels, 01234567" in shown
    assert "classifier-01234567" in shown
    assert "constant" not in shown


def test_what_differs_becomes_a_column():
    shown = text(rows_of(1, 3.0, 0.9) + rows_of(1, 2.0, 0.9, step=4000))
    assert line(shown, "1 step") == ["1", "step", "1", "2000", "3.000", "0.9000"]
    assert "average ema, seed 0" in shown
    assert "step 2000" not in shown


def test_the_last_of_repeated_measurements_counts():
    assert "2.000" in text(rows_of(1, 3.0, 0.9) + rows_of(1, 2.0, 0.9))
    assert "3.000" not in text(rows_of(1, 3.0, 0.9) + rows_of(1, 2.0, 0.9))


def test_constant_images_and_warnings_are_shown():
    rows = rows_of(1, 3.0, 0.9)
    rows[2]["value"] = 7
    rows[0]["warning"] = "2000 samples for 2048 dimensions"
    shown = text(rows)
    assert line(shown, "1 step")[-1] == "7"
    assert "warning: 2000 samples for 2048 dimensions" in shown


def test_a_pipe_gets_whole_lines(capsys):
    rows = rows_of(1, 3.0, 0.9)
    for i in range(8):
        rows.append({**rows[0], "metric": f"fd_somewhatlong{i}_2k"})
    print_report(rows)
    printed = capsys.readouterr().out
    assert line(printed, "1 step") == ["1", "step", "1", "3.000", "0.9000", *["3.000"] * 8]
    assert "\x1b" not in printed


def test_a_narrow_terminal_gets_a_table_for_each_feature():
    rows = rows_of(1, 3.0, 0.9)
    for i in range(4):
        rows.append({**rows[0], "metric": f"fd_classifier{i}_2k", "feature": "classifier"})
    shown = text(rows, width=80)
    lines = [line.split() for line in shown.splitlines() if line.strip().startswith("1 step")]
    assert lines == [["1", "step", "1", "3.000", "0.9000"], ["1", "step", "1", *["3.000"] * 4]]
    assert "…" not in shown


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        table([])
