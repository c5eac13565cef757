"""From a trained flow to pairs, and from pairs to a student; and everything that is refused between them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from configs import digits_consistency_fm, digits_reflow, flows, odes, teachers
from losses import linear, rectified_flow, reflow, scaled_pseudo_huber
from samplers import heun, noise, sample_keys
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context, restore_average
from train.state import check_initial

SHAPE = (8, 8, 1)
FLOW = "digits_rectified_flow"


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    """16 pairs of a flow that nobody trained, in a folder."""
    folder = tmp_path_factory.mktemp("made") / "pairs"
    flows.make_pairs(runs(FLOW), folder, n=16, seed=3, solver_steps=4, batch_size=10)
    return folder


def student(name, **changes):
    return module(name).build(small(name, **changes))


def losses(experiment, batch, params, step=0):
    context = Context(step=jnp.asarray(step), frozen=experiment.frozen(), averages={"target": params})
    return experiment.objective(params, batch, jax.random.key(0), context)[0]


# ---- Pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_noise_and_where_the_flow_takes_it(runs, made):
    """Noise and label of pair i are those of sample i; the image is where Heun steps of the averaged weights end."""
    batch = data.pairs(made, shape=SHAPE, num_classes=10).take(np.arange(16))
    z = noise.initial(sample_keys(3, np.arange(16)), SHAPE)
    np.testing.assert_allclose(batch["noise"], z, rtol=1e-6)
    np.testing.assert_array_equal(batch["label"], np.arange(16) % 10)
    params, step = restore_average(runs(FLOW), "power_0.05")
    velocity = module(FLOW).flow(small(FLOW)).velocity(params, jnp.arange(16) % 10)
    expected = jax.jit(lambda z: heun(velocity, z, [1.0, 0.75, 0.5, 0.25]))(z)
    np.testing.assert_allclose(batch["image"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(batch["image"] - batch["noise"]).max() > 0.01
    (record,) = data.pairs(made).records
    told = {"seed": 3, "solver_steps": 4, "average": "power_0.05", "step": step, "config_file": f"{FLOW}.py"}
    assert {key: record["origin"][key] for key in told} == told
    assert record["dtype"] == "float32"


def test_a_pair_depends_on_its_seed_and_index_alone(runs, made, tmp_path):
    flows.make_pairs(runs(FLOW), tmp_path / "few", n=3, seed=3, solver_steps=4)
    few, many = data.pairs(tmp_path / "few").take(np.arange(3)), data.pairs(made).take(np.arange(3))
    np.testing.assert_allclose(few["image"], many["image"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(few["noise"], many["noise"])


def test_real_images_are_paired_with_the_noise_that_leads_to_them(runs, tmp_path):
    record = flows.make_pairs(runs(FLOW), tmp_path / "real", n=12, solver_steps=32, inverted=True, eight_bit=True)
    assert record["name"].startswith("inversions of ")
    assert record["origin"]["images"] == data.fingerprint(data.digits(), seed=0, batch_size=1)["content"]
    batch = data.pairs(tmp_path / "real").take(np.arange(12))
    real = data.digits()
    np.testing.assert_array_equal(batch["image"], real.image[:12])
    np.testing.assert_array_equal(batch["label"], np.asarray(real.label)[:12])
    params, _ = restore_average(runs(FLOW), "power_0.05")
    velocity = module(FLOW).flow(small(FLOW)).velocity(params, jnp.asarray(batch["label"]))
    back = jax.jit(lambda z: heun(velocity, z, np.arange(32, 0, -1) / 32))(jnp.asarray(batch["noise"]))
    # Noise of 0.001 was added on the way.
    np.testing.assert_allclose(back, batch["image"] / 127.5 - 1, atol=0.02)


def test_a_diffusion_model_pairs_what_it_makes_of_80_z_with_z(runs, tmp_path):
    flows.make_pairs(runs("digits_teacher"), tmp_path / "pairs", n=2, solver_steps=3)
    batch = data.pairs(tmp_path / "pairs").take(np.arange(2))
    np.testing.assert_allclose(batch["noise"], noise.initial(sample_keys(0, np.arange(2)), SHAPE), rtol=1e-6)
    ode = odes.read(runs("digits_teacher"))
    params, _ = restore_average(runs("digits_teacher"), "power_0.05")
    expected = heun(ode.velocity(params, jnp.arange(2)), 80 * jnp.asarray(batch["noise"]), ode.times(3))
    np.testing.assert_allclose(batch["image"], expected, rtol=1e-3, atol=1e-3)


def test_a_trajectory_model_pairs_what_its_own_solver_makes(runs, tmp_path):
    """The run's sampler by Heun steps, which asks the network at s = t."""
    flows.make_pairs(runs("digits_ctm"), tmp_path / "pairs", n=2, solver_steps=18)
    batch = data.pairs(tmp_path / "pairs").take(np.arange(2))
    np.testing.assert_allclose(batch["noise"], noise.initial(sample_keys(0, np.arange(2)), SHAPE), rtol=1e-6)
    (sampler,) = (s for s in student("digits_ctm").samplers if s.name == "heun 18")
    params, _ = restore_average(runs("digits_ctm"), "power_0.05")
    expected = sampler.sample(params, sample_keys(0, np.arange(2)), jnp.arange(2))
    np.testing.assert_allclose(batch["image"], expected, rtol=1e-3, atol=1e-3)


