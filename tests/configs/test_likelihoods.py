"""A flow whose network has not been trained yet is 0 everywhere: noise is data, and likelihoods are those of noise."""

import jax
import numpy as np
import pytest

import train
from configs import digits_rectified_flow
from configs.likelihoods import likelihood
from data import digits
from eval.likelihood import main
from eval.rows import read_rows
from samplers import sample_keys


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = digits_rectified_flow.get_config()
    config.update({"steps": 0, "width": 16, "depth": 1, "heads": 2})
    path = tmp_path_factory.mktemp("runs") / "flow"
    train.write_record(path, train.Record("configs/digits_rectified_flow.py", config.to_dict()))
    train.fit(digits_rectified_flow.build(config), path)
    return path


def expected(images, indices, seed):
    """Of a standard normal density, at levels with uniform noise of their width."""
    keys = sample_keys(seed, indices)
    shift = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], minval=-0.5, maxval=0.5))(keys)
    x = (images.astype(np.float64) + np.asarray(shift)) / 127.5 - 1
    nats = np.mean(x**2 / 2 + np.log(2 * np.pi) / 2, axis=(1, 2, 3))
    return nats / np.log(2) + np.log2(127.5)


@pytest.mark.parametrize("estimated", [True, False])
def test_bits_of_an_untrained_flow_are_those_of_noise(workdir, estimated):
    found = likelihood(workdir, solver_steps=2, estimated=estimated, seed=3)
    images, labels = digits().image[:7], np.asarray(digits().label)[:7]
    indices = np.arange(10, 17, dtype=np.int32)
    np.testing.assert_allclose(found.bits(images, labels, indices), expected(images, indices, 3), rtol=1e-5)
    assert (found.shape, found.num_classes, found.facts["nfe"], found.facts["end"]) == ((8, 8, 1), 10, 4, 1e-3)


def test_the_command_appends_a_row(workdir, capsys):
    arguments = ["--workdir", str(workdir), "--data", "digits", "--split", "held_out", "--solver-steps", "2"]
    assert main([*arguments, "--n", "30", "--batch-size", "8"]) == 0
    (row,) = read_rows(workdir / "metrics.jsonl")
    values = expected(digits("held_out").image[:30], np.arange(30, dtype=np.int32), 0)
    assert row["metric"] == "bits_per_dimension_30"
    assert row["value"] == pytest.approx(values.mean(), rel=1e-5)
    assert row["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(30), rel=1e-3)
    assert row.items() >= {"data": "digits/held_out", "step": 0, "nfe": 4, "n": 30, "dequantisation": "uniform"}.items()
    assert "heun 2, estimated divergence" in capsys.readouterr().out


def test_what_is_refused(workdir, tmp_path, capsys):
    for arguments, message in (
        (["--workdir", tmp_path / "absent", "--data", "digits", "--split", "all"], "absent: no such folder"),
        (["--workdir", workdir, "--data", "digits", "--split", "some"], "no split 'some'"),
        (["--workdir", workdir, "--data", "digits", "--split", "all", "--n", "1"], "at least two images, got 1"),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        assert message in capsys.readouterr().err
