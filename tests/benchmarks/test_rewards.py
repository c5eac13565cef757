"""The table of tuned flows: its runs can be run, and its lines are those of the sampler with the most steps."""

from benchmarks import results_runs, rewards
from benchmarks.results_runs import Finished


def finished(reward):
    rows = [
        {"metric": f"{name}_2k", "value": value + nfe / 100, "nfe": nfe}
        for nfe in (32, 4)
        for name, value in {"reward": reward, **dict.fromkeys(rewards.MEASURES[1:], 0.5), "kid_pixels": 9.0}.items()
    ]
    return Finished(rows, "configs/digits_draft.py", {}, 12.5, 2, "cpu", "0")


def test_the_runs_can_be_run():
    results_runs.check((rewards.FLOW, *rewards.TUNED))


def test_lines_hold_the_measures_at_the_most_steps():
    rows = rewards.lines({"before": finished(-4.0), "DRaFT": finished(-0.25)})
    assert [row["reward"] for row in rows] == [-4 + 0.32, -0.25 + 0.32]
    assert {row["nfe"] for row in rows} == {32}
    head, rule, first, second = rewards.table(rows).splitlines()
    assert head.split(" | ")[:3] == ["| method", "nfe", "reward"]
    assert rule.count("|") == head.count("|") == first.count("|")
    assert first.startswith("| before | 32 | -3.68 | 0.82 |")
    assert second.endswith("| 12.5 |")
