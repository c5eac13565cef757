r"""MeanFlow on latents of ImageNet-256 (Geng et al. 2025), guidance in the target, from scratch, in five sizes.

    python main.py --config configs/imagenet256_mean_flow.py --workdir runs/imagenet256_mean_flow \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_mean_flow.py:XL/2 --workdir runs/imagenet256_mean_flow_xl \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 256 x 256 images as 32 x 32 x 4 latents, written by `main.py --mode=encode`; those of Stable Diffusion's
autoencoder ft-MSE, times 0.18215, in the paper. Sizes B/4 (the default), B/2, M/2, L/2, XL/2.

Paper: FID-50k in one step 11.4 (B/4), 6.17 (B/2), 5.01 (M/2), 3.84 (L/2), 3.43 (XL/2), and 2.93 in two with XL/2; all
but the first unverified, as are the guidance numbers of each size. B/4 has 48.2 without guidance. Hardware: not said.
Ours: not run.

Differs: labels are dropped from all examples; in the authors' code the dropped ones are the first rows of a batch,
which have s = t, so that its null class is trained there alone: --config.drop_jumps=False. Latents are not mirrored.
The shape of M/2, 16 blocks of width 1024, is unverified.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import flow_maps, flows, glue, imagenet256, judged, mean_flows
from losses import pairs
from losses.types import Loss
from models import SIZES as WIDTHS
from models import DiT
from models.dit import Size
from train import Batch, Context, Experiment, Params, averages

NETWORKS = {**WIDTHS, "M": Size(width=1024, depth=16, heads=16)}
HALF = {"omega": 1.0, "kappa": 0.5, "guided_times": (0.0, 1.0)}
VARIANTS: dict[str, dict[str, Any]] = {
    "B/4": HALF,
    "B/2": HALF,
    "M/2": HALF,
    "L/2": {"omega": 0.2, "kappa": 0.92, "guided_times": (0.0, 0.8)},
    "XL/2": {"omega": 0.2, "kappa": 0.92, "guided_times": (0.0, 0.75)},
}
EPOCH = 1_281_167


def get_config(size: str = "B/4") -> ConfigDict:
    """The code's values for a size.

    Raises:
        ValueError: naming the sizes that there are.
    """
    if size not in VARIANTS:
        raise ValueError(f"size is {size!r}, this run is published in {', '.join(VARIANTS)}")
    name, patch = size.split("/")
    batch_size = 256
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            "teacher_run": "",  # a flow to start from, such as a converted SiT
            # network
            "patch": int(patch),
            **NETWORKS[name]._asdict(),
            "bfloat16": False,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            # times, weight, guidance
            "mean": -0.4,
            "std": 1.0,
            "jump_share": 0.25,
            "power": 1.0,
            "power_c": 0.01,
            "label_dropout": 0.1,
            "drop_jumps": True,
            **VARIANTS[size],
            # optimizer
            "batch_size": batch_size,
            "steps": 240 * EPOCH // batch_size,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            "accumulate": 1,
            "fsdp": 1,
            "tensor": 1,
            "averages_on_host": False,
            # sampling and judging
            "step_counts": (1, 2, 4),
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def network(config: ConfigDict, num_classes: int) -> DiT:
    """The transformer of SiT, told a second time."""
    return DiT(
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        num_classes=num_classes,
        second_time=True,
        remat=glue.remat(config.remat),
        unroll=config.unroll,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    mean_flows.check_guidance(config)
    space = imagenet256.space(config)
    classes = space.source.num_classes
    model = network(config, classes)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        law = partial(pairs.sorted_logit_normal, mean=config.mean, std=config.std)
        u = mean_flows.mean_velocity(model, params)
        return mean_flows.objective_of(config, u, batch, key, law, num_classes=classes)

    samplers = flow_maps.flow_map_samplers(mean_flows.flow_map_of(model), space.source.shape, config.step_counts)
    return Experiment(
        init=glue.initialiser(model, space.source),
        **flows.start(config, model, space.source),
        objective=objective,
        optimizer=optax.adamw(config.learning_rate, b2=0.95, weight_decay=0.0),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers),
    )
