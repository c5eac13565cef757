"""Trajectory models, converted ones and earlier runs', are what others start from; and nothing else is."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from configs import cifar10, cifar10_ctm, ctm, flows, forms, imagenet64_ctm, odes, teachers
from configs.likelihoods import likelihood
from models.pretrained import convert, openai, write
from models.unet_blocks import group_norm
from tests.configs.made_up import SHAPE, images, module, small
from tests.models.pretrained import made_up as checkpoints
from tests.models.pretrained import written
from train import Record, fit, restore_average, write_record
from train.state import check_initial

pytestmark = pytest.mark.usefixtures("small_data")

CALL = {"kind": "trajectory"}


def student_of(config_module, config):
    """The network of a run without a teacher."""
    nobody = teachers.teacher("", shape=SHAPE, num_classes=0, sigma_data=0.5)
    return config_module.network(config, images(), nobody)


def converted(tmp_path, family, student: Any, settings, **given):
    """A folder of CTM's file of a student's own network, and its parameters."""
    case = checkpoints.Case(family, student, settings | {"call": CALL}, given)
    params = checkpoints.params_of(case)
    path = written.write_state_dict(tmp_path / "ctm.pt", checkpoints.tensors(case, params))
    write(tmp_path / "ctm", convert(path, **given), path)
    return tmp_path / "ctm", params


def of_cifar10(tmp_path, **changes):
    student = student_of(cifar10_ctm, small("cifar10_ctm", **changes)).model
    network = {"unet": "song", "resolution": 8, "multipliers": student.multipliers, "frequencies": None}
    network |= {"resample_filter": student.resample_filter, "residual_encoder": False}
    return converted(tmp_path, "edm", student, {"network": network})


def started(name, folder, **changes):
    experiment = module(name).build(small(name, start_run=str(folder), **changes))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    return start


def test_ctm_of_cifar10_goes_on(tmp_path):
    folder, params = of_cifar10(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, started("cifar10_ctm", folder)["network"], params)
    beside = started("cifar10_ctm", folder, adversarial_weight=1.0)
    jax.tree.map(np.testing.assert_array_equal, beside["network"], params)
    assert beside.keys() - {"network"}


def test_ctm_of_imagenet_goes_on_and_jumps_as_it_did(tmp_path):
    config = small("imagenet64_ctm", bfloat16=False)
    student = student_of(imagenet64_ctm, config).model
    network = {name: getattr(student, name) for name in ("multipliers", "blocks", "attention_resolutions")}
    network |= {"channels_per_head": config.channels_per_head, "resampling_blocks": True, "qkv": "qkv head dim"}
    settings = {"network": network | {"projection_axes": 4}, "shape": SHAPE}
    given = {"resolution": SHAPE[0], "channels_per_head": config.channels_per_head}
    folder, params = converted(tmp_path, "openai", student, settings, **given)
    start = started("imagenet64_ctm", folder, bfloat16=False)
    jax.tree.map(np.testing.assert_array_equal, start, params)

    # Noise levels reach it 1000 times as large as they reach a network of EDM's, and so few channels have more groups.
    going_on = student_of(imagenet64_ctm, small("imagenet64_ctm", bfloat16=False, start_run=str(folder)))
    x, labels = jax.random.normal(jax.random.key(0), (2, *SHAPE)), jnp.array([0, 1])
    t, s = jnp.array([0.8, 3.0]), jnp.array([0.1, 3.0])
    found = jax.jit(ctm.preconditioned(going_on, labels, 0.5)(start))(x, t, s)
    plain = student.clone(
        noise_embedding=lambda t: openai.sinusoidal(1000 * t, student.channels),
        norm=partial(group_norm, epsilon=1e-5, least=1),
    )
    expected = jax.jit(ctm.preconditioned(ctm.Student(plain, forms.EDM, None), labels, 0.5)(params))(x, t, s)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cifar10_ctm", "imagenet64_ctm"])
def test_an_earlier_run_goes_on_from_its_average(name, runs):
    workdir = runs(name)
    start, (expected, _) = started(name, workdir), restore_average(workdir, "ema")
    jax.tree.map(np.testing.assert_array_equal, start, expected)


@pytest.mark.parametrize("name", ["cifar10_ctm", "imagenet64_ctm"])
def test_the_ode_of_a_run_is_where_short_jumps_go(name, runs):
    """(G(x, t, s) - x) / (s - t) tends to the velocity as s tends to t."""
    trained, ode = module(name).trajectory(small(name)), odes.read(runs(name))
    params = ode.network(restore_average(runs(name), "ema")[0])
    labels = jnp.array([0, 1]) if trained.num_classes else None
    x, t = jax.random.normal(jax.random.key(0), (2, *SHAPE)), jnp.array([0.8, 3.0])
    s = 0.99 * t
    jumped = jax.jit(ctm.flow_map(trained.g(params, labels)))(x, t, s)
    slope = (jumped - x) / (s - t)[:, None, None, None]
    found = jax.jit(ode.velocity(params, labels))(x, t)
    np.testing.assert_allclose(found, slope, atol=0.02 * np.abs(slope).max())
    assert (ode.shape, ode.num_classes, ode.average) == (SHAPE, trained.num_classes, "ema")


def test_a_converted_one_makes_pairs_and_has_a_likelihood(tmp_path):
    """Those of a run of ours with its weights."""
    folder, params = of_cifar10(tmp_path)
    ours = tmp_path / "ours"
    config = small("cifar10_ctm", start_run=str(folder), distill=False, steps=0)
    write_record(ours, Record("configs/cifar10_ctm.py", config.to_dict()))
    fit(module("cifar10_ctm").build(config), ours)
    jax.tree.map(np.testing.assert_array_equal, restore_average(ours, "ema")[0]["network"], params)
    images, made = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8), []
    for name, workdir in (("theirs", folder), ("ours", ours)):
        flows.make_pairs(workdir, tmp_path / f"pairs_of_{name}", n=2, solver_steps=3)
        bits = likelihood(workdir, solver_steps=2).bits(images, None, np.arange(2, dtype=np.int32))
        made.append((bits, data.pairs(tmp_path / f"pairs_of_{name}").take(np.arange(2))["image"]))
    for theirs, of_ours in zip(*made, strict=True):
        np.testing.assert_allclose(theirs, of_ours, rtol=1e-4, atol=1e-4)
        assert np.std(theirs) > 0


def test_what_is_no_trajectory_model_or_of_other_data_is_refused(tmp_path, runs):
    with pytest.raises(ValueError, match=r"cifar10_edm\.py, which does not train a trajectory model"):
        started("cifar10_ctm", runs("cifar10_edm"))
    folder, _ = of_cifar10(tmp_path)
    with pytest.raises(ValueError, match=rf"has num_classes 0, this run {cifar10.CLASSES}"):
        started("cifar10_ctm", folder, class_conditional=True)
    with pytest.raises(ValueError, match=r"has sigma_data 0\.5, this run 0\.4"):
        started("cifar10_ctm", folder, sigma_data=0.4)
