r"""Phased consistency distillation of Stable Diffusion (Wang et al. 2024): adapters for one number of steps.

    python main.py --config configs/stable_pcm.py --workdir runs/stable_pcm --config.phases=4 \
        --config.teacher=FOLDER --config.data=FOLDER

Every jump ends where the phase of its start does; the student's own weights are its target. The teacher is guided by a
random scale that the student is not told. Scales are ours, 1 is none; the code's w, 4 to 5, is one less.

Paper: FID and CLIP score on COCO-30k in 1 to 16 steps, better than LCM's up to 4; no number that we could verify.
Hardware: 8 A800, 20 captions each. Ours: not run.

The discriminator, heads on the features of the teacher's U-Net, sees both ends of the jumps with fresh noise, at one
timestep of their phase: the student's are fake, their targets real. --config.adversarial_weight=0 is without one.

Values are those of the code's scripts for SD 1.5. Differs from the code: both players train in every step, 5,000 where
the code has 10,000 that take turns; and 40 solver steps for its 50, since phases then begin at the same timesteps in
training and in sampling, for 1, 2, 4 and 8 of them.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, guiding, stable, stable_discriminator, trajectories
from losses import Jumps, conversions, elementwise_pseudo_huber, jumps, pairs, steps, triples
from losses.adversarial import renoise, saturating_hinge_generator
from losses.types import Loss, Net, PerExample
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params

TIMESTEPS = 1000


def get_config() -> ConfigDict:
    """The values of the scripts, but for solver_steps."""
    config = stable.common()
    config.update(
        {
            "lora_rank": 64,  # 0 is the whole network
            "phases": 4,
            "solver_steps": 40,
            "guidance_range": (5.0, 6.0),
            "huber_c": 1e-3,
            # the discriminator; 0 is none
            "adversarial_weight": 0.1,
            "discriminator_rate": 1e-5,
            "steps": 5000,
            "batch_size": 160,
            "learning_rate": 5e-6,
            "weight_decay": 1e-3,
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    model = stable.network(config)
    captions = stable.captions(config, model)
    low, high = guiding.scales(config)

    def D_of(params: Params, text: stable.Text) -> Net:
        return stable.denoiser(config, model, stable.weights(params), text)

    def players(
        params: Params, pair: Jumps, text: stable.Text, context: Context, key: jax.Array
    ) -> tuple[PerExample, PerExample]:
        """Both ends of the jumps, noised to one random timestep of their phase: estimates are fake, goals real."""
        key_t, key_fake, key_real = jax.random.split(key, 3)
        t = pair.s + jax.random.randint(key_t, pair.s.shape, 0, TIMESTEPS // config.phases)

        def noised(x_s: jax.Array, key: jax.Array) -> jax.Array:
            return renoise(stable.PATH, x_s, jax.random.normal(key, x_s.shape), pair.s, t)

        return trajectories.players(
            stable_discriminator.heads_of(model, params, context, text, t),
            params,
            noised(pair.goal, key_real),
            noised(pair.estimate, key_fake),
            generator=saturating_hinge_generator,
        )

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_jumps, key_w, key_players = jax.random.split(key, 3)
        text = batch["text"]
        w = jax.random.uniform(key_w, text.shape[:1], minval=low, maxval=high)
        teacher = stable.teacher(config, model, params, context, text, captions.empty, scale=w)
        pair = jumps(
            conversions.denoiser_to_flow_map(stable.PATH, D_of(params, text)),
            batch["image"],
            key_jumps,
            triples=partial(triples.pcm, grid=pairs.ddim_grid(config.solver_steps), phases=config.phases),
            step=partial(steps.ddim, denoiser=teacher),
            path=stable.PATH,
        )
        loss = elementwise_pseudo_huber(pair.estimate, pair.goal, c=config.huber_c)
        parts = {"t": pair.t, "distance": loss}
        if config.adversarial_weight:
            parts["adversarial"], parts["discriminator"] = players(params, pair, text, context, key_players)
            loss += config.adversarial_weight * parts["adversarial"] + parts["discriminator"]
        return loss, parts

    sampler = glue.ode_sampler(
        f"ddim {config.phases}",
        partial(ddim, path=stable.PATH),
        config.phases,
        D_of,
        captions.source.shape,
        grids.phased(config.phases),
        path=stable.PATH,
    )
    fields = stable.fields(config, model, captions, (sampler,))
    if config.adversarial_weight:
        fields = stable_discriminator.added(config, model, fields)
    return Experiment(objective=objective, **fields)
