"""A converted checkpoint is sampled, judged, distilled and gone on from as a run of ours is."""

import json
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eval as evaluation
import train
from configs import cifar10, flows, teachers
from losses import conversions, edm, linear
from models import ddpmpp, ncsnpp, preconditioning
from models.embeddings import fourier
from models.pretrained import convert, write
from samplers import grids, heun
from samplers.noise import initial
from tests.configs.made_up import SHAPE, module, small
from tests.models.pretrained import made_up as checkpoints
from tests.models.pretrained import written
from train.state import check_initial


def folder_of(tmp_path, name, **changes):
    """A made-up checkpoint, converted, with other values in its run.json; the case, and the parameters."""
    path, case, params = checkpoints.write(tmp_path / "file.pt", name)
    folder = tmp_path / "converted"
    write(folder, convert(path, **case.given), path)
    run = json.loads((folder / "run.json").read_text())
    run["config"] |= changes
    (folder / "run.json").write_text(json.dumps(run))
    return folder, case, params


KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)


def draw(folder, number=0):
    experiment = evaluation.load_experiment(folder)
    assert isinstance(experiment, evaluation.run.Experiment)
    params, step = experiment.restore(folder, experiment.judged_average, None)
    assert step == 0
    return experiment, np.asarray(jax.jit(experiment.samplers[number].sample)(params, KEYS, LABELS))


@pytest.mark.usefixtures("quick_compile")
def test_a_diffusion_model_is_sampled_by_heun(tmp_path):
    folder, case, params = folder_of(tmp_path, "ddpmpp", steps=3)
    experiment, images = draw(folder)
    assert (experiment.num_classes, experiment.samplers[0].nfe) == (5, 5)
    D = preconditioning.edm(lambda x, t: case.module.apply({"params": params}, x, t, LABELS), 0.5)
    velocity = conversions.denoiser_to_velocity(edm, D)
    expected = jax.jit(lambda z: heun(velocity, 80 * z, grids.karras(3)))(initial(KEYS, SHAPE))
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("name", ["consistency_models", "ctm", "guided_diffusion", "sit"])
def test_every_kind_is_sampled(name, tmp_path):
    folder, case, _ = folder_of(tmp_path, name, steps=2)
    _, images = draw(folder)
    assert images.shape == (2, *case.settings.get("shape", SHAPE))
    assert np.isfinite(images).all()


@pytest.mark.usefixtures("quick_compile")
def test_guidance_moves_samples_and_needs_classes(tmp_path):
    folder, _, _ = folder_of(tmp_path, "sit", steps=2)
    _, plain = draw(folder)
    run = json.loads((folder / "run.json").read_text())
    run["config"]["guidance"] = 2.0
    (folder / "run.json").write_text(json.dumps(run))
    experiment, guided = draw(folder)
    assert experiment.samplers[0].nfe == 6
    assert np.abs(guided - plain).max() > 1e-3
    (tmp_path / "other").mkdir()
    other, _, _ = folder_of(tmp_path / "other", "ncsnpp", guidance=2.0)
    with pytest.raises(ValueError, match="needs a class-conditional network"):
        draw(other)


