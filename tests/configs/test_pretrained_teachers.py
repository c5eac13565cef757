"""A converted checkpoint teaches students of every form, and they start as it is."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from configs import cifar10, forms, imagenet256, odes, teachers
from losses import edm, linear
from models import ddpmpp, ncsnpp, preconditioning
from models.embeddings import fourier
from models.pretrained import convert, write
from samplers.noise import initial
from tests.configs.converted import LARGEST, backwards, folder_of, silent, student_checkpoint, transformer
from tests.configs.made_up import CLASSES, LATENT_SHAPE, SHAPE, module, small
from tests.configs.made_up import images as made_up_images
from tests.models.pretrained import made_up as checkpoints
from train.state import check_initial

KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)


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
    teacher = teachers.teacher(str(folder), **facts)
    model = teachers.built_as(teacher, cifar10.unet(ncsnpp, config))
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
    with pytest.raises(ValueError, match=r"predicts otherwise than this run's, which cannot start from its weights"):
        teachers.teacher(str(folder), shape=SHAPE, num_classes=0, sigma_data=0.5, form=forms.EDM)
    teacher = cifar10.teacher(small("cifar10_ect", teacher_run=str(folder)), made_up_images())
    experiment = module("cifar10_ect").build(small("cifar10_ect", teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    F = teachers.network_of(teacher, cifar10.unet(ddpmpp, config), 0.5)
    D = preconditioning.edm(F(start, None), 0.5)(X, SIGMAS)
    np.testing.assert_allclose(D, teacher.diffusion.on_path(start, None, edm)(X, SIGMAS), rtol=1e-4, atol=1e-4)
    # What the student computes at its data's end is data, also of this network.
    f = preconditioning.consistency(F(start, None), 0.5)
    np.testing.assert_array_equal(f(X, jnp.zeros(3)), X)


FLOWS = (
    *("sit", "mean_flow", "shortcut", "lsd", "esd", "psd", "ayf"),
    *("adjoint_matching", "continuous_adjoint", "draft"),
)
KINDS = (("edm", "edm"), ("vp", "vp"), ("ve", "ve"), ("discrete", "iddpm"))
STUDENTS = ("cifar10_scm_training", "cifar10_scm_distillation", "cifar10_vct", "cifar10_ctm")


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_a_student_of_every_form_draws_at_first_as_its_teacher_denoises(kind, given, name, tmp_path):
    """In one step from noise alone."""
    folder, _ = student_checkpoint(tmp_path, small("cifar10_ect"), ddpmpp, kind, given)
    experiment = module(name).build(small(name, teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    # What is learned beside, or told more than the teacher is, shall not count.
    teacher = teachers.teacher(str(folder), shape=SHAPE, num_classes=0, sigma_data=0.5)
    given_to_it = dict(jax.tree_util.tree_leaves_with_path(teacher.params()))
    network = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if path in given_to_it else jnp.zeros_like(leaf), start["network"]
    )
    encoder = jax.tree.map(jnp.zeros_like, start.get("encoder", {}))
    (one, *_) = experiment.samplers
    found = jax.jit(one.sample)({**start, "network": network, "encoder": encoder}, KEYS, None)
    sigma = LARGEST if "scm" in name else 80.0
    D = teacher.diffusion.on_path(teacher.params(), None, edm)
    x = sigma * initial(KEYS, SHAPE)
    expected = D(x, jnp.full(len(KEYS), sigma))
    assert jnp.abs(expected).max() > 0.01
    expected += 0.002 / sigma * (x - expected) if name == "cifar10_ctm" else 0.0  # which jumps to 0.002
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_continuous_time_follows_a_teacher_of_every_form(kind, given, tmp_path):
    folder, _ = student_checkpoint(tmp_path, small("cifar10_ect"), ddpmpp, kind, given)
    run = small("cifar10_scm_distillation", teacher_run=str(folder))
    facts = train.check(module("cifar10_scm_distillation").build(run))
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("program", ["sit", "repa", "dit"])
def test_transformers_teach_in_continuous_time(program, tmp_path):
    """At first the student draws what its teacher denoises, at every scale of guidance, and then it learns."""
    run: dict[str, Any] = {"bfloat16": False}
    config = small("imagenet256_scm_distillation", **run)
    folder, _ = transformer(tmp_path, config, program)
    run["teacher_run"] = str(folder)
    experiment = module("imagenet256_scm_distillation").build(small("imagenet256_scm_distillation", **run))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    shape = imagenet256.space(config).source.shape
    teacher = teachers.teacher(str(folder), shape=shape, num_classes=10, sigma_data=1.0)
    sigma = np.tan(1.56455)
    D = teacher.diffusion.on_path(teacher.params(), LABELS, edm)
    expected = D(sigma * initial(KEYS, shape), jnp.full(len(KEYS), sigma))
    found = jax.jit(experiment.samplers[0].sample)(start, KEYS, LABELS)
    assert jnp.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


def edm2(tmp_path, name, num_classes):
    """A folder of an EDM2 of latents, of the shape of our students."""
    told: dict[str, Any] = {"multipliers": (1,), "attention_resolutions": (16, 8)}
    path, _ = checkpoints.edm2_snapshot(tmp_path / name, shape=LATENT_SHAPE, num_classes=num_classes, **told)
    write(tmp_path / f"{name}_run", convert(path), path)
    return tmp_path / f"{name}_run"


@pytest.mark.usefixtures("small_data")
def test_edm2_is_distilled_guided_against_a_network_without_classes(tmp_path):
    name = "imagenet512_scm_distillation"
    folder = edm2(tmp_path, "conditional", CLASSES)
    with pytest.raises(ValueError, match=r"guidance 2\.0 needs a teacher trained with label_dropout"):
        module(name).build(small(name, teacher_run=str(folder)))
    guiding = edm2(tmp_path, "unconditional", 0)
    with pytest.raises(ValueError, match=rf"has num_classes {CLASSES}, this run 0"):
        module(name).build(small(name, teacher_run=str(folder), guiding_run=str(folder)))
    experiment = module(name).build(small(name, teacher_run=str(folder), guiding_run=str(guiding)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    frozen = experiment.frozen()
    assert "emb_label" in frozen["teacher"]
    assert "emb_label" not in frozen["reference"]
    like = experiment.frozen_like()
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), frozen, like)

    teacher = teachers.teacher(str(folder), shape=LATENT_SHAPE, num_classes=CLASSES, sigma_data=0.5)
    D = teacher.diffusion.on_path(teacher.params(), LABELS, edm)
    expected = D(LARGEST * initial(KEYS, LATENT_SHAPE), jnp.full(len(KEYS), LARGEST))
    found = jax.jit(experiment.samplers[0].sample)(start, KEYS, LABELS)
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


def test_steps_alone_and_a_variance_beside_the_noise(tmp_path):
    """Guided diffusion: six outputs, of which a student has three, and levels that it knows alone."""
    folder, case, params = folder_of(tmp_path, "guided_diffusion")
    teacher = teachers.teacher(str(folder), shape=SHAPE, num_classes=5, sigma_data=0.5)
    student: Any = case.module
    model = teachers.built_as(teacher, student.clone(out_channels=0))
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
    with pytest.raises(ValueError, match=r"is a trajectory model's, told two times, .* --config\.start_run"):
        teachers.teacher(str(folder), shape=SHAPE, num_classes=5, sigma_data=0.5)


def test_a_flow_points_to_noise(tmp_path):
    folder, case, params = folder_of(tmp_path, "sit")
    ode = odes.read(folder)
    assert (ode.path, ode.shape, ode.num_classes, ode.average) == (linear, (8, 8, 4), 5, "params")
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([0.25, 0.75])
    loaded, _ = train.restore_average(folder, ode.average)
    theirs = case.module.apply({"params": params}, x, 1 - t, LABELS)[..., :4]  # SiT's time is 1 at data
    np.testing.assert_allclose(ode.velocity(ode.network(loaded), LABELS)(x, t), -theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("name", [f"imagenet256_{name}" for name in FLOWS])
def test_a_flow_of_another_program_starts_ours(name, tmp_path):
    """SiT's weights with its time turned round and without its variance are ours."""
    config = small(name, bfloat16=False)
    space = imagenet256.space(config)
    channels = space.source.shape[-1]
    folder, (theirs, params) = transformer(tmp_path, config, "sit")

    run = {"teacher_run": str(folder), "bfloat16": False}
    experiment = module(name).build(small(name, **run))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    x, t = jax.random.normal(jax.random.key(0), (2, *space.source.shape)), jnp.array([0.25, 0.75])
    network = start.get("network", start)
    plain = {**network, "conditioning": {part: network["conditioning"][part] for part in ("t", "labels")}}
    found = theirs.clone(out_channels=0).apply({"params": plain}, x, t, LABELS)
    expected = -theirs.apply({"params": params}, x, 1 - t, LABELS)[..., :channels]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=rf"another network: width {config.width} there, {2 * config.width} here"):
        module(name).build(small(name, **run, width=2 * config.width))


