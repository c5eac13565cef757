r"""Align Your Flow on scikit-learn's digits (Sabour et al. 2025): a flow map distilled from a flow, AYF-EMD.

    python main.py --config configs/digits_ayf.py --workdir runs/digits_ayf \
        --config.teacher_run=runs/digits_rectified_flow

It starts from the teacher's weights. --config.weaker_run=DIR, a shorter run of the teacher's config, guides the teacher
by --config.guidance, and --config.lagrangian=True asks it where a jump ends (AYF-LMD).

Differs from the paper: uniform times, with shares at s = 0 and s = t that are our own, and no adversarial stage.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import digits, flow_maps, glue, guiding, teachers, trained_models
from losses import align_eulerian, align_lagrangian, curricula, pairs, tangents
from losses.types import Loss
from models import preconditioning
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The network and budget of docs/results.md."""
    config = flow_maps.get_config()
    config.update(
        {
            "teacher_run": "",
            "weaker_run": "",
            "guidance": 2.0,  # of the teacher by the weaker run; without that there is none
            "lagrangian": False,
            "to_data": 0.2,
            "same": 0.2,
            "tangent_c": 0.1,
            "warmup_share": 0.1,  # of the run, until the tangent is whole
            "learning_rate": 1e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source).clone(second_time=True)
    u_of = flow_maps.average_velocity(model)
    flow = teacher_of(config, source)
    velocity = flow.velocity
    if config.weaker_run:
        velocity = guiding.by_weaker(velocity, config.weaker_run, flow.average, scale=config.guidance)
    loss = align_lagrangian if config.lagrangian else align_eulerian
    init = glue.initialiser(model, source)

    def trained() -> Params:
        if not config.teacher_run:
            raise ValueError("this run needs a trained flow: give its workdir with --config.teacher_run=DIR")
        return flow.network(train.restore_average(config.teacher_run, flow.average)[0])

    def initial() -> Params:
        return teachers.extended_start(model, source, init(jax.random.key(config.seed)), trained())

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        return loss(
            u_of(params, labels),
            batch["image"],
            key,
            velocity=velocity(context.frozen, labels),
            pairs=partial(pairs.ordered, to_data=config.to_data, same=config.same),
            warmup=curricula.tangent_warmup(context.step, steps=max(int(config.steps * config.warmup_share), 1)),
            tangent=partial(tangents.normalised, c=config.tangent_c),
        )

    samplers = flow_maps.flow_map_samplers(flow_maps.jumps_of(u_of), source.shape, config.step_counts)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=trained,
        objective=objective,
        **digits.fields(config, source, samplers),
    )


def teacher_of(config: ConfigDict, source: data.Source) -> trained_models.Flow:
    """What the run in config.teacher_run says of its flow, checked; that of digits_rectified_flow.py without a run.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the run is not of a flow, or of other data.
    """
    if not config.teacher_run:
        return trained_models.Flow(_no_flow, preconditioning.velocity, source.shape, source.num_classes, average="")
    config_file, values = evaluation.read_run(config.teacher_run)
    module = evaluation.load_module(config_file)
    if not hasattr(module, "flow"):
        raise ValueError(f"the run in {config.teacher_run} is of {config_file.name}, which does not train a flow")
    flow: trained_models.Flow = module.flow(values)
    teachers.check_alike(
        f"the teacher in {config.teacher_run}",
        shape=(tuple(flow.shape), tuple(source.shape)),
        num_classes=(flow.num_classes, source.num_classes),
    )
    return flow


def _no_flow(params: Params, labels: jax.Array | None):
    raise ValueError("this run needs a trained flow: give its workdir with --config.teacher_run=DIR")