def test_only_its_own_weights_are_there(tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp")
    for average, step in (("ema", None), ("params", 3)):
        with pytest.raises(ValueError, match="has the average params of step 0 alone"):
            train.restore_average(folder, average, step)


def test_a_judge_needs_images(tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp")
    with pytest.raises(ValueError, match=r"give `images` in its run\.json"):
        evaluation.load_experiment(folder).judge(iter(()))
    images = np.random.default_rng(0).integers(0, 256, (200, *SHAPE), np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.arange(200) % 5)
    (tmp_path / "other").mkdir()
    folder, _, _ = folder_of(tmp_path / "other", "ddpmpp", images=str(tmp_path / "images.npz"))
    (row, *_) = evaluation.load_experiment(folder).judge([(images, np.arange(200) % 5)])
    assert row["metric"].startswith("fd_pixels")
    assert abs(row["value"]) < 1e-3


# ---- Teachers --------------------------------------------------------------------------------------------------------


def student_checkpoint(tmp_path, config, form, **more):
    """A state dict of EDM's of a student's own network, with layers for augmentation labels."""
    student: Any = cifar10.unet(form, config).clone(**more)
    network = {"unet": "song", "resolution": 8, "multipliers": student.multipliers}
    frequencies = student.noise_embedding.keywords.get("frequencies")
    network |= {"resample_filter": student.resample_filter, "residual_encoder": student.residual_encoder}
    settings = {"network": network | {"frequencies": frequencies}, "call": {"kind": "edm"}}
    case = checkpoints.Case("edm", student.clone(augment_features=9), settings, {"preconditioning": "edm"})
    params = checkpoints.params_of(case)
    path = written.write_state_dict(tmp_path / "edm.pt", checkpoints.tensors(case, params))
    write(tmp_path / "edm", convert(path, **case.given), path)
    return tmp_path / "edm", params


@pytest.mark.usefixtures("small_data")
def test_tuning_starts_from_a_published_diffusion_model(tmp_path):
    config = small("cifar10_ect")
    folder, params = student_checkpoint(tmp_path, config, ddpmpp)
    experiment = module("cifar10_ect").build(small("cifar10_ect", teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    assert "map_augment" in params
    del params["map_augment"]
    jax.tree.map(np.testing.assert_array_equal, start, params)


@pytest.mark.usefixtures("small_data", "quick_compile")
def test_distillation_takes_the_frequencies_of_its_teacher(tmp_path):
    config = small("cifar10_cd")
    own = (0.125, -3.0, 2.5, 7.0, 0.75, -1.5, 4.0, 9.0)
    theirs = {"noise_embedding": partial(fourier, frequencies=own)}
    folder, _ = student_checkpoint(tmp_path, config, ncsnpp, **theirs)
    facts: dict[str, Any] = {"shape": SHAPE, "num_classes": 0, "sigma_data": 0.5}
    with pytest.raises(ValueError, match="embeds noise levels in its own way"):
        teachers.teacher(str(folder), **facts)
    teacher = teachers.teacher(str(folder), **facts, takes_embedding=True)
    model = teachers.embedding_noise_as(teacher, cifar10.unet(ncsnpp, config))
    assert model.noise_embedding.keywords["frequencies"] == own

    # Student and teacher are one function at first: bare outputs agree where the student's are those of its start.
    experiment = module("cifar10_cd").build(small("cifar10_cd", teacher_run=str(folder)))
    params = experiment.initial()
    x, sigma = jax.random.normal(jax.random.key(0), (2, *SHAPE)), jnp.array([0.5, 3.0])
    D = preconditioning.edm(lambda x, t: model.apply({"params": params}, x, t), 0.5)(x, sigma)
    np.testing.assert_allclose(teacher.diffusion.on_path(params, None, edm)(x, sigma), D, rtol=1e-6)


def test_a_network_that_assumes_no_deviation_of_data_is_no_teacher(tmp_path):
    folder, _, _ = folder_of(tmp_path, "guided_diffusion")
    with pytest.raises(ValueError, match=re.escape("has sigma_data nan, this run 0.5")):
        teachers.teacher(str(folder), shape=SHAPE, num_classes=5, sigma_data=0.5)


@pytest.mark.usefixtures("quick_compile")
def test_a_flow_points_to_noise(tmp_path):
    folder, case, params = folder_of(tmp_path, "sit")
    ode = flows.read(folder)
    assert (ode.path, ode.shape, ode.num_classes, ode.average) == (linear, (8, 8, 4), 5, "params")
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([0.25, 0.75])
    loaded, _ = train.restore_average(folder, ode.average)
    theirs = case.module.apply({"params": params}, x, 1 - t, LABELS)[..., :4]  # SiT's time is 1 at data
    np.testing.assert_allclose(ode.velocity(loaded, LABELS)(x, t), -theirs, rtol=1e-4, atol=1e-4)
