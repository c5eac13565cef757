r"""2-rectified flow++ on CIFAR-10 (Lee et al. 2024): reflow of an EDM diffusion model, NCSN++, LPIPS.

    python main.py --config configs/cifar10_edm.py --workdir runs/cifar10_edm_ncsnpp --config.ncsnpp=True \
        --config.data_dir=DIR
    python main.py --workdir runs/cifar10_edm_ncsnpp --mode=pairs --n=1000000 --eight_bit --out=runs/cifar10_pairs
    python main.py --workdir runs/cifar10_edm_ncsnpp --mode=pairs --invert --eight_bit --out=runs/cifar10_real_pairs
    python main.py --config configs/cifar10_reflow.py --workdir runs/cifar10_reflow --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_edm_ncsnpp --config.lpips=FILE.npz --config.pairs=runs/cifar10_pairs \
        --config.real_pairs=runs/cifar10_real_pairs

Paper: FID-50k 3.07 in one step and 2.40 in two with pairs of real images (configuration G), 3.38 and 2.76 without (F),
unconditional, 800k steps of batch 512 (all unverified). Hardware: not said. Ours: not run. Without an LPIPS file the
predicted data are compared by squared l2.

Starts from the EDM network, read as a velocity on the straight path; what the EDM run's 18 Heun steps make of 80 z is
paired with z.

Differs: the pairs of real images are the whole training set once, one in 21 of all pairs, as the paper's share of them
is not known to us; the networks counted 55.7 M parameters in the paper and 56.4 M in EDM's own table and here; 1/t is
held below t = 1e-5.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import cifar10, distances, flows, glue, teachers
from losses import linear, reflow
from losses.types import Loss, Net
from models import ncsnpp, preconditioning
from samplers import grids, rectified
from train import Batch, Context, Experiment, Params, averages, schedules


def get_config() -> ConfigDict:
    """The values of the authors' code, configuration G."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",
            "pairs": "",
            "real_pairs": "",
            "lpips": "",
            "batch_size": 512,
            "steps": 800_000,
            "dropout": 0.13,
            "sigma_data": 0.5,
            "learning_rate": 2e-4,
            "warmup_steps": 5_000,
            "average_decay": 0.9999,
            "sampler_steps": (1, 2, 4),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images, classes = cifar10.source(config), cifar10.classes(config)
    teacher = cifar10.teacher(config, images)
    model = teachers.built_as(teacher, cifar10.unet(ncsnpp, config))
    F = teachers.network_of(teacher, model, config.sigma_data)
    metric = distances.lpips_or_l2(config.lpips, pool=distances.vgg.average_pool)
    pairs = flows.pairs_of(config, images.shape, classes)

    def velocity(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        return preconditioning.edm_velocity(F(params, labels, dropout), config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        return reflow(
            velocity(params, batch.get("label"), key_dropout),
            batch["image"],
            key_loss,
            coupling=lambda key, x: (x, batch["noise"]),
            perceptual=metric.distance(context.frozen),
        )

    rate = schedules.warmup_constant(config.learning_rate, steps=config.warmup_steps)
    first = 1 - 1e-5  # where the authors' grids begin, in place of 1
    samplers = tuple(
        glue.ode_sampler(
            f"rectified {n}",
            rectified,
            n,
            velocity,
            images.shape,
            grids.explicit(first, *grids.linear(n)[1:]),
            path=linear,
        )
        for n in config.sampler_steps
    )
    rest = cifar10.fields(config, images, samplers, flip=False)
    return Experiment(
        init=glue.initialiser(model, images),
        objective=objective,
        frozen=metric.params,
        optimizer=optax.adam(rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **rest | flows.pair_data(pairs, seed=config.seed, batch_size=config.batch_size, num_classes=classes),
    )
