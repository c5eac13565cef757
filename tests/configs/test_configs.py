"""Every config builds and trains, shrunken to a network of a few channels and images of eight pixels."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import imagenet
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import check, count_parameters, make_mesh, make_step, place_state

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = (
    "adapters",
    "aligning",
    "ctm",
    "flow_maps",
    "flows",
    "guided_scm",
    "mean_flows",
    "stable",
    "stable_discriminator",
    "trajectories",
    "vct",
)
CONVERTED = (
    "pretrained",
    *(f"pretrained_{kind}" for kind in ("consistency", "diffusion", "flow", "trajectory", "weights")),
)
JOINTS = (
    "adaptive_steps",
    "digits_rewards",
    "distances",
    "forms",
    "feature_networks",
    "glue",
    "guiding",
    "in_parts",
    "judged",
    "judges",
    "judging",
    "latents",
    "likelihoods",
    "odes",
    "rewards",
    "teachers",
    "trained_models",
)
DATA = (
    "cifar10",
    "digits_students",
    "imagenet",
    "imagenet256",
    "imagenet256_flow_maps",
    "imagenet256_rewards",
    "imagenet512",
    "mnist",
    "mnist_latents",
)
SHARED = ("__init__", *METHODS, *JOINTS, *DATA, *CONVERTED)  # not runs
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in SHARED)
TUNED = tuple(f"imagenet256_{name}" for name in ("adjoint_matching", "continuous_adjoint", "draft"))
# The others take theirs in test_stable.py and in test_imagenet256_rewards.py.
STEPPED = [name for name in NAMES if not name.startswith("stable") and name not in TUNED]
PUBLISHED = [name for name in NAMES if name.startswith(("cifar10", "imagenet", "latents", "stable"))]
SIZED = [name for name in PUBLISHED if "\nSIZES = " in (CONFIGS / f"{name}.py").read_text()]


def built(name, tmp_path, runs):
    """The shrunken experiment, with a teacher of its kind where it takes one, and parameters that are not zero."""
    config = small(name)
    if name in ("own_images", "diffusers_autoencoder"):
        config.path = str(made_up.images_file(tmp_path))
    if name == "diffusers_autoencoder":
        config.weights = str(made_up.autoencoder_folder(tmp_path))
    if name in made_up.TEACHERS:
        teacher, changes = made_up.TEACHERS[name]
        config.teacher_run = str(runs(teacher, **changes))
    experiment = module(name).build(config)
    if experiment.initial is None:
        experiment = experiment._replace(initial=lambda: made_up.params(experiment))
    return experiment


def docstring(name):
    return ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())) or ""


# ---- Every config ----------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_readme():
    table = (CONFIGS / "README.md").read_text()
    assert {name for name in NAMES if f"({name}.py)" in table} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_holds_plain_values_and_says_how_it_is_run(name):
    plain = (bool, int, float, str, tuple)
    assert all(isinstance(value, plain) for value in module(name).get_config().to_dict().values())
    command = " ".join(docstring(name).replace("\\", " ").split())
    assert f"python main.py --config configs/{name}.py --workdir runs/{name}" in command
    assert name not in PUBLISHED or "Ours: not run" in command


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", STEPPED)
def test_a_config_takes_steps_on_its_data(name, tmp_path, runs):
    facts = check(built(name, tmp_path, runs))
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_of_a_config_gives_images(name, tmp_path, runs):
    experiment = built(name, tmp_path, runs)
    keys = jax.random.split(jax.random.key(1), 3)
    params = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    for sampler in experiment.samplers:
        images = jax.eval_shape(sampler.sample, params, keys, jax.numpy.zeros(3, int))
        assert images.shape == (3, *experiment.fingerprint["shape"])
        assert images.dtype == np.float32
    # A cost names a sampler, and where the guidance scale or the noise is chosen, both do.
    names = {(sampler.nfe, *re.findall(", (?:guidance|gamma) .*", sampler.name)) for sampler in experiment.samplers}
    assert len(names) == len(experiment.samplers)


# One for each function that draws: consistency, Heun, DDIM, Euler, EDM's stochastic sampler, guided Heun.
@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("digits", 1),
        ("digits_edm", 0),
        ("digits_teacher", 1),
        ("digits_rectified_flow", 1),
        ("imagenet64_edm", 1),
        ("imagenet512_trigflow", 0),
    ],
)
def test_images_are_drawn_each_from_its_own_key(name, number, tmp_path, runs):
    experiment = built(name, tmp_path, runs)
    params, sampler = experiment.initial(), experiment.samplers[number]
    keys, labels = jax.random.split(jax.random.key(1), 3), jax.numpy.arange(3)
    sample = jax.jit(sampler.sample)
    images = sample(params, keys, labels)
    again = sample(params, keys[::-1], labels[::-1])
    np.testing.assert_allclose(again[::-1], images, rtol=1e-4, atol=1e-4)
    assert np.abs(images[0] - images[1]).max() > 0.01


@pytest.mark.slow
def test_a_guided_student_starts_alike_at_every_scale_and_learns_to_differ(tmp_path, runs):
    experiment = built("digits_scm_guided", tmp_path, runs)
    keys, labels = jax.random.split(jax.random.key(1), 3), jax.numpy.arange(3)
    one_step = [jax.jit(sampler.sample) for sampler in experiment.samplers if sampler.nfe == 1]
    params = experiment.initial()
    first, *others = (sample(params, keys, labels) for sample in one_step)
    for images in others:
        np.testing.assert_array_equal(images, first)

    step, batches = make_step(experiment, make_mesh()), experiment.batches(0)
    state = place_state(experiment, make_mesh())
    for _ in range(2):
        state, _ = step(state, next(batches), experiment.frozen())
    first, *others = (sample(state.params, keys, labels) for sample in one_step)
    for images in others:
        assert np.abs(images - first).max() > 1e-5


@pytest.mark.slow
def test_the_whole_digits_run_with_every_stage_of_its_curriculum_compiles_once():
    config = small("digits")
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


# ---- Sizes -----------------------------------------------------------------------------------------------------------

# Millions of parameters as published: EDM's and EDM2's tables and code, the table of sCM's appendix, and the text of
# Multistep Consistency Models.
MILLIONS = [
    ("cifar10_edm", "", 55.7),
    ("cifar10_cd", "", 56.4),  # EDM's NCSN++
    ("cifar10_ect", "", 55.7),
    ("cifar10_reflow", "", 55.7),
    ("cifar10_rectified_flow", "", 61.8),  # DDPM++ of Song et al. 2021
    ("cifar10_consistency_fm", "", 61.8),
    ("cifar10_mean_flow", "", 55),  # "about 55 M" in MeanFlow's paper, from memory
    ("stable_lcm", "", 859.5),
    ("imagenet256_shortcut", "B", 130.0),  # those of DiT
    ("imagenet256_shortcut", "XL", 675.0),
    ("imagenet256_imm", "", 675.0),
    ("imagenet256_ilct", "B", 130.0),
    ("imagenet256_improved_mean_flow_sit", "B", 131.0),
    ("imagenet256_draft", "B", 130),
    ("imagenet256_sit", "S", 33),
    ("imagenet256_sit", "B", 130),
    ("imagenet256_sit", "L", 458),
    ("imagenet256_sit", "XL", 675),
    # MeanFlow's table from memory; DiT's and another embedding of a time.
    ("imagenet256_mean_flow", "B/4", 131),
    ("imagenet256_mean_flow", "B/2", 131),
    ("imagenet256_mean_flow", "M/2", 308),
    ("imagenet256_mean_flow", "L/2", 459),
    ("imagenet256_mean_flow", "XL/2", 676),
    *((f"imagenet256_{name}", "XL", 675) for name in ("lsd", "esd", "psd", "ayf")),  # SiT's and another embedding
    *((f"imagenet256_{name}", "B", 130) for name in ("lsd", "ayf")),
    ("imagenet256_lsd", "S", 33),
    ("imagenet256_lsd", "L", 458),
    ("imagenet64_edm", "", 295.9),
    ("imagenet64_cd", "", 295.9),
    ("imagenet64_cosine", "", 394.0),
    ("imagenet64_multistep_training", "", 394.0),
    ("imagenet64_multistep_distillation", "", 394.0),
    ("imagenet64_multistep_adm", "", 295.9),
    ("imagenet64_edm2", "S", 280.2),
    ("imagenet64_edm2", "M", 497.8),
    ("imagenet64_edm2", "L", 777.6),
    ("imagenet64_edm2", "XL", 1119.4),
    ("imagenet64_ect", "S", 280.2),
    ("imagenet64_scm_training", "S", 280.2),
    ("imagenet64_scm_training", "XL", 1119.4),
]


@pytest.mark.parametrize(("name", "size", "millions"), MILLIONS)
def test_a_network_has_as_many_parameters_as_the_published_one(name, size, millions):
    config = module(name).get_config(size) if size else module(name).get_config()
    assert count_parameters(module(name).build(config)) == pytest.approx(millions * 1e6, rel=0.02)


@pytest.mark.parametrize(("name", "millions"), [("cifar10_ctm", 55.7), ("imagenet64_ctm", 295.9)])
def test_the_network_of_ctm_is_its_teachers_and_a_branch_as_large_as_that_of_t(name, millions):
    experiment = module(name).build(module(name).get_config())
    sizes = {"": 0, "map_layer": 0, "affine": 0, "map_layer_s": 0, "affine_s": 0}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda: experiment.init(jax.random.key(0)))):
        layer = re.sub(r"\d", "", next((key.key for key in path if re.match("map_layer|affine", key.key)), ""))
        sizes[layer] += leaf.size
    branch = sizes["map_layer_s"] + sizes["affine_s"]
    assert branch == sizes["map_layer"] + sizes["affine"]
    assert sum(sizes.values()) - branch == pytest.approx(millions * 1e6, rel=0.001)


@pytest.mark.parametrize("name", SIZED)
def test_a_size_changes_the_published_values_and_nothing_else(name):
    get_config, sizes = module(name).get_config, module(name).SIZES
    assert get_config().to_dict() == get_config("S").to_dict()
    for size, values in sizes.items():
        config = get_config(size)
        assert config.channels == {"S": 192, "M": 256, "L": 320, "XL": 384, "XXL": 448}[size]
        assert {field: config[field] for field in values} == values
        assert config.to_dict().keys() == get_config().to_dict().keys()


@pytest.mark.parametrize("name", SIZED)
def test_a_size_that_was_not_published_is_refused_with_those_that_were(name):
    with pytest.raises(ValueError, match=f"size is 'Q', this run is published in {', '.join(module(name).SIZES)}"):
        module(name).get_config("Q")


# ---- Data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_data_a_run_can_be_built_and_says_what_it_lacks(name, tmp_path):
    config = module(name).get_config()
    config.data_dir = str(tmp_path)
    experiment = module(name).build(config)
    assert experiment.fingerprint["length"] == 0
    with pytest.raises(FileNotFoundError, match=r"is not here: .*(--config\.(data=FOLDER|data_dir|pairs)|latents)"):
        check(experiment)


@pytest.mark.usefixtures("small_data")
def test_imagenet_is_read_from_a_folder_or_a_file_and_must_be_whole(tmp_path, monkeypatch):
    config = small("imagenet64_edm", tfds="", data=str(made_up.images_file(tmp_path)))
    assert len(imagenet.images(config)) == 64
    config.data = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        imagenet.images(config)[0]
    monkeypatch.setattr(imagenet, "CLASSES", 11)
    config.data, config.tfds = "", "imagenet"
    with pytest.raises(ValueError, match=r"made_up has images of \(8, 8, 3\) and 10 classes, .* \(8, 8, 3\) and 11"):
        imagenet.images(config)
    monkeypatch.setattr(imagenet, "SHAPE", (64, 64, 3))
    with pytest.raises(ValueError, match=r"images of \(8, 8, 3\) .* needs \(64, 64, 3\)"):
        imagenet.images(config)


@pytest.mark.usefixtures("small_data")
def test_an_unconditional_model_of_labelled_images_sees_no_labels():
    for conditional, keys in ((False, {"image"}), (True, {"image", "label"})):
        experiment = module("cifar10_edm").build(small("cifar10_edm", class_conditional=conditional))
        batch = experiment.prepare(jax.random.key(0), jax.tree.map(jax.numpy.asarray, next(experiment.batches(0))))
        assert set(batch) == keys
        assert experiment.num_classes == (made_up.CLASSES if conditional else 0)


# ---- The command line ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_check_prints_a_run_of_another_size_before_it_misses_the_data():
    command = [sys.executable, "main.py", "--mode=check", "--config", "configs/imagenet64_edm2.py:XL"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=CONFIGS.parent, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 1
    lines = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert lines == ["config", "data", "parameters"]
    assert "channels = 384" in done.stdout
    assert float(done.stdout.split()[-1].replace(",", "")) == pytest.approx(1119.4e6, rel=0.02)
    assert done.stderr.startswith("error: imagenet64 is not here: give --config.data=FOLDER")