@pytest.mark.usefixtures("small_data")
def test_a_flow_of_another_program_starts_imm_in_its_own_units(tmp_path):
    """A jump is at first a step along the velocity of the flow, of a network to which s says nothing."""
    name, units = "imagenet256_imm", {"bfloat16": False, "sigma_data": 1.0, "time_scale": 1.0}
    config = small(name, **units)
    source = imagenet256.space(config).source
    folder, (theirs, params) = transformer(tmp_path, config, "sit")
    run = {**units, "teacher_run": str(folder), "guidance": 1.0}
    experiment = module(name).build(small(name, **run))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))

    (one, *_) = experiment.samplers
    found = jax.jit(one.sample)(silent(start), KEYS, LABELS)
    t = jnp.full(len(KEYS), 0.994)
    x_t = t[0] * initial(KEYS, source.shape)
    v = backwards(theirs, params, "sit")(x_t, t, LABELS)
    np.testing.assert_allclose(found, x_t - t[0] * v, rtol=1e-4, atol=1e-5)
    facts = train.check(experiment)
    assert facts.scalars["gradient_norm"] > 0

    for wrong, said in (
        ("sigma_data", r"sigma_data is 0\.5, a flow's noise has size 1"),
        ("time_scale", r"time_scale 1\.0 there, 1000\.0 here"),
    ):
        published = {wrong: module(name).get_config()[wrong]}
        with pytest.raises(ValueError, match=said):
            module(name).build(small(name, **run | published))


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("program", ["sit", "repa"])
def test_a_flow_of_another_program_starts_both_heads_of_improved_mean_flow(program, tmp_path):
    """u and v are at first the flow's velocity, at every scale of guidance, of a network to which s says nothing."""
    name = "imagenet256_improved_mean_flow_sit"
    config = small(name, bfloat16=False)
    source = imagenet256.space(config).source
    folder, (theirs, params) = transformer(tmp_path, config, program)
    experiment = module(name).build(small(name, bfloat16=False, teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))

    (one, *_) = experiment.samplers
    found = jax.jit(one.sample)(silent(start), KEYS, LABELS)
    x = initial(KEYS, source.shape)
    v = backwards(theirs, params, program)(x, jnp.ones(len(KEYS)), LABELS)
    assert jnp.abs(v).max() > 0.01
    np.testing.assert_allclose(found, x - v, rtol=1e-4, atol=1e-5)

    kernel = start["final"]["kernel"].reshape(-1, config.patch**2, 2, source.shape[-1])
    np.testing.assert_array_equal(kernel[:, :, 0], kernel[:, :, 1])
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("program", ["sit", "repa", "dit"])
def test_a_transformer_of_another_program_starts_ilct_that_sees_half_of_its_latents(program, tmp_path):
    """In one step from noise alone it draws what the network denoises, from twice the noise."""
    name = "imagenet256_ilct"
    config = small(name, bfloat16=False)
    folder, _ = transformer(tmp_path, config, program)
    experiment = module(name).build(small(name, bfloat16=False, teacher_run=str(folder)))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    shape = imagenet256.space(config).source.shape
    teacher = teachers.teacher(str(folder), shape=shape, num_classes=CLASSES, sigma_data=1.0)
    D = teacher.diffusion.on_path(teacher.params(), LABELS, edm)
    x = 160 * initial(KEYS, shape)
    expected = D(x, jnp.full(len(KEYS), 160.0))
    found = jax.jit(experiment.samplers[0].sample)(start, KEYS, LABELS)  # decoded, which is whole latents here
    assert jnp.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())

    batch = jax.tree.map(jnp.asarray, next(experiment.batches(0)))
    seen = experiment.prepare(jax.random.key(0), batch)["image"]
    whole = module("imagenet256_sit").build(small("imagenet256_sit")).prepare(jax.random.key(0), batch)["image"]
    np.testing.assert_allclose(seen, whole / 2, rtol=1e-6)
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0