def test_pairs_that_cannot_be_made_are_refused(runs, made, tmp_path):
    with pytest.raises(ValueError, match=r"is of digits_ect\.py, which trains no flow and no diffusion model"):
        flows.make_pairs(runs("digits_ect"), tmp_path, n=1)
    with pytest.raises(ValueError, match="got n=None: give --n"):
        flows.make_pairs(runs(FLOW), tmp_path, n=None)
    with pytest.raises(ValueError, match="n=2000 is more than the 1,797 images of digits"):
        flows.make_pairs(runs(FLOW), tmp_path, n=2000, inverted=True)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        flows.make_pairs(tmp_path / "nowhere", tmp_path, n=1)
    with pytest.raises(ValueError, match=r"origin\.seed: 3 there, 4 here"):
        flows.make_pairs(runs(FLOW), made, n=16, seed=4, solver_steps=4)
    assert list(tmp_path.iterdir()) == []


# ---- Students --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("improved", [False, True])
def test_a_reflow_trains_on_the_noise_of_its_pairs(runs, made, improved):
    experiment = student("digits_reflow", pairs=str(made), teacher_run=str(runs(FLOW)), improved=improved)
    batch = experiment.prepare(jax.random.key(1), jax.tree.map(jnp.asarray, next(experiment.batches(0))))
    source, names = data.pairs(made), {"image", "noise", "label"}
    assert set(batch) == names
    found = [np.flatnonzero((source.noise[0] == z).all(axis=(1, 2, 3))) for z in np.asarray(batch["noise"])]
    again: dict[str, Any] = {**source.take(np.concatenate(found))}
    for name in names:
        np.testing.assert_array_equal(batch[name], again[name])
    assert experiment.initial is not None
    params = experiment.initial()
    net = module(FLOW).flow(small(FLOW)).velocity(params, batch["label"])

    def coupling(key, x):
        return x, batch["noise"]

    loss = partial(reflow, perceptual=scaled_pseudo_huber) if improved else rectified_flow
    expected, _ = loss(net, batch["image"], jax.random.key(0), coupling=coupling)
    np.testing.assert_allclose(losses(experiment, batch, params), expected, rtol=1e-5)


def test_pairs_of_real_images_are_mixed_in(runs, made, tmp_path):
    flows.make_pairs(runs(FLOW), tmp_path / "real", n=4, solver_steps=2, inverted=True)
    experiment = student("digits_reflow", pairs=str(made), real_pairs=str(tmp_path / "real"))
    alone = student("digits_reflow", pairs=str(made))
    assert (experiment.fingerprint["length"], alone.fingerprint["length"]) == (20, 16)
    assert " and inversions of " in experiment.fingerprint["name"]


def test_without_pairs_a_reflow_can_be_built_and_says_what_it_lacks(runs, made):
    experiment = student("digits_reflow")
    with pytest.raises(FileNotFoundError, match=r"--mode=pairs --n=N --out=FOLDER.*--config\.pairs=FOLDER"):
        next(experiment.batches(0))


