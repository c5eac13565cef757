"""Every config builds and trains, shrunken to a network of a few channels and a few steps."""

import ast
import importlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import data
from train import check, fit, make_mesh, make_step, place_state

CONFIGS = Path(__file__).parents[2] / "configs"
SHARED = ("__init__", "cifar10", "glue")  # not runs
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in SHARED)

SMALL: dict[str, Any] = {
    "steps": 12,
    "batch_size": 8,
    "channels": 8,
    "blocks": 1,
    "width": 16,
    "depth": 1,
    "judged_samples": 16,
}
# Curricula that would not fit into twelve steps, and data that is not here.
SPECIAL: dict[str, dict[str, Any]] = {
    "own_images": {"multipliers": (1, 1)},
    "cifar10_ict": {"s1": 20},
    "cifar10_ect": {"stage_steps": 2},
}


def module(name: str):
    return importlib.import_module(f"configs.{name}")


def made_up_images(folder: Path) -> Path:
    path = folder / "images.npz"
    image = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    np.savez(path, image=image, label=np.arange(32) % 3)
    return path


def small_config(name: str, tmp_path: Path) -> ConfigDict:
    config = module(name).get_config()
    if name == "own_images":
        config.path = str(made_up_images(tmp_path))
    for field, value in (SMALL | SPECIAL.get(name, {})).items():
        if field in config:
            config[field] = value
    return config


@pytest.fixture(autouse=True)
def made_up_cifar10(monkeypatch):
    """CIFAR-10 cannot be downloaded by a test; images of its shape can be made."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 3), np.uint8)
    labels = np.arange(64, dtype=np.int32) % 10
    made_up = data.ArraySource("made_up", images, labels, num_classes=10)
    monkeypatch.setattr(data, "tfds_source", lambda name, **options: made_up)


def test_the_names_are_those_of_the_readme():
    table = (CONFIGS / "README.md").read_text()
    assert {name for name in NAMES if f"({name}.py)" in table} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_holds_plain_values_and_says_how_it_is_run(name):
    config = module(name).get_config()
    plain = (bool, int, float, str, tuple)
    assert all(isinstance(value, plain) for value in config.to_dict().values())
    docstring = ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())) or ""
    assert f"python main.py --config configs/{name}.py --workdir runs/{name}" in docstring


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_config_takes_steps_on_its_data(name, tmp_path):
    facts = check(module(name).build(small_config(name, tmp_path)))
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0
    assert facts.parameters > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_of_a_config_draws_images_each_from_its_own_key(name, tmp_path):
    experiment = module(name).build(small_config(name, tmp_path))
    params = experiment.init(jax.random.key(0))
    shape = experiment.fingerprint["shape"]
    keys = jax.random.split(jax.random.key(1), 3)
    labels = jax.numpy.arange(3) % max(experiment.num_classes, 1)
    sampler = experiment.samplers[0]
    images = jax.jit(sampler.sample)(params, keys, labels)
    assert images.shape == (3, *shape)
    assert images.dtype == np.float32
    again = jax.jit(sampler.sample)(params, keys[::-1], labels[::-1])
    np.testing.assert_allclose(again[::-1], images, rtol=1e-5, atol=1e-5)
    assert len({sampler.nfe for sampler in experiment.samplers}) == len(experiment.samplers)


@pytest.mark.slow
def test_the_whole_digits_run_with_every_stage_of_its_curriculum_compiles_once(tmp_path):
    config = small_config("digits", tmp_path)
    config.steps = 2 * config.stages
    experiment, mesh = module("digits").build(config), make_mesh()
    traces = []

    def counted(*inputs):
        traces.append(1)
        return experiment.objective(*inputs)

    step = make_step(experiment._replace(objective=counted), mesh)
    state, batches = place_state(experiment, mesh), experiment.batches(0)
    distances = []
    for _ in range(config.steps):
        state, scalars = step(state, next(batches), None)
        distances.append(float(scalars["distance"]))
    assert len(traces) == 1
    assert np.isfinite(distances).all()


@pytest.mark.slow
def test_ect_starts_from_the_weights_of_another_run(tmp_path):
    config = small_config("cifar10_edm", tmp_path)
    config.steps = 2
    teacher = module("cifar10_edm").build(config)._replace(judged_samples=0)
    fit(teacher, tmp_path)
    config = small_config("cifar10_ect", tmp_path)
    config.initial_run = str(tmp_path)
    init = module("cifar10_ect").build(config).init(jax.random.key(5))
    expected, _ = teacher.restore(tmp_path, "ema", None)
    for a, b in zip(jax.tree.leaves(init), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
