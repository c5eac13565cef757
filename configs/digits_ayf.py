r"""Align Your Flow on scikit-learn's digits (Sabour et al. 2025): a flow map distilled from a flow, AYF-EMD.

    python main.py --config configs/digits_ayf.py --workdir runs/digits_ayf \
        --config.teacher_run=runs/digits_rectified_flow

It starts from the teacher's weights. --config.weaker_run=DIR, a shorter run of the teacher's config, guides the teacher
by --config.guidance, and --config.lagrangian=True asks it where a jump ends (AYF-LMD).

Differs from the paper: uniform times, with shares at s = 0 and s = t that are our own, and no adversarial stage.
"""

from ml_collections import ConfigDict

import data
from configs import aligning, digits, flow_maps, flows, glue, guiding
from train import Experiment


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
    teacher = aligning.teacher(config.teacher_run, source)
    if config.weaker_run:
        guided = guiding.by_weaker(teacher.velocity, config.weaker_run, teacher.average, scale=config.guidance)
        teacher = teacher._replace(velocity=guided)
    warmup_steps = max(int(config.steps * config.warmup_share), 1)
    samplers = flow_maps.flow_map_samplers(flow_maps.jumps_of(u_of), source.shape, config.step_counts)
    return Experiment(
        init=glue.initialiser(model, source),
        **flows.start(config, model, source),
        frozen=teacher.params,
        objective=aligning.objective(config, u_of, teacher, warmup_steps=warmup_steps),
        **digits.fields(config, source, samplers),
    )