@pytest.mark.parametrize("name", ["digits_reflow", "digits_consistency_fm"])
def test_a_student_starts_at_the_averaged_weights_of_its_flow(name, runs):
    initial = student(name, teacher_run=str(runs(FLOW))).initial
    assert initial is not None
    expected, _ = restore_average(runs(FLOW), "power_0.05")
    jax.tree.map(np.testing.assert_array_equal, initial(), expected)
    assert student(name).initial is None


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_an_edm_run_is_a_2_rectified_flow_as_it_is(runs):
    """Of the weights of any run of cifar10_edm.py, wherever they came from: one step returns its denoiser D.

    Two mix D with the start's noise and ask D again. A run of the other network is refused.
    """
    workdir = runs("cifar10_edm", ncsnpp=True)
    experiment = student("cifar10_reflow", teacher_run=str(workdir))
    assert experiment.initial is not None
    params, expected = experiment.initial(), jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    check_initial(params, expected)
    teacher = teachers.teacher(str(workdir), shape=made_up.SHAPE, num_classes=0, sigma_data=0.5)
    D = teacher.diffusion.on_path(teacher.params(), None, linear)
    keys, t = jax.random.split(jax.random.key(0), 2), jnp.full(2, 1 - 1e-5)
    z = noise.initial(keys, made_up.SHAPE)
    one, two = (next(s for s in experiment.samplers if s.nfe == n) for n in (1, 2))

    @jax.jit
    def by_denoiser(z):
        first = D(t[0] * z, t)
        return first, D((first + z) / 2, jnp.full(2, 0.5))

    for sampler, images in zip((one, two), by_denoiser(z), strict=True):
        np.testing.assert_allclose(jax.jit(sampler.sample)(params, keys, None), images, rtol=1e-3, atol=1e-4)
    other = student("cifar10_reflow", teacher_run=str(runs("cifar10_edm"))).initial
    assert other is not None
    with pytest.raises(ValueError, match="are not those of this network"):
        check_initial(other(), expected)


def test_a_flow_of_another_network_or_none_at_all_is_refused(runs):
    other = str(runs(FLOW, time_scale=10.0))
    with pytest.raises(ValueError, match=r"another network: time_scale 10\.0 there, 1\.0 here"):
        student("digits_reflow", teacher_run=other)
    with pytest.raises(ValueError, match=r"is of digits_teacher\.py, which does not train a flow"):
        student("digits_consistency_fm", teacher_run=str(runs("digits_teacher")))
    with pytest.raises(ValueError, match=r"distill=True needs a trained flow: .*--config\.teacher_run=DIR"):
        student("digits_consistency_fm", distill=True)


def test_from_scratch_consistency_comes_after_flow_matching(runs):
    """From a flow it comes at once; the loss between two points is of the order of delta squared."""
    scratch = student("digits_consistency_fm", boundary=1.0)
    params = jax.tree.map(jnp.asarray, scratch.init(jax.random.key(0)))
    batch = scratch.prepare(jax.random.key(1), jax.tree.map(jnp.asarray, next(scratch.batches(0))))
    first, second = (losses(scratch, batch, params, step).mean() for step in (5, 6))
    assert first > 0.1
    assert second < 1e-3
    tuned = student("digits_consistency_fm", boundary=1.0, teacher_run=str(runs(FLOW)))
    np.testing.assert_allclose(losses(tuned, batch, params), losses(scratch, batch, params, 6), rtol=1e-6)
    distilled = student("digits_consistency_fm", boundary=1.0, teacher_run=str(runs(FLOW)), distill=True)
    assert losses(distilled, batch, params).mean() < 1e-3
    assert jnp.abs(losses(distilled, batch, params) - losses(tuned, batch, params)).max() > 0


def test_configs_are_of_one_network():
    for config in (digits_reflow.get_config(), digits_consistency_fm.get_config(), module(FLOW).get_config()):
        values = {name: config.get(name, usual) for name, usual in flows.NETWORK.items()}
        expected = {"patch": 4, "width": 128, "depth": 3, "heads": 4, "mlp_ratio": 4, "time_scale": 1.0}
        assert values == expected | {"double_norm": False}
