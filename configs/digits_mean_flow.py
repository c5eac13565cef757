"""MeanFlow on scikit-learn's digits (Geng et al. 2025): the mean velocity between any two times, from scratch.

    python main.py --config configs/digits_mean_flow.py --workdir runs/digits_mean_flow

A quarter of the examples learns it between two times, the rest the velocity. Without guidance; with
--config.omega=1 --config.kappa=0.5 --config.label_dropout=0.1 its scale is 2. With --config.start_run=WORKDIR of
digits_rectified_flow.py it starts from that flow, which takes one time: the layers of t - s are random at first.

Differs from the paper: time law, weight and share are those of its ImageNet runs, the optimizer that of the digits.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, flow_maps, glue, mean_flows, teachers
from losses import pairs
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of digits_students.py, with the paper's values for ImageNet."""
    config = digits_students.get_config()
    for name in ("teacher_run", "grids", "sigma_data"):
        del config[name]
    config.update(
        {
            "start_run": "",
            "learning_rate": 2e-3,
            # times and weight
            "mean": -0.4,
            "std": 1.0,
            "jump_share": 0.25,
            "power": 1.0,
            "power_c": 0.01,
            # guidance inside the target: none
            "omega": 1.0,
            "kappa": 0.0,
            "guided_times": (0.0, 1.0),
            "label_dropout": 0.0,
            "drop_jumps": True,
            "step_counts": (1, 2, 4, 8, 32),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any images, with the rest of the experiment from `fields`."""
    mean_flows.check_guidance(config)
    model = digits.network(config, source).clone(second_time=True)
    init = glue.initialiser(model, source)

    def initial() -> Params:
        flow = mean_flows.trained(config.start_run)
        return teachers.extended_start(model, source, init(jax.random.key(config.seed)), flow)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        law = partial(pairs.sorted_logit_normal, mean=config.mean, std=config.std)
        u = mean_flows.mean_velocity(model, params)
        return mean_flows.objective_of(config, u, batch, key, law, num_classes=source.num_classes)

    samplers = flow_maps.flow_map_samplers(mean_flows.flow_map_of(model), source.shape, config.step_counts)
    return Experiment(
        init=init,
        initial=initial if config.start_run else None,
        objective=objective,
        **fields(config, source, samplers),
    )
