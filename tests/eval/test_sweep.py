import json

import numpy as np
import pytest

from eval.rows import read_rows
from eval.sweep import fronts, main, sweep

CONFIG_FILE = """
from typing import NamedTuple
import jax.numpy as jnp
import numpy as np
from jax import random, vmap


class Sampler(NamedTuple):
    name: str
    nfe: int
    sample: object


class Experiment(NamedTuple):
    samplers: tuple
    num_classes: int
    restore: object
    judge: object
    init: object
    judged_average: str = "ema"
    judged_samples: int = 12


def build(config):
    def sampler(steps):
        def sample(params, keys, labels):
            noise = vmap(lambda key: random.normal(key, (4, 4, 1)))(keys)
            return params["scale"] * config.guidance / steps * noise

        return Sampler(f"euler {steps}", steps, sample)

    def judge(batches):
        images = np.concatenate([images for images, _ in batches]).astype(float)
        n = len(images)
        return [
            {"metric": f"recall_toy_{n}", "value": float(images.std()), "n": n},
            {"metric": f"fd_toy_{n}", "value": float(images.std()) ** 2, "n": n},
        ]

    if config.guidance < 0:
        raise ValueError("guidance must not be negative")
    return Experiment(
        tuple(sampler(steps) for steps in config.steps),
        0,
        lambda workdir, average, step: ({"scale": jnp.ones(config.width)}, 100 if step is None else step),
        judge,
        lambda key: {"scale": jnp.ones(config.width)},
    )
"""


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    run = tmp_path / "run"
    run.mkdir()
    config = {"guidance": 1.0, "steps": [1, 4], "width": 1, "name": "toy"}
    (run / "run.json").write_text(json.dumps({"config_file": str(tmp_path / "config.py"), "config": config}))
    return run


def test_all_combinations_are_sampled_with_the_same_noise(workdir):
    rows = sweep(workdir, {"guidance": [0.1, 0.2], "steps": [(1,), (2, 4)]}, n=40)
    told = [(row["samples"], row["sampler"]) for row in rows if row["metric"] == "recall_toy_40"]
    assert told == [
        *(("guidance 0.1, steps (1,)", "euler 1"), ("guidance 0.1, steps (2, 4)", "euler 2")),
        *(("guidance 0.1, steps (2, 4)", "euler 4"), ("guidance 0.2, steps (1,)", "euler 1")),
        *(("guidance 0.2, steps (2, 4)", "euler 2"), ("guidance 0.2, steps (2, 4)", "euler 4")),
    ]
    spread = {key: row["value"] for key, row in zip(told, rows[::2], strict=True)}
    # Twice the guidance at twice the steps is the same scale of the same noise.
    assert spread["guidance 0.2, steps (2, 4)", "euler 2"] == spread["guidance 0.1, steps (1,)", "euler 1"]
    assert rows[0]["knobs"] == {"guidance": 0.1, "steps": (1,)}
    assert {(row["step"], row["average"], row["seed"], row["n"]) for row in rows} == {(100, "ema", 0, 40)}


def test_the_front_is_marked(workdir):
    rows = sweep(workdir, {"guidance": [0.1, 0.2]}, n=40)
    # More of one is more of the other here, so no setting beats another.
    assert fronts(rows, {})[0] == ["recall_toy_40", "fd_toy_40"]
    assert all(row["on_front"] for row in fronts(rows, {})[1])
    alone = fronts(rows, {"diversity": "recall_toy", "realism": "recall_toy_40"})[1]
    best = max(row["value"] for row in rows if row["metric"] == "recall_toy_40")
    assert [row["samples"] for row in alone if row["on_front"]] == ["guidance 0.2"] * 2
    assert next(row["value"] for row in alone if row["on_front"]) == best
    with pytest.raises(ValueError, match="no metric begins with density; there are recall_toy_40, fd_toy_40"):
        fronts(rows, {"realism": "density"})


def test_the_command_writes_table_rows_and_picture(workdir, capsys):
    assert main(["--workdir", str(workdir), "--knob", "guidance=0.1,0.2", "--knob", "steps=(1,)", "--n", "20"]) == 0
    assert "guidance 0.2" in capsys.readouterr().out
    rows = read_rows(workdir / "sweep.jsonl")
    assert len(rows) == 4
    assert {row["on_front"] for row in rows} == {True}
    assert (workdir / "sweep.png").stat().st_size > 1000
    assert not (workdir / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ("guidence=1", "no value 'guidence'; it has guidance, name, steps, width; did you mean guidance?"),
        ("width=2,1", "width 2 changes the network"),
        ("guidance=0.5,-1", "guidance must not be negative"),
        ("guidance=(1,)", "guidance cannot be (1,)"),
        ("guidance", "expected NAME=VALUE,VALUE"),
        ("=1", "expected NAME=VALUE,VALUE"),
    ],
)
def test_what_is_no_knob_is_told_before_anything_is_sampled(workdir, capsys, knob, message):
    assert main(["--workdir", str(workdir), "--knob", knob]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in workdir.iterdir()] == ["run.json"]


def test_words_are_values_too(workdir):
    rows = sweep(workdir, {"name": ["a", "b"]}, n=4)
    assert len({row["value"] for row in rows if row["sampler"] == "euler 1" and row["metric"] == "fd_toy_4"}) == 1
    assert np.isfinite([row["value"] for row in rows]).all()
