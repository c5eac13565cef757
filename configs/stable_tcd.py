r"""Trajectory consistency distillation of Stable Diffusion (Zheng et al. 2024): adapters that jump to any timestep.

    python main.py --config configs/stable_tcd.py --workdir runs/stable_tcd \
        --config.teacher=FOLDER --config.data=FOLDER

One DDIM step of the teacher out of 50, guided by a random scale that the student is not told; both jumps end at the
same random timestep and are compared there. Sampling jumps below the next timestep, by a share eta of it, and noises
up to it. Scales are ours, 1 is none; the paper's w is one less.

Paper: samples do not get worse with more steps, as LCM's do; no table that we could verify. Hardware: not said. Ours:
not run. There is no training code: rank, scales 2 to 14, rate, steps and the target's average are from memory
(unverified), the batch is our choice, and AdamW's other values are those of diffusers' script for LCM.

The network is told the timestep where it jumps to (the paper's TCF(S+)) by a layer that is zero at first, so that the
student starts as its teacher. The released adapters fit the plain network: --config.second_time=False is theirs, and
one prediction must then do for all ends.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

from configs import guiding, stable, trajectories
from losses import l2, pairs, steps, trajectory_consistency, triples
from losses.types import FlowMap, Loss
from samplers import grids
from samplers.strategic import shortened_index
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The paper's values, as far as they are known."""
    config = stable.common()
    config.update(
        {
            "lora_rank": 64,  # 0 is the whole network
            "second_time": True,
            "guidance_range": (3.0, 15.0),
            "target_decay": 0.95,
            "steps": 3000,
            "batch_size": 72,
            "learning_rate": 4.5e-6,
            "eta": 0.3,
            "step_counts": (1, 2, 4, 8),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    model = stable.network(config).clone(second_time=config.second_time)
    captions = stable.captions(config, model)
    low, high = guiding.scales(config)

    def g_of(params: Params, text: stable.Text) -> FlowMap:
        """The data prediction of these captions, for a jump from t to s."""
        weights = stable.weights(params)

        def g(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            end = s if model.second_time else None
            return stable.denoiser(config, model, weights, text, s=end)(x_t, t)

        return g

    flow_map = trajectories.flow_map(g_of, stable.PATH)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_w = jax.random.split(key)
        text = batch["text"]
        w = jax.random.uniform(key_w, text.shape[:1], minval=low, maxval=high)
        teacher = stable.teacher(config, model, params, context, text, captions.empty, scale=w)
        return trajectory_consistency(
            flow_map(params, text),
            batch["image"],
            key_loss,
            triples=partial(triples.tcd, grid=pairs.ddim_grid(config.solver_steps)),
            step=partial(steps.ddim, denoiser=teacher),
            target=flow_map(context.averages["target"], text),
            distance=l2,
            path=stable.PATH,
        )

    samplers = tuple(
        trajectories.strategic_sampler(
            f"strategic {n}, eta {config.eta:g}",
            flow_map,
            captions.source.shape,
            grids.latent_consistency(n, solver_steps=config.solver_steps),
            path=stable.PATH,
            stop=shortened_index(config.eta),
        )
        for n in config.step_counts
    )
    fields = stable.fields(config, model, captions, samplers, target_decay=config.target_decay)
    return Experiment(objective=objective, **fields)
