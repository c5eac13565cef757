"""Variational consistency training on scikit-learn's digits (Silvestri et al. 2025): ECT with a learned coupling.

    python main.py --config configs/digits_vct.py --workdir runs/digits_vct --config.teacher_run=runs/digits_teacher

digits_ect.py with its network, values and budget, and an encoder of the noise beside it: one block of a quarter of the
width. With the weights of the ImageNet runs, as here, the divergence counts beta; with 1/(t - s), snr_weighting=False,
beta times the weight at t = 80, which grows with the stages. From the second step on a sample is noised as the encoder
would noise it.

Differs from the paper: Adam, and no clipping of gradients, as in the other runs on digits; a beta for 64 pixels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, digits_ect, digits_students, glue, vct
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber, variational
from losses.types import Loss
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of digits_ect.py and those of the encoder."""
    config = digits_ect.get_config()
    config.update({"beta": 10.0, "encoder_width": 32, "encoder_depth": 1})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    encoder = model.clone(
        width=config.encoder_width,
        depth=config.encoder_depth,
        unroll=config.encoder_depth,
        out_channels=2 * source.shape[-1],
    )
    teacher = digits_students.teacher(config, source)
    f = vct.of_network(digits_students.on_path(model, config, edm))
    posterior_of = vct.encoding(encoder, config.sigma_data)
    init = vct.initialiser(model, encoder, source)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        x, labels = batch["image"], batch["label"]
        stage_steps = max(config.steps // config.stages, 1)
        stage = curricula.ect_stage(context.step, stage_steps=stage_steps, last=config.stages - 1)
        law = partial(
            pairs.ect,
            stage=stage,
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data) if config.snr_weighting else None,
        )
        posterior = posterior_of(params, labels, x)
        loss, metrics = consistency(
            f(params, labels),
            x,
            key,
            pairs=law,
            distance=partial(pseudo_huber, c=config.huber_c),
            coupling=partial(variational.coupling, posterior=posterior),
        )
        divergence = variational.divergence(posterior)
        _, largest_hop = pairs.ect_hop(jnp.full(1, 80.0), stage=stage, q=config.q)
        weight = config.beta if config.snr_weighting else config.beta / largest_hop
        return loss + weight * divergence, {**metrics, "divergence": divergence}

    samplers = glue.consistency_samplers(
        f, source.shape, config.grids, path=edm, noise_of=vct.learned_noise(posterior_of)
    )
    return Experiment(
        init=init,
        initial=vct.start(teacher, init, config.seed) if config.teacher_run else None,
        objective=objective,
        **digits.fields(config, source, samplers),
    )
