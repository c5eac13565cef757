from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from eval.features import pixels
from eval.judge import judge
from eval.real import make_reference
from eval.rows import read_rows
from eval.run import evaluate


class ToySampler(NamedTuple):
    """A sampler."""

    name: str
    nfe: int
    sample: Any


class ToyExperiment(NamedTuple):
    """What evaluation needs of an experiment."""

    samplers: tuple[ToySampler, ...]
    num_classes: int
    restore: Any
    judge: Any
    judged_average: str = "ema"
    judged_samples: int = 10


def bright_half(params, keys, labels):
    """Images of the toy world; `params` is how bright the wrong half is."""
    rows = jnp.arange(3)[None, :, None, None]
    right = jnp.where(labels[:, None, None, None] == 0, rows == 0, rows == 2)
    return jnp.broadcast_to(jnp.where(right, 0.5, params), (len(labels), 3, 3, 1))


@pytest.fixture
def experiment(toy, classifier):
    reference = make_reference("toy/train", pixels, toy.image)
    return ToyExperiment(
        samplers=(ToySampler("one", 1, bright_half), ToySampler("two", 2, bright_half)),
        num_classes=2,
        restore=lambda workdir, average, step: ({"raw": -0.9, "ema": -0.6}[average], step or 300),
        judge=lambda batches: judge(batches, references=[reference], classifier=classifier),
    )


def test_rows_hold_all_that_a_number_depends_on(experiment, tmp_path):
    rows = evaluate(experiment, tmp_path, n=21, seed=5, average="ema", batch_size=8)
    assert [(row["sampler"], row["metric"]) for row in rows[:2]] == [("one", "fd_pixels_21"), ("one", "kid_pixels_21")]
    assert {(row["sampler"], row["nfe"]) for row in rows} == {("one", 1), ("two", 2)}
    for row in rows:
        assert (row["n"], row["step"], row["seed"], row["average"]) == (21, 300, 5, "ema")
    assert list(rows[0])[:4] == ["metric", "value", "nfe", "step"]
    agreement = next(row for row in rows if row["metric"] == "label_agreement_21")
    assert agreement["value"] == 1.0


def test_rows_are_appended_to_the_workdir(experiment, tmp_path):
    first = evaluate(experiment, tmp_path, n=21, seed=5, average="ema", batch_size=8)
    second = evaluate(
        experiment, tmp_path, n=21, seed=5, average="raw", batch_size=8, samplers=experiment.samplers[1:], step=100
    )
    assert read_rows(tmp_path / "metrics.jsonl") == first + second
    assert {(row["sampler"], row["average"], row["step"]) for row in second} == {("two", "raw", 100)}
    assert second[0]["value"] != first[0]["value"]


def test_the_batch_size_does_not_matter(experiment, tmp_path):
    runs = [evaluate(experiment, tmp_path, n=21, seed=5, average="ema", batch_size=size) for size in (4, 21)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a["value"], b["value"], rtol=1e-10)


def test_a_finished_sampler_keeps_its_rows(experiment, tmp_path):
    broken = ToySampler("broken", 4, lambda params, keys, labels: bright_half(params, keys, labels) * jnp.nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluate(
            experiment,
            tmp_path,
            n=21,
            seed=5,
            average="ema",
            batch_size=21,
            samplers=[*experiment.samplers[:1], broken],
        )
    assert {row["sampler"] for row in read_rows(tmp_path / "metrics.jsonl")} == {"one"}


def test_no_sampler(experiment, tmp_path):
    with pytest.raises(ValueError, match="no sampler"):
        evaluate(experiment, tmp_path, n=21, seed=5, average="ema", batch_size=8, samplers=[])
