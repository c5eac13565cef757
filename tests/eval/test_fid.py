import json
import sys

import numpy as np
import pytest
from PIL import Image

from eval.features import pixels
from eval.fid import main
from eval.images import write_samples
from eval.real import make_reference
from eval.reference_files import write_reference
from eval.rows import read_rows

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
    judged_average: str = "ema"
    judged_samples: int = 12


def restore(workdir, average, step):
    if not (workdir / "checkpoints").is_dir():
        raise FileNotFoundError(f"{workdir} holds no checkpoint")
    return 0.5, 100 if step is None else step


def build(config):
    def sample(params, keys, labels):
        return params * vmap(lambda key: random.normal(key, (config.side, config.side, 1)))(keys)

    def judge(batches):
        images = np.concatenate([images for images, _ in batches])
        return [{"metric": f"mean_{len(images)}", "value": float(images.mean()), "n": len(images)}]

    return Experiment((Sampler("one", 1, sample), Sampler("four", 4, sample)), 0, restore, judge)
"""


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILE)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    values = {"config_file": str(tmp_path / "config.py"), "config": {"side": 4}, "version": "0.1.0"}
    (run / "run.json").write_text(json.dumps(values))
    return run


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (60, 3, 3, 1)).astype(np.uint8)


def error_of(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_a_run_is_rebuilt_judged_and_shown(workdir, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert main(["--workdir", str(workdir), "--seed", "7", "--out", str(out)]) == 0
    rows = read_rows(out)
    assert rows == read_rows(workdir / "metrics.jsonl")
    assert [(row["sampler"], row["nfe"], row["step"], row["seed"], row["n"]) for row in rows] == [
        ("one", 1, 100, 7, 12),
        ("four", 4, 100, 7, 12),
    ]
    assert "four" in capsys.readouterr().out


def test_options_choose_sampler_weights_and_step(workdir):
    assert main(["--workdir", str(workdir), "--n", "4", "--nfe", "4", "--average", "raw", "--step", "50"]) == 0
    rows = read_rows(workdir / "metrics.jsonl")
    assert [(row["sampler"], row["average"], row["step"]) for row in rows] == [("four", "raw", 50)]


def test_what_is_missing_is_named(workdir, tmp_path, capsys):
    assert "absent: no such folder" in error_of(capsys, "--workdir", tmp_path / "absent")
    assert "takes 3 network evaluations; there are [1, 4]" in error_of(capsys, "--workdir", workdir, "--nfe", 3)
    assert "n is 0" in error_of(capsys, "--workdir", workdir, "--n", 0)
    (workdir / "checkpoints").rmdir()
    assert "holds no checkpoint" in error_of(capsys, "--workdir", workdir)
    (workdir / "run.json").unlink()
    assert "run.json is missing" in error_of(capsys, "--workdir", workdir)
    assert not (workdir / "metrics.jsonl").exists()


def test_two_paths(images, tmp_path, capsys):
    write_samples(tmp_path / "samples.npz", images[:30])
    folder = tmp_path / "real"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03d}.png")
    reference = make_reference("noise/train", pixels, images)
    write_reference(tmp_path / "reference.npz", reference, preprocessing="none")
    values = []
    for real in (folder, tmp_path / "reference.npz"):
        out = tmp_path / f"{real.stem}.jsonl"
        assert main([str(tmp_path / "samples.npz"), str(real), "--out", str(out)]) == 0
        assert "samples.npz" in capsys.readouterr().out
        values.append({row["metric"]: row["value"] for row in read_rows(out)})
    assert values[0]["fd_pixels_30"] == values[1]["fd_pixels_30"] > 0
    assert values[0]["precision_pixels_30"] == 1.0
    assert list(values[1]) == ["fd_pixels_30", "constant_images_30"]


def test_bad_paths(images, tmp_path, capsys):
    write_samples(tmp_path / "a.npz", images[:9])
    write_samples(tmp_path / "b.npz", images[:, :2])
    write_samples(tmp_path / "c.npz", images)
    a, b, c = (tmp_path / f"{name}.npz" for name in "abc")
    assert "9 samples for 9 dimensions" in error_of(capsys, a, c)
    assert main([str(a), str(c), "--allow-few"]) == 0
    assert "biased upward" in capsys.readouterr().out
    assert "(3, 3, 1), the real images" in error_of(capsys, a, b)
    assert "no such npz file" in error_of(capsys, a, tmp_path / "absent")
    assert "a.npz exists" in error_of(capsys, c, c, "--out", a)
    for arguments in ([], [a], [a, b, "--workdir", tmp_path]):
        assert "either --workdir, or two paths" in error_of(capsys, *arguments)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_run_against_another_reference(workdir, images, tmp_path, capsys):
    write_samples(tmp_path / "real.npz", np.tile(images, (1, 2, 2, 1))[:, :4, :4])
    out = tmp_path / "rows.jsonl"
    arguments = ["--workdir", str(workdir), "--n", "40", "--reference", str(tmp_path / "real.npz"), "--nfe", "4"]
    assert main([*arguments, "--measures", "coverage", "--keep", "20", "--out", str(out)]) == 0
    rows = {row["metric"]: row for row in read_rows(out)}
    measures = ("fd", "kid", "precision", "recall", "density", "coverage")
    assert list(rows) == [*(f"{measure}_pixels_40" for measure in measures), "constant_images_40"]
    assert rows["fd_pixels_40"].items() >= {"sampler": "four", "step": 100, "reference_n": 60, "n": 40}.items()


def test_features_need_a_reference_and_must_exist(workdir, images, tmp_path, capsys):
    write_samples(tmp_path / "a.npz", images)
    a = tmp_path / "a.npz"
    assert "need --reference" in error_of(capsys, "--workdir", workdir, "--features", "inception")
    told = error_of(capsys, "--workdir", workdir, "--measures", "coverage")
    assert "--measures coverage needs --reference" in told
    told = error_of(capsys, a, "--features", "lpips_vgg", "--weights", tmp_path / "absent.npz")  # samples alone
    assert "absent.npz" in told
    assert "no features 'pixel'; there are pixels" in error_of(capsys, a, a, "--features", "pixel")
    assert "no data set: tensorflow_datasets knows no 'cifar01'" in error_of(capsys, a, "cifar01")
    assert "did you mean digits?" in error_of(capsys, a, "digit")


def test_options_that_would_do_nothing_are_refused(images, tmp_path, capsys):
    write_samples(tmp_path / "a.npz", images)
    a = tmp_path / "a.npz"
    for name, value in (("--resize", "tf1"), ("--weights", "w.npz")):
        assert f"{name} {value} is of a network" in error_of(capsys, a, a, name, value)
    for name, value in (("--n", "20"), ("--average", "ema"), ("--step", "1"), ("--nfe", "1"), ("--reference", "b")):
        assert f"{name} is of a run" in error_of(capsys, a, a, name, value)
    for name, value, least in (("--keep", "-1", 0), ("--batch-size", "0", 1), ("--size", "0", 1)):
        with pytest.raises(SystemExit):
            main([str(a), str(a), name, value])
        assert f"must be at least {least}, got {value}" in capsys.readouterr().err


def test_a_data_set_by_its_name(tmp_path, capsys):
    images = np.random.RandomState(0).randint(0, 256, (80, 8, 8, 1)).astype(np.uint8)
    write_samples(tmp_path / "samples.npz", images, np.arange(80, dtype=np.int32) % 10)
    out = tmp_path / "rows.jsonl"
    assert main([str(tmp_path / "samples.npz"), "digits", "--split", "held_out", "--out", str(out)]) == 0
    assert read_rows(out)[0].items() >= {"reference": "digits/held_out", "reference_n": 355, "n": 80}.items()
