"""What the runs on latents of ImageNet-256 share that learn a flow map with SiT's transformer: LSD, ESD, PSD, AYF.

Not a run. The network is SiT's, told a second time: a run of imagenet256_sit.py, or a converted SiT or REPA, starts it.
"""

from functools import partial

import optax
from ml_collections import ConfigDict

from configs import flow_maps, flows, imagenet256, imagenet256_mean_flow, judged
from train import Experiment, averages


def common(size: str) -> ConfigDict:
    """The values of all four for a size of SiT; batch, rate and average are its own.

    Raises:
        ValueError: naming the sizes that there are.
    """
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            "teacher_run": "",
            # network
            **imagenet256.transformer(size),
            "bfloat16": False,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            # optimizer
            "steps": 400_000,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            "accumulate": 1,
            "fsdp": 1,
            "tensor": 1,
            "averages_on_host": False,
            # sampling and judging
            "step_counts": (1, 2, 4, 8),
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def matching_config(size: str) -> ConfigDict:
    """The same, with the values of the self-distilled runs on the digits."""
    config = common(size)
    config.update({"share": 0.25, "floor": 0.1, "clip": 1.0})
    return config


def self_distilled(config: ConfigDict, residual: flow_maps.Residual) -> Experiment:
    """Self-distillation on these latents, from random weights or from those of the flow in config.teacher_run."""
    space = imagenet256.space(config)
    source = space.source
    model = imagenet256_mean_flow.network(config, source.num_classes)
    start = flows.start(config, model, source).get("initial")
    learned, samplers = flow_maps.self_distillation(config, model, source, residual, start=start)
    return Experiment(
        **learned,
        optimizer=optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(config.learning_rate)),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
