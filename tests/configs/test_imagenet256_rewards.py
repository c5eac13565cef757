"""Flows of latents that are tuned towards images that are liked: the reward, what a run starts from, its first step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import data
from configs import feature_networks, imagenet256, imagenet256_rewards
from losses import transitions
from models.pretrained.dinov2 import dinov2
from tests.configs import made_up
from tests.configs.converted import folder_of
from tests.configs.made_up import module, small
from tests.models.pretrained.dinov2_files import timm_tensors
from train import Context, check, restore_average

NAMES = tuple(f"imagenet256_{name}" for name in ("adjoint_matching", "continuous_adjoint", "draft"))
ADJOINT_MATCHING, CONTINUOUS_ADJOINT, DRAFT = NAMES
Z = jax.random.normal(jax.random.key(0), (6, *made_up.LATENT_SHAPE))


def decode(params, z):
    """Images twice as large as their latents, whose colours are within the range."""
    colours = jnp.einsum("bijc,cd->bijd", z, params["colours"])
    return 0.9 * jnp.tanh(jnp.repeat(jnp.repeat(colours, 2, axis=1), 2, axis=2))


@pytest.fixture
def space(small_data, monkeypatch):
    """Latents that are decoded into colours."""
    colours = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    found = made_up.space(made_up.CLASSES)._replace(decode=decode, params={"colours": colours})
    monkeypatch.setattr(imagenet256, "space", lambda config: found)
    return found


@pytest.fixture
def values(space, monkeypatch, tmp_path):
    """Config values of a reward: two images that are liked, and a DINOv2 too small for its heads to be known."""
    monkeypatch.setattr(feature_networks, "dinov2", partial(dinov2, heads=3))
    save_file(timm_tensors(patch=14), tmp_path / "dinov2.safetensors")
    np.savez(tmp_path / "liked.npz", image=as_pixels(space, Z[:2]))
    return {"liked": str(tmp_path / "liked.npz"), "reward_weights": str(tmp_path / "dinov2.safetensors")}


def as_pixels(space, z):
    return np.asarray(data.from_model_range(space.decode(space.params, z)))


def rewarded(space, config):
    liking = imagenet256_rewards.likeness(config, space)
    return jax.jit(liking.reward(on_device(liking.params())))


def on_device(params):
    return jax.tree.map(jnp.asarray, params)


# ---- The reward ------------------------------------------------------------------------------------------------------


def test_nothing_is_more_like_an_image_than_itself(space, values, tmp_path):
    np.savez(tmp_path / "one.npz", image=as_pixels(space, Z[3:4]))
    rewards = rewarded(space, small(DRAFT, **values | {"liked": str(tmp_path / "one.npz")}))(Z)
    assert rewards.shape == (6,)
    assert float(rewards[3]) == pytest.approx(1, abs=5e-5)  # but for the rounding to pixels
    assert max(np.delete(rewards, 3)) < 0.999


def test_of_two_images_both_are_liked_alike(space, values, tmp_path):
    """The mean of two unit vectors with cosine c between them has the cosine sqrt((1 + c) / 2) to either."""
    np.savez(tmp_path / "one.npz", image=as_pixels(space, Z[:1]))
    in_8_bits = space._replace(decode=lambda params, z: data.to_model_range(data.from_model_range(decode(params, z))))
    c = rewarded(in_8_bits, small(DRAFT, **values | {"liked": str(tmp_path / "one.npz")}))(Z)[1]
    rewards = rewarded(in_8_bits, small(DRAFT, **values))(Z)
    expected = 1 - jnp.sqrt((1 + c) / 2)
    assert expected > 0.001
    np.testing.assert_allclose(1 - rewards[:2], jnp.full(2, expected), rtol=1e-3)


def test_images_of_a_folder_may_be_of_any_size(space, values, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, side in enumerate((16, 512)):
        Image.new("RGB", (side, side), (200, 30, 90)).save(folder / f"{i}.png")
    colour = jnp.full((1, 16, 16, 3), jnp.asarray([200, 30, 90], jnp.float32) / 127.5 - 1)
    plain = space._replace(decode=lambda params, z: colour)
    np.testing.assert_allclose(rewarded(plain, small(DRAFT, **values | {"liked": str(folder)}))(Z[:1]), 1, atol=1e-4)


def test_a_file_of_many_images_is_read_in_parts(space, values, monkeypatch):
    whole = imagenet256_rewards.likeness(small(DRAFT, **values), space).params()["liked"]
    monkeypatch.setattr(imagenet256_rewards, "LIKED_AT_A_TIME", 1)
    found = imagenet256_rewards.likeness(small(DRAFT, **values), space).params()["liked"]
    np.testing.assert_allclose(found, whole, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-6)


def test_the_gradient_of_a_reward_is_that_of_small_differences(space, values):
    reward = rewarded(space, small(DRAFT, **values))
    gradient = jax.jit(jax.grad(lambda z: reward(z).sum()))(Z)
    slopes = jnp.sqrt((gradient**2).sum(axis=(1, 2, 3)))
    direction, h = gradient / slopes[:, None, None, None], 0.005
    found = (reward(Z + h * direction) - reward(Z - h * direction)) / (2 * h)
    assert slopes.min() > 0.01
    np.testing.assert_allclose(found, slopes, rtol=0.01)


def test_a_reward_and_its_gradient_are_of_each_latent_alone_whatever_is_done_at_a_time(space, values, monkeypatch):
    def of(at_a_time):
        monkeypatch.setattr(imagenet256_rewards, "REWARDED_AT_A_TIME", at_a_time)
        reward = rewarded(space, small(DRAFT, **values))
        return reward(Z), jax.jit(jax.grad(lambda z: (jnp.arange(6) * reward(z)).sum()))(Z)

    (together, slope), (apart, slope_apart) = of(6), of(4)
    np.testing.assert_allclose(apart, together, atol=1e-5)
    np.testing.assert_allclose(slope_apart, slope, atol=1e-4 * np.abs(slope).max())


def test_colours_that_cannot_be_shown_are_not_rewarded(space, values):
    config = small(DRAFT, **values)
    bright = space._replace(decode=lambda params, z: 3 * decode(params, z))
    shown = space._replace(decode=lambda params, z: jnp.clip(3 * decode(params, z), -1, 1))
    np.testing.assert_array_equal(rewarded(bright, config)(Z), rewarded(shown, config)(Z))


# ---- Chains ----------------------------------------------------------------------------------------------------------


def test_chains_are_those_of_the_papers():
    """The offset is a step h, by which g^2 = 2 (t + h) / (1 - t + h); DRaFT's steps are DDIM's."""
    config = module(ADJOINT_MATCHING).get_config()
    chain, h = imagenet256_rewards.chain(config), 1 / 40
    assert len(chain.times) == 40
    np.testing.assert_allclose(chain.noise**2, 2 * h * (chain.times + h) / (1 - chain.times + h), rtol=1e-5)
    straight = imagenet256_rewards.chain(config, variance=transitions.no_noise)
    for found, expected in ((straight.state, 1), (straight.velocity, -h), (straight.noise, 0)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_flow_takes_steps_towards_what_is_liked(name, values, runs):
    experiment = module(name).build(small(name, **values, teacher_run=str(runs("imagenet256_sit"))))
    facts = check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0
    assert -1 <= facts.scalars["reward"] <= 1


@pytest.mark.slow
def test_at_the_start_the_loss_is_that_of_the_reward_alone(values, runs):
    """Without control, Adjoint Matching and the continuous adjoint are one, and square in lambda."""

    def losses(name, **changes):
        config = small(name, **values, teacher_run=str(runs("imagenet256_sit")), **changes)
        experiment = module(name).build(config)
        frozen = on_device(experiment.frozen())
        context = Context(step=jnp.zeros((), jnp.int32), frozen=frozen, averages={})
        batch = {"image": jnp.zeros_like(Z), "label": jnp.arange(6)}
        params = experiment.initial()
        return jax.jit(lambda: experiment.objective(params, batch, jax.random.key(0), context))()

    (lean, _), (full, _) = losses(ADJOINT_MATCHING), losses(CONTINUOUS_ADJOINT)
    assert lean.min() > 0
    np.testing.assert_allclose(lean, full, rtol=1e-4)
    doubled, _ = losses(ADJOINT_MATCHING, reward_scale=200.0)
    np.testing.assert_allclose(doubled, 4 * lean, rtol=1e-4)
    direct, ends = losses(DRAFT)
    np.testing.assert_allclose(direct, -ends["reward"])


@pytest.mark.parametrize("dropped", [0.0, 0.999])
def test_trajectories_are_asked_for_classes_but_for_those_that_are_dropped(dropped, values, runs):
    config = small(DRAFT, **values, teacher_run=str(runs("imagenet256_sit")), label_dropout=dropped, guidance=1.0)
    experiment = module(DRAFT).build(config)
    frozen, params = on_device(experiment.frozen()), experiment.initial()
    context = Context(step=jnp.zeros((), jnp.int32), frozen=frozen, averages={})

    @jax.jit
    def losses(labels):
        batch = {"image": jnp.zeros_like(Z), "label": labels}
        return experiment.objective(params, batch, jax.random.key(0), context)[0]

    alike = losses(jnp.arange(1, 7)) == losses(jnp.zeros(6, int))
    assert bool(alike.all() if dropped else not alike.any())


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_is_kept_beside_the_one_that_is_tuned_and_can_be_gone_on_from(name, values, runs):
    workdir = str(runs("imagenet256_sit"))
    expected, _ = restore_average(workdir, "ema")
    experiment = module(name).build(small(name, **values, teacher_run=workdir))
    beside = experiment.frozen()["flow"]
    assert (beside is None) == (name == DRAFT)  # which does not compare the two
    for params in (experiment.initial(), expected if beside is None else beside):
        jax.tree.map(np.testing.assert_array_equal, params, expected)
    tuned = str(runs(name, teacher_run=workdir))
    again = module("imagenet256_scm_distillation").build(small("imagenet256_scm_distillation", teacher_run=tuned))
    tuned_weights, _ = restore_average(tuned, "ema")
    jax.tree.map(np.testing.assert_array_equal, again.frozen()["teacher"], tuned_weights)


def test_what_a_run_lacks_is_said_before_it_is_trained(values, runs, tmp_path):
    def build(**changes):
        config = {**values, "teacher_run": str(runs("imagenet256_sit")), **changes}
        return module(DRAFT).build(small(DRAFT, **config))

    with pytest.raises(ValueError, match=r"needs a trained flow: .*--config\.teacher_run=DIR"):
        build(teacher_run="").frozen()
    with pytest.raises(ValueError, match=r"needs images to be like: .*--config\.liked=PATH"):
        build(liked="").frozen()
    with pytest.raises(FileNotFoundError, match=r"liked=.*nowhere: no such folder of images or npz file"):
        build(liked=str(tmp_path / "nowhere"))
    np.savez(tmp_path / "none.npz", image=np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"liked=.*none\.npz: holds no images, it must have at least one"):
        build(liked=str(tmp_path / "none.npz"))
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file of weights, expected DINOv2 ViT-L/14"):
        build(reward_weights=str(tmp_path / "nowhere")).frozen()
    with pytest.raises(ValueError, match=r"is of cifar10_edm\.py, which does not train a flow"):
        build(teacher_run=str(runs("cifar10_edm")))
    with pytest.raises(ValueError, match=r"another network: depth 1 there, 2 here"):
        build(depth=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_that_never_saw_the_null_class_is_not_asked_for_it(name, values, runs):
    never = str(runs("imagenet256_sit", label_dropout=0.0, guidance=1.0))
    for asked in ({"guidance": 1.0}, {"label_dropout": 0.0}):
        with pytest.raises(ValueError, match=r"never saw the null class: tune it with --config\.label_dropout=0"):
            module(name).build(small(name, **values, teacher_run=never, **asked))
    module(name).build(small(name, **values, teacher_run=never, label_dropout=0.0, guidance=1.0))


def test_calls_of_the_network_in_a_gradient_are_computed_again(values, runs, monkeypatch):
    """Of every matched step states are kept and no activations."""

    def kept(name, **changes):
        experiment = module(name).build(small(name, **values, teacher_run=str(runs("imagenet256_sit")), **changes))
        frozen, params = on_device(experiment.frozen()), experiment.initial()
        context = Context(step=jnp.zeros((), jnp.int32), frozen=frozen, averages={})
        batch = {"image": jnp.zeros_like(Z), "label": jnp.arange(6)}

        def loss(params):
            return experiment.objective(params, batch, jax.random.key(0), context)[0].sum()

        _, backward = jax.eval_shape(lambda params: jax.vjp(loss, params), params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    more, fewer = (kept(ADJOINT_MATCHING, chain_steps=12, early=early) for early in (9, 1))
    assert 0 < more - fewer <= (9 - 1) * 3 * Z.size  # a few states each


def test_a_network_of_something_else_rewards_nothing(values, runs, tmp_path):
    folder, _, _ = folder_of(tmp_path, "sit")
    config = small(DRAFT, **values | {"reward_weights": str(folder)}, teacher_run=str(runs("imagenet256_sit")))
    with pytest.raises(ValueError, match="has weights of the family dit; these features need dinov2"):
        module(DRAFT).build(config).frozen()
