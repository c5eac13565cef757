r"""Phased consistency distillation of Stable Diffusion (Wang et al. 2024): adapters for one number of steps.

    python main.py --config configs/stable_pcm.py --workdir runs/stable_pcm --config.phases=4 \
        --config.teacher=FOLDER --config.data=FOLDER

Every jump ends where the phase of its start does; the student's own weights are its target. The teacher is guided by a
random scale that the student is not told. Scales are ours, 1 is none; the code's w, 4 to 5, is one less.

Paper: FID and CLIP score on COCO-30k in 1 to 16 steps, better than LCM's up to 4; no number that we could verify.
Hardware: 8 A800, 20 captions each. Ours: not run.

Values are those of the code's script for SD 1.5 without a discriminator. The adversarial term is not here: its
discriminator is heads on the features of the teacher's U-Net, and doubles the steps. Differs from the code: 40 solver
steps for its 50, since phases then begin at the same timesteps in training and in sampling, for 1, 2, 4 and 8 of them.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import glue, stable
from losses import conversions, elementwise_pseudo_huber, pairs, steps, trajectory_consistency, triples
from losses.types import Loss, Net
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of the script, but for solver_steps."""
    config = stable.common()
    config.update(
        {
            "lora_rank": 64,  # 0 is the whole network
            "phases": 4,
            "solver_steps": 40,
            "guidance_range": (5.0, 6.0),
            "huber_c": 1e-3,
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
    low, high = config.guidance_range

    def D_of(params: Params, text: stable.Text) -> Net:
        return stable.denoiser(config, model, stable.weights(params), text)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_w = jax.random.split(key)
        text = batch["text"]
        w = jax.random.uniform(key_w, text.shape[:1], minval=low, maxval=high)
        teacher = stable.teacher(config, model, params, context, text, captions.empty, scale=w)
        return trajectory_consistency(
            conversions.denoiser_to_flow_map(stable.PATH, D_of(params, text)),
            batch["image"],
            key_loss,
            triples=partial(triples.pcm, grid=pairs.ddim_grid(config.solver_steps), phases=config.phases),
            step=partial(steps.ddim, denoiser=teacher),
            distance=partial(elementwise_pseudo_huber, c=config.huber_c),
            path=stable.PATH,
        )

    sampler = glue.ode_sampler(
        f"ddim {config.phases}",
        partial(ddim, path=stable.PATH),
        config.phases,
        D_of,
        captions.source.shape,
        grids.phased(config.phases),
        path=stable.PATH,
    )
    return Experiment(objective=objective, **stable.fields(config, model, captions, (sampler,)))
