"""A run that distils or tunes another takes that one's weights and functions, and refuses one that does not fit."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import guiding, teachers
from losses import conversions, cosine, edm, linear, scaled, trig
from samplers.noise import initial
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import check, restore_average, trace_loss
from train.state import check_initial

TOLD_MORE = (
    *("cifar10_ctm", "digits_ctm", "imagenet64_ctm"),
    *("digits_lcm", "digits_scm_guided", "imagenet512_scm_distillation", "mnist_latent_lcm"),
    *("imagenet256_scm_distillation", "imagenet256_ayf"),
    *("digits_tcd", "mnist_latent_tcd"),
)
OTHERS = ("digits_lcm", "digits_rectified_flow")  # teachers that are no diffusion models
STUDENTS = [name for name, (teacher, _) in made_up.TEACHERS.items() if teacher not in OTHERS]


def refused(name, workdir, message, error=ValueError, **changes):
    with pytest.raises(error, match=message):
        module(name).build(small(name, teacher_run=str(workdir), **changes))


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_a_run_starts_from_the_averaged_weights_of_its_teacher(name, runs):
    teacher, changes = made_up.TEACHERS[name]
    workdir = runs(teacher, **changes)
    experiment = module(name).build(small(name, teacher_run=str(workdir)))
    assert experiment.initial is not None
    initial = experiment.initial()
    check_initial(initial, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    said = module(teacher)
    average = (said.diffusion if hasattr(said, "diffusion") else said.flow)(small(teacher, **changes)).average
    expected, _ = restore_average(workdir, average)
    # What is learned beside the network starts afresh, and so do the layers of a guidance scale or a second time.
    ours, theirs = (
        dict(jax.tree_util.tree_leaves_with_path(tree.get("network", tree))) for tree in (initial, expected)
    )
    assert bool(ours.keys() - theirs.keys()) == (name in TOLD_MORE)
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf)


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", ["cifar10_edm", "cifar10_trigflow", "imagenet64_edm2"])
def test_a_teacher_is_one_denoiser_on_every_path(name, runs):
    classes = made_up.CLASSES if name.startswith("imagenet") else 0
    teacher = teachers.teacher(str(runs(name)), shape=made_up.SHAPE, num_classes=classes, sigma_data=0.5)
    labels = jnp.arange(2) if teacher.diffusion.num_classes else None
    on_path = partial(teacher.diffusion.on_path, teacher.params(), labels)
    x, sigma = jax.random.normal(jax.random.key(0), (2, *made_up.SHAPE)), jnp.array([0.3, 2.0])
    expected = on_path(edm)(x, sigma)
    for path, t in ((cosine, 2 / jnp.pi * jnp.arctan(sigma)), (scaled(trig, 0.5), jnp.arctan(sigma / 0.5))):
        alpha = path.alpha(t)[:, None, None, None]
        np.testing.assert_allclose(on_path(path)(alpha * x, t), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("cifar10_ect", "cifar10_trigflow"),
        ("cifar10_ect", "cifar10_rectified_flow"),
        ("cifar10_scm_training", "cifar10_rectified_flow"),
        ("cifar10_scm_training", "cifar10_edm"),
        ("imagenet64_ect", "imagenet64_trigflow"),
        ("imagenet64_scm_training", "imagenet64_edm2"),
    ],
)
def test_what_networks_output_and_how_they_are_built_is_told_apart(student, teacher, runs):
    """The weights fit and mean another function: other signs, times, embeddings and norms."""
    folder = runs(teacher, bfloat16=False)
    experiment = module(student).build(small(student, teacher_run=str(folder)))
    sigma = 0.5 * np.tan(1.56455) if "scm" in student else 80.0
    classes = made_up.CLASSES if "imagenet" in student else 0
    taught = teachers.teacher(str(folder), shape=made_up.SHAPE, num_classes=classes, sigma_data=0.5)
    keys, labels = jax.random.split(jax.random.key(0), 2), jnp.arange(2)
    D = taught.diffusion.on_path(taught.params(), labels if classes else None, edm)
    expected = D(sigma * initial(keys, made_up.SHAPE), jnp.full(2, sigma))
    assert experiment.initial is not None
    found = jax.jit(experiment.samplers[0].sample)(experiment.initial(), keys, labels)
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_dropout_of_a_trajectory_model_is_no_idle_value(runs):
    def loss(dropout):
        config = small("cifar10_ctm", teacher_run=str(runs("cifar10_edm")), dropout=dropout)
        return check(module("cifar10_ctm").build(config)).scalars["loss"]

    assert loss(0.0) != loss(0.5)


# Recipes that the papers start at random.


def test_multistep_consistency_is_trained_without_a_teacher_too():
    experiment = module("digits_multistep").build(small("digits_multistep"))
    trace_loss(experiment, next(experiment.batches(0)), None)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("teacher", ["cifar10_edm", "cifar10_trigflow", "cifar10_rectified_flow"])
def test_a_velocity_starts_as_that_of_any_teacher(teacher, runs):
    config = small("cifar10_rectified_flow", teacher_run=str(runs(teacher)))
    flow, start = (
        module("cifar10_rectified_flow").flow(config),
        module("cifar10_rectified_flow").build(config).initial(),
    )
    taught = teachers.teacher(config.teacher_run, shape=made_up.SHAPE, num_classes=0, sigma_data=0.5)
    x, t = jax.random.normal(jax.random.key(0), (3, *made_up.SHAPE)), jnp.array([0.02, 0.5, 0.98])
    D = taught.diffusion.on_path(taught.params(), None, linear)
    expected = conversions.denoiser_to_velocity(linear, D)(x, t)
    np.testing.assert_allclose(flow.velocity(start, None)(x, t), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    ("name", "teacher", "changes"),
    [
        ("cifar10_ct", "cifar10_edm", {"ncsnpp": True}),
        ("cifar10_ict", "cifar10_edm", {"ncsnpp": True}),
        ("cifar10_vct_ict", "cifar10_edm", {"ncsnpp": True}),
        ("imagenet64_ct", "imagenet64_edm", {}),
        ("cifar10_consistency_fm", "cifar10_rectified_flow", {}),
        ("cifar10_mean_flow", "cifar10_edm", {}),
        ("imagenet256_mean_flow", "imagenet256_sit", {"patch": 4}),
    ],
)
def test_other_recipes_start_from_a_teacher_too(name, teacher, changes, runs):
    workdir = runs(teacher, **changes)
    experiment = module(name).build(small(name, teacher_run=str(workdir)))
    assert experiment.initial is not None
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    expected, _ = restore_average(workdir, "ema")
    ours = dict(jax.tree_util.tree_leaves_with_path(start.get("network", start)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        np.testing.assert_array_equal(ours[path], leaf)


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_mean_flow_learns_from_where_edm_left_off(runs):
    run = small("cifar10_mean_flow", teacher_run=str(runs("cifar10_edm")))
    facts = check(module("cifar10_mean_flow").build(run))
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


def test_images_of_ones_own_tune_a_trained_network(runs, tmp_path, small_data):
    path = made_up.images_file(tmp_path)
    run = {"path": str(path), "teacher_run": str(runs("cifar10_edm", class_conditional=True))}
    experiment = module("own_images").build(small("own_images", **run))
    assert experiment.initial is not None
    check_initial(experiment.initial(), jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    with pytest.raises(ValueError, match="has num_classes 0, this run 10"):
        module("own_images").build(small("own_images", path=str(path), teacher_run=str(runs("cifar10_edm"))))


@pytest.mark.usefixtures("small_data")
def test_a_teacher_of_other_data_is_refused_with_both_values(runs):
    workdir = runs("cifar10_trigflow")
    refused("cifar10_scm_training", workdir, "num_classes 0, this run 10", class_conditional=True)
    refused("cifar10_scm_training", workdir, r"sigma_data 0\.5, this run 0\.4", sigma_data=0.4)
    for shape in ((16, 16, 3), (8, 8, 1)):
        with pytest.raises(ValueError, match=re.escape(f"shape (8, 8, 3), this run {shape}")):
            teachers.teacher(str(workdir), shape=shape, num_classes=0, sigma_data=0.5)


@pytest.mark.usefixtures("small_data")
def test_a_teacher_of_another_network_is_refused_where_it_starts(runs):
    config = small("cifar10_ect", teacher_run=str(runs("cifar10_edm", channels=16)))
    experiment = module("cifar10_ect").build(config)
    abstract = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    assert experiment.initial is not None
    with pytest.raises(ValueError, match="are not those of this network"):
        check_initial(experiment.initial(), abstract)


def test_a_guided_student_refuses_another_network_by_its_leaves(runs):
    config = small("digits_scm_guided", teacher_run=str(runs("digits_teacher", width=32)))
    experiment = module("digits_scm_guided").build(config)
    assert experiment.initial is not None
    with pytest.raises(ValueError, match=r"\['mlp0'\]\['bias'\]: given float32\[1, 128\], network float32\[1, 64\]"):
        experiment.initial()


@pytest.mark.usefixtures("small_data")
def test_a_run_that_is_no_diffusion_model_is_refused_by_name(runs):
    refused(
        "cifar10_scm_training",
        runs("cifar10_ect"),
        r"is of cifar10_ect\.py, which does not train a diffusion model or a flow",
    )
    flow = runs("digits_rectified_flow")
    refused("digits_scm", flow, r"predicts otherwise than this run's")


@pytest.mark.usefixtures("small_data")
def test_guidance_needs_a_teacher_that_saw_the_null_class(runs):
    workdir = runs("imagenet64_trigflow")
    refused("imagenet64_scm_distillation", workdir, r"guidance 1\.5 needs .* label_dropout", guidance=1.5)
    module("imagenet64_scm_distillation").build(small("imagenet64_scm_distillation", teacher_run=str(workdir)))
    with pytest.raises(ValueError, match=r"class-conditional network, got scale 1\.5"):
        guiding.classifier_free(lambda labels: lambda x, t: x, None, num_classes=10, scale=1.5)


@pytest.mark.usefixtures("small_data")
def test_a_workdir_without_a_run_or_a_checkpoint_says_which(runs, tmp_path):
    refused("cifar10_ect", tmp_path / "nowhere", "nowhere: no such folder", FileNotFoundError)
    refused("cifar10_ect", tmp_path, r"run\.json is missing", FileNotFoundError)
    (tmp_path / "run.json").write_text(json.dumps({"config_file": "configs/cifar10_edm.py"}))
    refused("cifar10_ect", tmp_path, "lacks config")
    shutil.copy(runs("cifar10_edm") / "run.json", tmp_path)
    experiment = module("cifar10_ect").build(small("cifar10_ect", teacher_run=str(tmp_path)))
    assert experiment.initial is not None
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nothing was trained there yet"):
        experiment.initial()


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(
    "name", [name for name in STUDENTS if "distil" in name or name.endswith(("cd", "_guided", "_ctm", "_pcm", "_lcm"))]
)
def test_without_a_teacher_a_distillation_can_be_built_and_says_what_it_lacks(name):
    experiment = module(name).build(small(name))
    with pytest.raises(ValueError, match=r"needs a trained diffusion model: .*--config\.teacher_run=DIR"):
        experiment.frozen()
