"""The runs that distil Stable Diffusion, with a U-Net of one resolution as their teacher."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import adapters, stable
from models import stable_from
from tests.configs.made_up import module
from tests.configs.stable_runs import KEYS, NAMES, TEXT, T, X, built, captions, config_of, noisy, one_resolution
from train import Context, Sampler, count_parameters, make_mesh, make_step, place_state
from train.checkpoint import open_checkpoints, save
from train.state import check_initial, init_state
from train.weights import restore_average

RANKS = [("stable_lcm", 0), ("stable_lcm", 2), ("stable_tcd", 2), ("stable_pcm", 0)]
LABELS = jnp.zeros(3, int)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return captions(tmp_path_factory.mktemp("captions"))


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    """A folder of settings, and weights that need no file; no one is zero but those of s and w."""
    folder, settings = tmp_path / "unet", one_resolution()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))

    def read(path, second_time=False, guided=False):
        assert Path(path) == folder
        model = stable_from(settings).clone(second_time=second_time, guided=guided)
        s, w = (T if told else None for told in (second_time, guided))
        shapes = jax.eval_shape(model.init, jax.random.key(0), X, T, TEXT, s, w)["params"]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return model, {"params": zeros | noisy({k: v for k, v in zeros.items() if k not in stable.ADDED}, 0.3)}

    monkeypatch.setattr(stable, "read_stable", read)
    return str(folder)


def flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


# ---- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), RANKS)
def test_a_run_moves_what_is_trained_and_nothing_else(name, rank, folder, teacher):
    experiment = built(name, folder, teacher, rank)
    assert experiment.initial is not None
    start = experiment.initial()
    state, mesh = place_state(experiment, make_mesh()), make_mesh()
    step, batches, frozen = make_step(experiment, mesh), experiment.batches(0), experiment.frozen()
    for _ in range(2):
        state, scalars = step(state, next(batches), frozen)
        assert np.isfinite(float(scalars["loss"]))
    added = {"added"} if (name, rank) in (("stable_lcm", 0), ("stable_tcd", 2)) else set()
    assert set(start) == {"network"} | added | ({"adapters"} if rank else set())
    for part in start:
        before, after = flat(start[part]), flat(state.params[part])
        same = {path for path in before if np.array_equal(before[path], after[path])}
        assert same == (set(before) if part == "network" and rank else set())
    for average in state.averages.values():
        if rank:
            jax.tree.map(np.testing.assert_array_equal, average["network"], start["network"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_network_below_adapters_has_no_state_of_the_optimizer(name, folder, teacher):
    experiment = built(name, folder, teacher, rank=2)
    state = jax.eval_shape(lambda: init_state(experiment))
    size = {part: sum(leaf.size for leaf in jax.tree.leaves(state.params[part])) for part in state.params}
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert moments == 2 * (sum(size.values()) - size["network"]) + 1  # and the number of steps
    assert experiment.frozen() is None  # the teacher is the network, once


@pytest.mark.slow
def test_the_discriminator_trains_beside_the_student_and_neither_trains_the_other(folder, teacher):
    """Each part of the loss has a gradient at its own player alone, and each player its own rate."""
    experiment = built("stable_pcm", folder, teacher, rank=2, adversarial_weight=0.5)
    assert experiment.initial is not None
    start, frozen = experiment.initial(), experiment.frozen()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    batch = jax.tree.map(jnp.asarray, next(experiment.batches(0)))
    context = Context(jnp.zeros((), int), frozen, {})

    @jax.jit
    def gradients(params):
        def part(name):
            return lambda params: experiment.objective(params, batch, jax.random.key(2), context)[1][name].sum()

        return {name: jax.grad(part(name))(params) for name in ("adversarial", "discriminator")}

    def sizes(gradient):
        return {part: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[part])) for part in gradient}

    found = {name: sizes(gradient) for name, gradient in gradients(noisy(start, 0.1)).items()}
    assert found["adversarial"]["adapters"] > 0
    assert found["adversarial"]["discriminator"] == found["adversarial"]["network"] == 0
    assert found["discriminator"]["discriminator"] > 0
    assert found["discriminator"]["adapters"] == found["discriminator"]["network"] == 0

    gradient = jax.tree.map(jnp.ones_like, start)
    moved, _ = experiment.optimizer.update(gradient, experiment.optimizer.init(start), start)
    # Adam's first step is the rate, and little else from the decay.
    for player, rate in (("discriminator", 1e-5), ("adapters", 5e-6), ("network", 0.0)):
        assert sizes(moved)[player] == pytest.approx(rate, rel=0.02)


def test_a_checkpoint_with_adapters_is_whole(folder, teacher, tmp_path):
    """Names of adapters hold slashes, and what is kept has no state."""
    experiment = built("stable_pcm", folder, teacher)
    assert experiment.initial is not None
    params = noisy(experiment.initial(), 0.1)
    tree = {"params": params, "opt_state": experiment.optimizer.init(params), "averages": {}}
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        save(checkpoints, 1, tree, {})
    jax.tree.map(np.testing.assert_array_equal, restore_average(tmp_path, "params")[0], params)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), RANKS)
def test_every_sampler_gives_latents(name, rank, folder, teacher):
    experiment = built(name, folder, teacher, rank)
    assert experiment.initial is not None
    params = experiment.initial()
    for sampler in experiment.samplers:
        latents = jax.eval_shape(sampler.sample, params, KEYS, LABELS)
        assert (latents.shape, latents.dtype) == ((3, 8, 8, 4), np.float32)
    names = {sampler.name for sampler in experiment.samplers}
    assert len(names) == len(experiment.samplers)
    assert all("guidance 8.5" in sampler for sampler in names) == ((name, rank) == ("stable_lcm", 0))


def test_a_sample_is_of_a_caption_that_its_key_draws(folder):
    given = stable.captions(config_of("stable_pcm", folder, ""), stable_from(one_resolution()))
    assert given.shown.shape == (stable.SHOWN, 3, 6)
    (sampler,) = stable.drawn([Sampler("shows its text", 1, lambda params, keys, text: text)], given)
    keys = jax.random.split(jax.random.key(0), 200)
    text = sampler.sample(None, keys, jnp.zeros(200, int))
    number = (text[:, None] == given.shown).all((2, 3)).argmax(1)
    assert np.bincount(number, minlength=stable.SHOWN).min() > 0
    np.testing.assert_array_equal(text, given.shown[number])
    np.testing.assert_array_equal(sampler.sample(None, keys[7:9], jnp.ones(2, int)), text[7:9])


# ---- The student -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), RANKS)
def test_a_student_starts_as_its_teacher(name, rank, folder, teacher):
    experiment = built(name, folder, teacher, rank)
    assert experiment.initial is not None
    initial = experiment.initial()
    check_initial(initial, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    plain, trained = stable.read_stable(teacher)
    told = initial.get("added", {})
    model = plain.clone(guided="map_w" in told, second_time="map_s" in told)
    expected: Any = plain.apply(trained, X, T, TEXT)
    for value in (1.0, 8.5):
        s, w = (jnp.full(2, value) if given else None for given in (model.second_time, model.guided))
        out: Any = model.apply({"params": stable.weights(initial)}, X, T, TEXT, s, w)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    moved: Any = model.apply({"params": stable.weights(noisy(initial, 0.1))}, X, T, TEXT, s, w)
    assert np.abs(moved - expected).max() > 0.01


@pytest.mark.slow
def test_a_merged_model_is_the_adapted_one(folder, teacher):
    """Its weights are those of the plain network, and it is what a run trained and samples."""
    config = config_of("stable_pcm", folder, teacher)
    experiment = built("stable_pcm", folder, teacher)
    assert experiment.initial is not None
    params = noisy(experiment.initial(), 0.1)
    merged = stable.weights(params)
    model, trained = stable.read_stable(teacher)
    check_initial(merged, jax.eval_shape(lambda: trained["params"]))
    kernels = {path for path, same in flat(jax.tree.map(np.array_equal, merged, params["network"])).items() if not same}
    assert kernels == set(params["adapters"])
    assert not any(path.startswith(stable.WITHOUT_ADAPTER) for path in kernels)
    linear = ("q", "k", "v", "out", "proj_in", "proj_out", "mlp0", "mlp1")
    assert {path.split("/")[-2] for path in kernels} == {*linear, "conv0", "conv1", "skip", "affine"}
    alone = stable.denoiser(config, model, merged, TEXT)(X, T)
    of_run = stable.denoiser(config, stable.network(config), stable.weights(params), TEXT)(X, T)
    np.testing.assert_allclose(alone, of_run, rtol=1e-6)


def test_gradients_reach_adapters_alone():
    params = {
        "network": {"a": {"kernel": jnp.ones((2, 3))}},
        "adapters": {"a/kernel": {"down": jnp.ones((2, 1)), "up": jnp.ones((1, 3))}},
    }
    gradient = jax.grad(lambda params: (adapters.weights(params)["a"]["kernel"] ** 2).sum())(params)
    np.testing.assert_array_equal(gradient["network"]["a"]["kernel"], 0)
    np.testing.assert_allclose(gradient["adapters"]["a/kernel"]["up"], 8.0)  # 2 (1 + 1) from each of two rows


# ---- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_sd_1_5_has_as_many_parameters():
    """The U-Net's, LCM-LoRA's 67.25 million, and a layer of 320 features without a bias for s or w."""
    unet, added, of_rank_64 = 859_520_964, 320**2, 67_252_224
    for name, expected in (("stable_lcm", unet + added), ("stable_tcd", unet + added + of_rank_64)):
        assert count_parameters(module(name).build(module(name).get_config())) == expected
