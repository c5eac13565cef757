"""Latent consistency fine-tuning on scikit-learn's digits (Luo et al. 2023): an LCM goes on without its teacher.

    python main.py --config configs/digits_lcm.py --workdir runs/digits_lcm --config.teacher_run=runs/digits_teacher
    python main.py --config configs/digits_lcf.py --workdir runs/digits_lcf --config.teacher_run=runs/digits_lcm

As digits_lcm.py, but both ends of a pair are the data with the same noise, as in consistency training. The network is
still given a random guidance scale, but nothing guides now: what it knows of scales is what the LCM knew. The paper
tunes on other, fewer data than the LCM had; these are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import digits, digits_lcm, glue, guiding
from losses import consistency, elementwise_pseudo_huber, pairs, paths, steps
from losses.types import Loss
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The values of digits_lcm.py; `teacher_run` is a run of it."""
    return digits_lcm.get_config()


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source, path = data.digits(), paths.scaled_linear_beta()
    low, high = guiding.scales(config)
    model = digits_lcm.network(config, source)
    f = digits_lcm.consistency_function(model, config, path)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_w = jax.random.split(key)
        labels = batch["label"]
        w = jax.random.uniform(key_w, labels.shape, minval=low, maxval=high)
        return consistency(
            f(w)(params, labels),
            batch["image"],
            key_loss,
            pairs=partial(pairs.lcm, grid=pairs.ddim_grid(config.solver_steps)),
            step=steps.same_noise,
            target=f(w)(context.averages["target"], labels),
            distance=partial(elementwise_pseudo_huber, c=config.huber_c),
            path=path,
        )

    fields = digits.fields(config, source, digits_lcm.samplers(f, config, source, path))
    fields["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(init=glue.initialiser(model, source), initial=lcm(config), objective=objective, **fields)


def lcm(config: ConfigDict) -> Callable[[], Params]:
    """How the averaged weights of the LCM in config.teacher_run are read.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the weights are read.
        ValueError: if the run is not one of digits_lcm.py or its network is preconditioned otherwise; if there is none,
            when the weights are read.
    """
    workdir = config.teacher_run
    if not workdir:
        return _no_lcm
    config_file, theirs = evaluation.read_run(workdir)
    if config_file.name != "digits_lcm.py":
        raise ValueError(f"the run in {workdir} is of {config_file.name}; only one of digits_lcm.py is fine-tuned here")
    if theirs.sigma_data != config.sigma_data:
        raise ValueError(f"the LCM in {workdir} has sigma_data {theirs.sigma_data}, this run {config.sigma_data}")
    return lambda: train.restore_average(workdir, f"power_{theirs.sigma_rels[0]:.2f}")[0]


def _no_lcm() -> Any:
    raise ValueError("this run needs a trained LCM: give its workdir with --config.teacher_run=DIR")
