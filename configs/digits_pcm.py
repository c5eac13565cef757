r"""Phased consistency models on scikit-learn's digits (Wang et al. 2024): a model for each number of steps.

    python main.py --config configs/digits_pcm.py --workdir runs/digits_pcm --config.phases=4 \
        --config.teacher_run=runs/digits_teacher

Every jump ends where the phase of its start does. Phases begin at the same timesteps in training and in sampling,
which 40 solver steps allow for 1, 2, 4 and 8 of them, and the published 50 do not.

Differs from the paper: a whole network instead of LoRA, guided by one scale, by default none; and a distance that is
nearly l2, since with the published huber_c = 1e-3, nearly l1, one phase has an fd_pixels_2k of 1.65 in one step instead
of 0.670. And no discriminator: --config.adversarial_weight=0.1 adds one, small, convolutional, told label and timestep,
trained in the same steps.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, teachers, trajectories
from losses import Jumps, conversions, elementwise_pseudo_huber, jumps, pairs, paths, steps, triples
from losses.adversarial import renoise, saturating_hinge_generator
from losses.types import Loss, PerExample
from models.autoencoder_discriminator import PatchDiscriminator
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params

TIMESTEPS = 1000


def get_config() -> ConfigDict:
    """The teacher's network and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "phases": 4,
            "solver_steps": 40,
            "guidance": 1.0,
            "huber_c": 1.0,
            # the discriminator; 0 is none
            "adversarial_weight": 0.0,
            "discriminator_channels": 32,
            "learning_rate": 1e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any examples, with the rest of the experiment from `fields`."""
    path = paths.scaled_linear_beta(TIMESTEPS)
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    model = digits.network(config, source)
    denoiser_of = digits_students.on_path(model, config, path)
    judge = trajectories.discriminator(config.discriminator_channels) if config.adversarial_weight else None
    seen = (*source.shape[:2], source.shape[2] + source.num_classes + 1)
    init = trajectories.initialiser(glue.initialiser(model, source), judge, seen)

    def initial() -> Params:
        return {**init(jax.random.key(config.seed)), "network": teacher.params()}

    def players(
        judge: PatchDiscriminator, params: Params, pair: Jumps, labels: jax.Array, key: jax.Array
    ) -> tuple[PerExample, PerExample]:
        """Both ends of the jumps, noised to one random timestep of their phase: estimates are fake, goals real."""
        key_t, key_fake, key_real = jax.random.split(key, 3)
        t = pair.s + jax.random.randint(key_t, pair.s.shape, 0, TIMESTEPS // config.phases)
        told = jax.nn.one_hot(labels, source.num_classes), t[:, None] / TIMESTEPS

        def noised(x_s: jax.Array, key: jax.Array) -> jax.Array:
            x_t = renoise(path, x_s, jax.random.normal(key, x_s.shape), pair.s, t)
            return trajectories.beside(x_t, *told)

        return trajectories.players(
            trajectories.patches(judge),
            params,
            noised(pair.goal, key_real),
            noised(pair.estimate, key_fake),
            generator=saturating_hinge_generator,
        )

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_jumps, key_players = jax.random.split(key)
        labels = batch["label"]
        denoiser = teachers.guided(teacher, context.frozen, labels, path, scale=config.guidance)
        pair = jumps(
            conversions.denoiser_to_flow_map(path, denoiser_of(params["network"], labels)),
            batch["image"],
            key_jumps,
            triples=partial(triples.pcm, grid=pairs.ddim_grid(config.solver_steps), phases=config.phases),
            step=partial(steps.ddim, denoiser=denoiser),
            path=path,
        )
        loss = elementwise_pseudo_huber(pair.estimate, pair.goal, c=config.huber_c)
        parts = {"t": pair.t, "distance": loss}
        if judge is not None:
            parts["adversarial"], parts["discriminator"] = players(judge, params, pair, labels, key_players)
            loss += config.adversarial_weight * parts["adversarial"] + parts["discriminator"]
        return loss, parts

    sampler = glue.ode_sampler(
        f"ddim {config.phases}",
        partial(ddim, path=path),
        config.phases,
        lambda params, labels: denoiser_of(params["network"], labels),
        source.shape,
        grids.phased(config.phases, steps=TIMESTEPS),
        path=path,
    )
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params,
        objective=objective,
        **fields(config, source, (sampler,)),
    )
