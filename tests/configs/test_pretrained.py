"""A converted checkpoint is sampled, judged, distilled and gone on from as a run of ours is."""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import eval as evaluation
import train
from configs import cifar10, flows, imagenet256, pretrained, teachers
from losses import conversions, edm, linear
from models import DiT, ddpmpp, ncsnpp, preconditioning
from models.embeddings import fourier
from models.pretrained import convert, write
from models.pretrained.stable_autoencoder import read_autoencoder
from samplers import grids, heun
from samplers.noise import initial
from tests.configs.made_up import SHAPE, autoencoder_folder, module, small
from tests.configs.made_up import images as made_up_images
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


def test_a_diffusion_model_is_sampled_by_heun(tmp_path):
    folder, case, params = folder_of(tmp_path, "ddpmpp", steps=3)
    experiment, images = draw(folder)
    assert (experiment.num_classes, experiment.samplers[0].nfe) == (5, 5)
    D = preconditioning.edm(lambda x, t: case.module.apply({"params": params}, x, t, LABELS), 0.5)
    velocity = conversions.denoiser_to_velocity(edm, D)
    expected = jax.jit(lambda z: heun(velocity, 80 * z, grids.karras(3)))(initial(KEYS, SHAPE))
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["consistency_models", "ctm", "ctm_imagenet64", "guided_diffusion", "sit"])
def test_every_kind_is_sampled(name, tmp_path):
    folder, case, _ = folder_of(tmp_path, name, steps=2)
    _, images = draw(folder)
    assert images.shape == (2, *case.settings.get("shape", SHAPE))
    assert np.isfinite(images).all()


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


def test_a_weaker_network_guides(tmp_path):
    """By a scale of 1 it changes nothing; by 0 samples are its own."""
    folder, case, params = folder_of(tmp_path, "sit", steps=2)
    other = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    path = written.write_state_dict(tmp_path / "weaker.pt", checkpoints.tensors(case, other))
    write(tmp_path / "weaker", convert(path, **case.given), path)
    weaker = json.loads((tmp_path / "weaker" / "run.json").read_text())
    weaker["config"]["steps"] = 2
    (tmp_path / "weaker" / "run.json").write_text(json.dumps(weaker))
    run = json.loads((folder / "run.json").read_text())
    for scale, expected in ((1.0, draw(folder)), (0.0, draw(tmp_path / "weaker"))):
        run["config"] |= {"weaker_run": str(tmp_path / "weaker"), "autoguidance": scale}
        (folder / "run.json").write_text(json.dumps(run))
        experiment, images = draw(folder)
        assert experiment.samplers[0].nfe == 6
        np.testing.assert_allclose(images, expected[1], rtol=1e-3, atol=1e-3)
    (tmp_path / "other").mkdir()
    pixels, _, _ = folder_of(tmp_path / "other", "ddpmpp")
    run["config"]["weaker_run"] = str(pixels)
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"weaker network in .* has shape"):
        evaluation.load_experiment(folder)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """A folder of diffusers, for latents of half the side of their images."""
    return autoencoder_folder(tmp_path_factory.mktemp("vae"))


def decoder(folder) -> tuple[Any, Any]:
    return read_autoencoder(folder)


def test_latents_are_decoded_where_there_is_an_autoencoder(autoencoder, tmp_path):
    folder, _, _ = folder_of(tmp_path, "sit", steps=2)
    _, z = draw(folder)
    run = json.loads((folder / "run.json").read_text())
    run["config"]["autoencoder"] = str(autoencoder)
    (folder / "run.json").write_text(json.dumps(run))
    _, images = draw(folder)
    assert images.shape == (2, 16, 16, 3)
    network, variables = decoder(autoencoder)
    expected = network.apply(variables, jnp.asarray(z) / 0.18215, method="decode")
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)


def test_edm2s_latents_are_decoded_by_its_own_convention(autoencoder):
    scale, bias = (0.1, 0.2, 0.3, 0.4), (0.5, -0.5, 1.0, 0.0)
    examples = {"scale": scale, "bias": bias, "autoencoder_range": (0.0, 1.0)}
    settings = {"shape": (4, 4, 4), "num_classes": 0, "examples": examples}
    space = pretrained.space(ConfigDict({"settings": settings, "autoencoder": str(autoencoder)}))
    z = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    seen = z * jnp.asarray(scale) + jnp.asarray(bias)
    network, variables = decoder(autoencoder)
    in_unit_range = network.apply(variables, z, method="decode")
    np.testing.assert_allclose(space.decode(variables, seen), 2 * in_unit_range - 1, rtol=1e-3, atol=1e-3)


