"""main.py and eval.fid as a user meets them: a small run from start to finish, and everything that is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from modes.pictures import draws_pictures, told_apart
from tests.configs import made_up
from train import Sampler

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config.steps=30",
    "--config.width=16",
    "--config.depth=1",
    "--config.judged_samples=130",
    "--config.snapshot_every=10",
]


def run(*arguments: str, devices: int = 1) -> tuple[int, str]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    return done.returncode, done.stdout


def digits(*arguments: str, devices: int = 1) -> tuple[int, str]:
    return run("main.py", "--config", "configs/digits.py", *arguments, devices=devices)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "small"
    code, output = digits("--workdir", str(path), *SMALL)
    assert code == 0, output
    assert "images/s" in output
    assert "label" in output
    return path


def rows_of(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_leaves_rows_that_say_what_they_are_and_pictures(workdir):
    rows = rows_of(workdir)
    for nfe in (1, 2, 4):
        found = {row["metric"]: row for row in rows if row["nfe"] == nfe}
        assert {"fd_pixels_130", "label_agreement_130"} <= found.keys()
        row = found["fd_pixels_130"]
        assert row["value"] > 0
        expected = {"n": 130, "step": 30, "seed": 0, "average": "power_0.05", "reference_n": 1797}
        assert {key: row[key] for key in expected} == expected
        assert row["sampler"].startswith("consistency 80")
        assert found["label_agreement_130"]["held_out_accuracy"] > 0.95
    for picture in ("samples.png", "loss.png"):
        with Image.open(workdir / picture) as image:
            assert min(image.size) > 200
    assert [path.name for path in (workdir / "grids").iterdir()] == ["0000030.png"]
    record = json.loads((workdir / "run.json").read_text())
    assert (record["config_file"], record["config"]["steps"]) == ("configs/digits.py", 30)


@pytest.mark.slow
def test_a_finished_run_is_reported_and_not_judged_again(workdir):
    before = rows_of(workdir)
    code, output = digits("--workdir", str(workdir), *SMALL)
    assert code == 0, output
    assert "had finished at step 30" in output
    assert "agreement" in output
    assert rows_of(workdir) == before


@pytest.mark.slow
def test_samples_are_written_once_and_are_those_that_were_asked_for(workdir):
    command = ["main.py", "--workdir", str(workdir), "--mode=sample", "--n=25", "--nfe=2", "--seed=3"]
    code, output = run(*command)
    assert code == 0, output
    name = "samples_nfe2_step30_power_0.05_seed3_n25"
    with np.load(workdir / f"{name}.npz") as file:
        assert file["arr_0"].shape == (25, 8, 8, 1)
        assert file["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(file["arr_1"], np.arange(25) % 10)
    assert (workdir / f"{name}.png").exists()
    code, output = run(*command)
    assert code == 1
    assert "exists" in output
    assert "Traceback" not in output
    assert run(*command, "--overwrite")[0] == 0


@pytest.mark.slow
def test_evaluation_from_the_run_record_alone_agrees_with_the_end_of_training(workdir):
    wanted = [row for row in rows_of(workdir) if row["nfe"] == 1]
    code, output = run("-m", "eval.fid", "--workdir", str(workdir), "--n=130", "--nfe=1")
    assert code == 0, output
    again = rows_of(workdir)[-len(wanted) :]
    assert [row["metric"] for row in again] == [row["metric"] for row in wanted]
    assert [row["value"] for row in again] == pytest.approx([row["value"] for row in wanted], rel=1e-9)
    code, output = run("main.py", "--workdir", str(workdir), "--mode=eval", "--n=130", "--nfe=1", "--seed=1")
    assert code == 0, output
    assert rows_of(workdir)[-1]["seed"] == 1


@pytest.mark.slow
def test_an_average_of_another_length_is_mixed_after_training(workdir):
    code, output = run(
        "main.py", "--workdir", str(workdir), "--mode=sample", "--n=10", "--nfe=1", "--average=power:0.075"
    )
    assert code == 0, output
    assert (workdir / "samples_nfe1_step30_power_0.075_seed0_n10.npz").exists()


@pytest.mark.slow
def test_a_workdir_of_another_config_is_refused_with_what_differs(workdir):
    code, output = digits("--workdir", str(workdir), *SMALL, "--config.width=32")
    assert code == 1
    assert "holds a run of another config" in output
    assert "width: 16 there, 32 here" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_check_prints_the_run_and_writes_nothing(tmp_path):
    before = sorted(ROOT.iterdir())
    code, output = digits("--mode=check", "--workdir", str(tmp_path / "run"), *SMALL)
    assert code == 0, output
    for text in (
        "steps = 30",
        "devices     1 x cpu",
        "parameters",
        "MiB",
        "loss terms",
        "loss_t1",
        "nothing was written",
    ):
        assert text in output
    assert not (tmp_path / "run").exists()
    assert sorted(ROOT.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--config.stepz=5"], ["no such config value", 'Did you mean "steps"']),
        (["--config.steps=many"], ["--config.steps=many"]),
        (["--mode=trian"], ["unknown mode 'trian'", "did you mean train?"]),
        (["--config.grids=((80.0, 90.0),)"], ["times must fall from noise to data", "90"]),
        (["--config.grids=((80.0, -1.0),)"], ["times must stay above the end", "-1"]),
        (["--config.grids=((),)"], ["at least one time"]),
        (["--config.batch_size=0"], ["batch_size 0"]),
        (["--config.batch_size=2000"], ["batch_size is 2000", "1,797 examples"]),
        (["surplus"], ["unexpected arguments: surplus"]),
        (["--config.heads=3"], ["width=128 is not divisible by heads=3"]),
        (["--config.judged_samples=0"], ["judged_samples must be at least 1, got 0"]),
        (["--seed=1"], ["--seed is read by --mode=sample, eval, pairs and not by train; that of training"]),
    ],
)
def test_bad_values_are_refused_before_anything_is_trained(tmp_path, arguments, messages):
    code, output = digits("--workdir", str(tmp_path / "run"), *arguments)
    assert code != 0
    for message in messages:
        assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_untrained_network_is_judged_as_a_run_of_no_steps(tmp_path):
    workdir = tmp_path / "run"
    code, output = digits("--workdir", str(workdir), "--config.steps=0", "--config.judged_samples=100")
    assert code == 0, output
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {0}
    assert {path.name for path in workdir.glob("*.png")} == {"samples.png"}


@pytest.mark.slow
def test_a_size_that_is_not_published_is_refused(tmp_path):
    code, output = run("main.py", "--config", "configs/imagenet64_ect.py:Q", "--workdir", str(tmp_path / "run"))
    assert code == 1
    assert output.strip() == "error: size is 'Q', this run is published in S, M, L, XL"


@pytest.mark.slow
def test_a_batch_that_the_devices_do_not_divide_is_refused(tmp_path):
    code, output = digits("--workdir", str(tmp_path / "run"), "--config.batch_size=100", devices=8)
    assert code == 1
    assert "batch_size 100 is not divisible by 8 devices" in output
    assert "96 or 104" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_missing_data_set_says_where_it_was_looked_for(tmp_path):
    folder = tmp_path / "nowhere"
    code, output = run(
        "main.py",
        *("--config", "configs/cifar10_edm.py"),
        *("--workdir", str(tmp_path / "run")),
        f"--config.data_dir={folder}",
    )
    assert code == 1
    assert str(folder) in output
    assert "Traceback" not in output


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrays", "messages"),
    [
        ({"image": IMAGES.transpose(0, 3, 1, 2)}, ["expected (n, height, width, channels)", "channels first"]),
        ({"image": (IMAGES / 255).astype(np.float32)}, ["float32", "uint8"]),
        ({"image": IMAGES, "label": np.arange(40) - 1}, ["-1"]),
        ({"image": IMAGES, "label": np.arange(39)}, ["39", "40"]),
        ({"pictures": IMAGES}, ["pictures"]),
    ],
    ids=["channels first", "floats", "negative label", "too few labels", "other key"],
)
def test_bad_data_of_ones_own_are_refused_before_anything_is_trained(tmp_path, arrays, messages):
    np.savez(tmp_path / "mine.npz", **arrays)
    code, output = run(
        "main.py",
        *("--config", "configs/own_images.py"),
        *("--workdir", str(tmp_path / "run")),
        f"--config.path={tmp_path / 'mine.npz'}",
        "--config.batch_size=8",
    )
    assert code == 1
    for message in messages:
        assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=train"], "needs --workdir"),
        (["--mode=train", "--workdir=x"], "needs --config, one of configs/"),
        (["--mode=train", "--workdir=x", "--config=configs/nowhere.py"], "configs/nowhere.py: no such run"),
        (["--mode=train", "--workdir={trained}/run.json"], "run.json is a file; give the folder of a run"),
        (["--mode=sample", "--workdir={tmp}/nowhere"], "no such folder"),
        (["--mode=eval", "--workdir={tmp}"], "run.json is missing"),
        (["--mode=sample", "--workdir={untrained}"], "nothing was trained there yet"),
        (["--mode=sample", "--workdir={trained}", "--n=0"], "n is 0"),
        (["--mode=sample", "--workdir={trained}", "--nfe=3"], "no sampler with nfe 3; there are [1, 2, 4]"),
        (["--mode=sample", "--workdir={trained}", "--average=emma"], "no average 'emma'"),
        (["--mode=sample", "--workdir={trained}", "--step=7"], "no checkpoint of step 7"),
        (["--mode=pairs", "--workdir={trained}"], "needs --out, the folder of the pairs"),
        (["--mode=pairs", "--workdir={trained}", "--out={tmp}/o"], "trains no flow and no diffusion model"),
    ],
)
def test_what_is_missing_is_named(workdir, tmp_path, arguments, message):
    untrained = tmp_path / "untrained"
    untrained.mkdir()
    shutil.copy(workdir / "run.json", untrained)
    places = {"tmp": tmp_path, "untrained": untrained, "trained": workdir}
    code, output = run("main.py", *(argument.format(**places) for argument in arguments))
    assert code == 1
    assert message in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_teacher_of_another_network_is_refused_before_anything_is_trained(tmp_path):
    teacher = made_up.run(tmp_path / "teacher", "digits_teacher", width=32)
    options = ("--workdir", str(tmp_path / "run"), f"--config.teacher_run={teacher}")
    code, output = run("main.py", "--config", "configs/digits_ect.py", *options)
    assert code == 1
    assert "the parameters to start from are not those of this network:" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 8, 1), True), ((8, 8, 3), True), ((8, 8, 4), False), ((2,), False)]
)
def test_latents_are_no_pictures(shape, expected):
    def sample(params, keys, labels):
        return jnp.zeros((len(keys), *shape)) + params

    experiment = SimpleNamespace(samplers=(Sampler("zeros", 1, sample),))
    assert draws_pictures(experiment, 0.0) == expected  # type: ignore[arg-type]


def test_files_of_samplers_with_as_many_evaluations_are_told_apart():
    names = {"ddim 2": 2, "strategic 4, gamma 0": 4, "strategic 4, gamma 1": 4, "consistency 80, 0.8": 3}
    samplers = [Sampler(name, nfe, lambda params, keys, labels: keys) for name, nfe in names.items()]
    assert [told_apart(sampler, samplers) for sampler in samplers] == ["", "_gamma_0", "_gamma_1", ""]
