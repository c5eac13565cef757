"""What the digits runs that are tuned towards a reward start from, how they are rewarded, and how they are judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
import eval as evaluation
from configs import digits_rewards
from tests.configs.made_up import module, small
from train import Context, restore_average

NAMES = ("digits_adjoint_matching", "digits_continuous_adjoint", "digits_draft")


@pytest.fixture(scope="module")
def classifiers():
    """Two that nobody trained, the judging and the rewarding one."""

    def of_seed(seed):
        real = data.digits("held_out")
        assert real.label is not None
        return evaluation.train_classifier(
            real.image, real.label, real.image, real.label, num_classes=10, seed=seed, steps=1
        )

    return [of_seed(seed) for seed in (0, 1)]


@pytest.fixture
def untrained(monkeypatch, classifiers):
    monkeypatch.setattr(digits_rewards, "classifier", lambda seed: classifiers[seed])
    return classifiers


def test_a_run_starts_from_the_flow_and_keeps_it_beside_the_rewarding_classifier(runs, untrained):
    workdir = runs("digits_rectified_flow")
    expected, _ = restore_average(workdir, "power_0.05")
    for name in NAMES:
        experiment = module(name).build(small(name, teacher_run=str(workdir)))
        for params in (experiment.initial(), experiment.frozen()["flow"]):
            jax.tree.map(np.testing.assert_array_equal, params, expected)
        weights = experiment.frozen()["reward"]
        jax.tree.map(np.testing.assert_array_equal, weights, untrained[1].params)


def test_a_run_that_is_no_such_flow_is_refused(runs):
    def refused(message, **changes):
        with pytest.raises(ValueError, match=message):
            module("digits_draft").build(small("digits_draft", **changes))

    refused(r"is of digits_teacher\.py; one of digits_rectified_flow\.py", teacher_run=str(runs("digits_teacher")))
    refused(r"has width 16, this run 32", teacher_run=str(runs("digits_rectified_flow")), width=32)
    refused(r"target is a class, 0 to 9, got 10", target=10)
    with pytest.raises(ValueError, match=r"needs a trained flow: .*--config\.teacher_run=DIR"):
        module("digits_draft").build(small("digits_draft")).frozen()


@pytest.mark.slow
def test_at_the_start_the_loss_is_that_of_the_reward_alone(runs, untrained):
    """Without control, Adjoint Matching and the continuous adjoint are one, and square in lambda."""
    workdir = str(runs("digits_rectified_flow"))

    def losses(name, **changes):
        experiment = module(name).build(small(name, teacher_run=workdir, batch_size=4, **changes))
        params = experiment.initial()
        context = Context(step=jnp.zeros((), jnp.int32), frozen=experiment.frozen(), averages={})
        batch = {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.arange(4)}
        return jax.jit(lambda: experiment.objective(params, batch, jax.random.key(0), context))()

    (lean, metrics), (full, _) = (losses(name) for name in NAMES[:2])
    np.testing.assert_allclose(lean, full, rtol=1e-4)
    doubled, _ = losses(NAMES[0], reward_scale=40.0)
    np.testing.assert_allclose(doubled, 4 * lean, rtol=1e-4)
    direct, ends = losses(NAMES[2])
    np.testing.assert_allclose(direct, -ends["reward"])
    assert metrics["reward"].shape == (4,)


def test_the_judge_looks_for_the_target_and_its_variety(untrained):
    real = data.digits()
    threes = real.image[real.label == 3]
    rows = digits_rewards.judge(3)(
        [(threes[:100], np.zeros(100, int)), (threes[100:], np.ones(len(threes) - 100, int))]
    )
    values = {row["metric"].rpartition("_")[0]: row for row in rows}
    assert all(row["n"] == len(threes) == 183 for row in rows)
    assert values["fd_pixels"]["value"] == pytest.approx(0, abs=1e-3)
    assert values["fd_pixels"]["reference"] == "digits/all, 3"
    assert values["recall_pixels"]["value"] == 1
    assert values["pairwise_distance"]["value"] == values["pairwise_distance"]["real"]
    agreement = evaluation.label_agreement(untrained[0], threes, np.full(183, 3))
    assert values["label_agreement"]["value"] == pytest.approx(agreement)
    logits = untrained[1].logits(threes)
    expected = jax.nn.log_softmax(logits)[:, 3].mean()
    assert values["reward"]["value"] == pytest.approx(float(expected), rel=1e-3)
    assert values["reward"]["classifier"] == untrained[1].name


def test_the_distance_of_two_images_is_that_of_all_pairs():
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), np.uint8)
    flat = images.reshape(7, -1) / 127.5
    pairs = ((flat[:, None] - flat[None]) ** 2).sum(axis=-1)
    assert digits_rewards.pairwise_distance(images) == pytest.approx(np.sqrt(pairs.mean()))