def test_an_autoencoder_of_other_latents_is_refused(autoencoder, tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp", autoencoder=str(autoencoder))
    with pytest.raises(ValueError, match=r"has latents of 4 channels, this network has examples of \(8, 8, 3\)"):
        evaluation.load_experiment(folder)


def test_a_judge_of_features(monkeypatch, tmp_path):
    """Those that are asked for by name in run.json, against the images there."""
    asked: dict[str, Any] = {}

    def features(names, **options):
        asked.update(names=tuple(names), **options)
        return (evaluation.pixels._replace(name="inception", resize="tf1"),), ()

    monkeypatch.setattr(pretrained.judging, "features", features)
    images = np.random.default_rng(0).integers(0, 256, (200, *SHAPE), np.uint8)
    evaluation.write_samples(tmp_path / "images.npz", images)
    changes = {"images": str(tmp_path / "images.npz"), "features": ["inception"], "feature_weights": "FILE"}
    folder, _, _ = folder_of(tmp_path, "ddpmpp", **changes)
    (row, *_) = evaluation.load_experiment(folder).judge([(images, np.arange(200) % 5)])
    assert asked == {"names": ("inception",), "weights": "FILE"}
    assert (row["metric"], row["reference_n"]) == ("fid_tf1_200", 200)
    assert abs(row["value"]) < 1e-3


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


def student_checkpoint(tmp_path, config, form, kind="edm", preconditioning="edm", **more):
    """A state dict of EDM's of a student's own network, with layers for augmentation labels."""
    student: Any = cifar10.unet(form, config).clone(**more)
    network = {"unet": "song", "resolution": 8, "multipliers": student.multipliers}
    frequencies = student.noise_embedding.keywords.get("frequencies")
    network |= {"resample_filter": student.resample_filter, "residual_encoder": student.residual_encoder}
    settings = {"network": network | {"frequencies": frequencies}, "call": {"kind": kind}}
    given = {"preconditioning": preconditioning}
    case = checkpoints.Case("edm", student.clone(augment_features=9), settings, given)
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


@pytest.mark.usefixtures("small_data")
def test_distillation_takes_the_frequencies_of_its_teacher(tmp_path):
    config = small("cifar10_cd")
    own = (0.125, -3.0, 2.5, 7.0, 0.75, -1.5, 4.0, 9.0)
    theirs = {"noise_embedding": partial(fourier, frequencies=own)}
    folder, _ = student_checkpoint(tmp_path, config, ncsnpp, **theirs)
    facts: dict[str, Any] = {"shape": SHAPE, "num_classes": 0, "sigma_data": 0.5}
    with pytest.raises(ValueError, match="embeds noise levels in its own way"):
        teachers.teacher(str(folder), **facts)
    teacher = teachers.teacher(str(folder), **facts, takes_own=True)
    model = teachers.embedding_noise_as(teacher, cifar10.unet(ncsnpp, config))
    assert model.noise_embedding.keywords["frequencies"] == own

    # Student and teacher are one function at first: bare outputs agree where the student's are those of its start.
    experiment = module("cifar10_cd").build(small("cifar10_cd", teacher_run=str(folder)))
    params = experiment.initial()
    x, sigma = jax.random.normal(jax.random.key(0), (2, *SHAPE)), jnp.array([0.5, 3.0])
    D = preconditioning.edm(lambda x, t: model.apply({"params": params}, x, t), 0.5)(x, sigma)
    np.testing.assert_allclose(teacher.diffusion.on_path(params, None, edm)(x, sigma), D, rtol=1e-6)


X, SIGMAS = jax.random.normal(jax.random.key(0), (3, *SHAPE)), jnp.array([0.02, 0.5, 20.0])


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_a_denoiser_of_another_form_starts_a_student_as_it_is(kind, tmp_path):
    config = small("cifar10_ect")
    folder, _ = student_checkpoint(tmp_path, config, ddpmpp, kind, kind)
    with pytest.raises(ValueError, match=r"predicts in its own way, .* students in EDM's form can"):
        teachers.teacher(str(folder), shape=SHAPE, num_classes=0, sigma_data=0.5)
    teacher = cifar10.teacher(small("cifar10_ect", teacher_run=str(folder)), made_up_images(), takes_own=True)
    experiment = module("cifar10_ect").build(small("cifar10_ect", teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    F = teachers.network_of(teacher, cifar10.unet(ddpmpp, config), 0.5)
    D = preconditioning.edm(F(start, None), 0.5)(X, SIGMAS)
    np.testing.assert_allclose(D, teacher.diffusion.on_path(start, None, edm)(X, SIGMAS), rtol=1e-4, atol=1e-4)
    # What the student computes at its data's end is data, also of this network.
    f = preconditioning.consistency(F(start, None), 0.5)
    np.testing.assert_array_equal(f(X, jnp.zeros(3)), X)


def test_steps_alone_and_a_variance_beside_the_noise(tmp_path):
    """Guided diffusion: six outputs, of which a student has three, and levels that it knows alone."""
    folder, case, params = folder_of(tmp_path, "guided_diffusion")
    teacher = teachers.teacher(str(folder), shape=SHAPE, num_classes=5, sigma_data=0.5, takes_own=True)
    student: Any = case.module
    model = teachers.embedding_noise_as(teacher, student.clone(out_channels=0))
    start, labels = teacher.params(), jnp.arange(3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X, SIGMAS, labels))
    check_initial(start, shapes["params"])
    sigma = jnp.asarray(checkpoints.levels(), jnp.float32)[jnp.array([10, 400, 900])]
    noise = student.apply(
        {"params": params}, X / jnp.sqrt(1 + sigma**2)[:, None, None, None], jnp.array([10.0, 400, 900]), labels
    )
    expected = X - sigma[:, None, None, None] * noise[..., :3]
    found = preconditioning.edm(teachers.network_of(teacher, model, 0.5)(start, labels), 0.5)(X, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_data")
def test_a_consistency_model_is_gone_on_from_and_not_followed(tmp_path):
    folder, params = student_checkpoint(tmp_path, small("cifar10_ect"), ddpmpp, "consistency", "ecm")
    experiment = module("cifar10_ect").build(small("cifar10_ect", teacher_run=str(folder)))
    del params["map_augment"]
    jax.tree.map(np.testing.assert_array_equal, experiment.initial(), params)
    with pytest.raises(ValueError, match="is a consistency model: it jumps to data and has no denoiser"):
        module("cifar10_cd").build(small("cifar10_cd", teacher_run=str(folder)))


def test_what_jumps_to_every_level_is_no_start_of_a_denoiser(tmp_path):
    folder, _, _ = folder_of(tmp_path, "ctm")
    with pytest.raises(ValueError, match="which does not train a diffusion model"):
        teachers.teacher(str(folder), shape=SHAPE, num_classes=5, sigma_data=0.5, takes_own=True)


def test_a_flow_points_to_noise(tmp_path):
    folder, case, params = folder_of(tmp_path, "sit")
    ode = flows.read(folder)
    assert (ode.path, ode.shape, ode.num_classes, ode.average) == (linear, (8, 8, 4), 5, "params")
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([0.25, 0.75])
    loaded, _ = train.restore_average(folder, ode.average)
    theirs = case.module.apply({"params": params}, x, 1 - t, LABELS)[..., :4]  # SiT's time is 1 at data
    np.testing.assert_allclose(ode.velocity(ode.network(loaded), LABELS)(x, t), -theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", ["imagenet256_sit", "imagenet256_mean_flow", "imagenet256_shortcut"])
def test_a_flow_of_another_program_starts_ours(name, tmp_path):
    """SiT's weights with its time turned round and without its variance are ours."""
    config = small(name, bfloat16=False)
    space = imagenet256.space(config)
    channels, classes = space.source.shape[-1], space.source.num_classes
    shape = {field: config[field] for field in ("patch", "width", "depth", "heads")}
    theirs: Any = DiT(**shape, num_classes=classes, out_channels=2 * channels)
    settings = {"network": shape, "shape": space.source.shape}
    case = checkpoints.Case("dit", theirs, settings, {"program": "sit", "heads": config.heads})
    params = checkpoints.params_of(case)
    path = written.write_state_dict(tmp_path / "sit.pt", checkpoints.tensors(case, params))
    write(tmp_path / "sit", convert(path, **case.given), path)

    run = {"teacher_run": str(tmp_path / "sit"), "bfloat16": False}
    experiment = module(name).build(small(name, **run))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    x, t = jax.random.normal(jax.random.key(0), (2, *space.source.shape)), jnp.array([0.25, 0.75])
    plain = {**start, "conditioning": {part: start["conditioning"][part] for part in ("t", "labels")}}
    found = theirs.clone(out_channels=0).apply({"params": plain}, x, t, LABELS)
    expected = -theirs.apply({"params": params}, x, 1 - t, LABELS)[..., :channels]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=rf"another network: width {config.width} there, {2 * config.width} here"):
        module(name).build(small(name, **run, width=2 * config.width))
