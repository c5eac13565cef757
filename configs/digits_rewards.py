"""What the digits runs share that fine-tune the flow of `digits_rectified_flow` towards a reward.

Not a run. The flow is asked for each class in turn, and rewarded with a classifier's log probability that the image is
a `target` whatever it was asked for. The classifier that rewards is not the one that judges: another seed, so that
images which please only the first are found out. Judged are the samples of all classes together, against the real
images of the target: `label_agreement` is the share of samples that the judge takes for a target, `recall` and
`pairwise_distance` say how much of the variety of the real ones is left.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import digits, digits_rectified_flow, flows, glue, rewards
from losses import linear, transitions
from losses.adjoint_matching import Reward
from losses.transitions import Transitions
from losses.types import Net
from models import preconditioning
from samplers import euler, grids
from train import Experiment, Params

REWARDING_SEED = 1  # the judge's is 0
NETWORK = ("patch", "width", "depth", "heads", "time_scale", "double_norm")


def get_config() -> ConfigDict:
    """The network of the flow; batch and steps are what all three methods are given."""
    config = digits_rectified_flow.get_config()
    config.update(
        {
            "teacher_run": "",
            "target": 3,
            "chain_steps": 20,
            "steps": 400,
            "batch_size": 64,
            "learning_rate": 2e-4,
            "warmup_steps": 20,
            "euler_steps": (4, 32),
            "snapshot_every": 100,
            "log_every": 20,
            "grid_every": 100,
        }
    )
    return config


def chain(config: ConfigDict) -> Transitions:
    """Trajectories from noise to data in equal steps; the last step adds no noise."""
    return transitions.ancestral(linear, grids.linear(config.chain_steps))


def experiment(config: ConfigDict, tuning: rewards.Tuning) -> Experiment:
    """The experiment of these values and of a way to tune."""
    source = data.digits()
    if not 0 <= config.target < source.num_classes:
        raise ValueError(f"target is a class, 0 to {source.num_classes - 1}, got {config.target}")
    model = digits.network(config, source)
    flow = trained_flow(config)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def frozen() -> Params:
        return {"flow": flow(), "reward": classifier(REWARDING_SEED).params}

    samplers = tuple(
        glue.ode_sampler(f"euler {n}", euler, n, velocity, source.shape, grids.linear(n), path=linear)
        for n in config.euler_steps
    )
    return Experiment(
        init=glue.initialiser(model, source),
        initial=flow if config.teacher_run else None,
        frozen=frozen,
        objective=rewards.objective(velocity, partial(reward_of, target=config.target), tuning),
        judge=judge(config.target),
        **digits.training(config, source, samplers),
    )


def trained_flow(config: ConfigDict) -> Callable[[], Params]:
    """How the averaged weights of the flow in config.teacher_run are read.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the weights are read.
        ValueError: if the run is not one of digits_rectified_flow.py or of another network; if there is none, when the
            weights are read.
    """
    workdir = config.teacher_run
    if not workdir:
        return flows.lacking_flow
    config_file, theirs = evaluation.read_run(workdir)
    if config_file.name != "digits_rectified_flow.py":
        raise ValueError(
            f"the run in {workdir} is of {config_file.name}; one of digits_rectified_flow.py is tuned here"
        )
    for name in NETWORK:
        if theirs[name] != config[name]:
            raise ValueError(f"the flow in {workdir} has {name} {theirs[name]}, this run {config[name]}")
    return lambda: train.restore_average(workdir, f"power_{theirs.sigma_rels[0]:.2f}")[0]


@cache
def classifier(seed: int) -> evaluation.Classifier:
    """A classifier of the digits' training split."""
    training, held_out = data.digits("train"), data.digits("held_out")
    assert training.label is not None
    assert held_out.label is not None
    return evaluation.kept_classifier(
        training.image, training.label, held_out.image, held_out.label, num_classes=training.num_classes, seed=seed
    )


def reward_of(params: Params, target: int) -> Reward:
    """Log probability of the target, [B, 8, 8, 1] -> [B]."""
    return lambda x: evaluation.log_probabilities(params, x, num_classes=10)[:, target]


def judge(target: int) -> Callable[[Iterable[Any]], list[evaluation.Row]]:
    """Against the real images of the target, by the judging classifier, and by the reward itself."""

    @cache
    def reference() -> evaluation.Reference:
        real = data.digits()
        return evaluation.make_reference(f"{real.name}, {target}", evaluation.pixels, _images_of(target))

    def rows_of(batches: Iterable[Any]) -> list[evaluation.Row]:
        images = np.concatenate([images for images, _ in batches])
        labels = np.full(len(images), target, np.int32)
        rows = evaluation.judge([(images, labels)], references=(reference(),), classifier=classifier(0))
        n, rewarding = len(images), classifier(REWARDING_SEED)
        rewards = reward_of(rewarding.params, target)(data.to_model_range(jnp.asarray(images)))
        own: dict[str, tuple[float, evaluation.Row]] = {
            "reward": (float(rewards.mean()), {"classifier": rewarding.name}),
            "pairwise_distance": (pairwise_distance(images), {"real": pairwise_distance(_images_of(target))}),
        }
        count = evaluation.count_name(n)
        return rows + [{"metric": f"{name}_{count}", "value": v, "n": n, **facts} for name, (v, facts) in own.items()]

    return rows_of


def pairwise_distance(images: np.ndarray) -> float:
    """Root mean square distance of two of the images, the same one twice included, in [-1, 1] and over all pixels."""
    return float(np.sqrt(2 * (images.reshape(len(images), -1) / 127.5).var(axis=0).sum()))


def _images_of(target: int) -> np.ndarray:
    real = data.digits()
    return real.image[np.asarray(real.label) == target]
