r"""LCM-LoRA on scikit-learn's digits (Luo et al. 2023): latent consistency distillation of adapters, in pixels.

    python main.py --config configs/digits_lcm_lora.py --workdir runs/digits_lcm_lora \
        --config.teacher_run=runs/digits_teacher

As digits_lcm.py, but the teacher's weights stay what they are, and what is trained is added to them: two factors of
rank 8 for every kernel. The network is told no guidance scale, and its own weights are its target.

Differs from the paper: pixels of digits instead of latents; guided by one scale, by default none, instead of by a
random one; rank 8 instead of 64, adapters of all kernels.
"""

from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import adapters, digits, digits_students, glue, teachers
from losses import consistency, elementwise_pseudo_huber, pairs, paths, steps
from losses.types import Loss, Net
from models import lora, preconditioning
from samplers import grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The teacher's network, and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "lora_rank": 8,
            "solver_steps": 50,
            "guidance": 1.0,
            "huber_c": 1.0,
            "learning_rate": 1e-3,
            "step_counts": (1, 2, 4, 8),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source, path = data.digits(), paths.scaled_linear_beta()
    teacher = digits_students.teacher(config, source, guidance=config.guidance)
    model = digits.network(config, source)
    random_network = glue.initialiser(model, source)
    D_of = digits_students.on_path(model, config, path)

    def start(key: jax.Array, network: Params) -> Params:
        return {"network": network, "adapters": lora.lora(key, network, config.lora_rank)}

    def init(key: jax.Array) -> Params:
        key_network, key_adapters = jax.random.split(key)
        return start(key_adapters, random_network(key_network))

    def f(params: Params, labels: jax.Array | None) -> Net:
        """The consistency function: the identity at timestep 0, and nearly D at all others."""
        return preconditioning.latent_consistency(D_of(adapters.weights(params), labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        denoiser = teachers.guided(teacher, context.frozen, labels, path, scale=config.guidance)
        return consistency(
            f(params, labels),
            batch["image"],
            key,
            pairs=partial(pairs.lcm, grid=pairs.ddim_grid(config.solver_steps)),
            step=partial(steps.ddim, denoiser=denoiser),
            distance=partial(elementwise_pseudo_huber, c=config.huber_c),
            path=path,
        )

    timesteps = [grids.latent_consistency(n, solver_steps=config.solver_steps).tolist() for n in config.step_counts]
    fields = digits.fields(config, source, glue.consistency_samplers(f, source.shape, timesteps, path=path))
    fields["optimizer"] = adapters.optimizer(fields["optimizer"])
    return Experiment(
        init=init,
        initial=(lambda: start(jax.random.key(config.seed), teacher.params())) if config.teacher_run else None,
        frozen=teacher.params,
        objective=objective,
        **fields,
    )
