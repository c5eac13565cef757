"""What the digits configs share that start from, or distil, one diffusion model: `digits_teacher`.

Not a run. One network F in TrigFlow's form serves them all, as cos(t) x_t - sigma_data sin(t) F(x_t / sigma_data, t),
read on the path that a method is published on. So the teacher's weights are a student's first ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import digits, forms, glue, teachers
from losses import Path, conversions
from losses.types import FlowMap, Net
from models import DiT, preconditioning
from train import Params


def get_config() -> ConfigDict:
    """Network, optimizer and judge of digits.py, without ECT's values; the budget of docs/results.md."""
    config = digits.get_config()
    config.steps = 2000
    config.time_scale = 1.0  # sCM differentiates the network in t: no frequency of its embedding above 1
    config.grids = ((80.0,), (80.0, 0.8), (80.0, 5.0, 1.5, 0.5), (80.0, 20.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25))
    for name in ("mean", "std", "q", "stages", "huber_c"):
        del config[name]
    config.teacher_run = ""
    return config


def on_path(model: DiT, config: ConfigDict, path: Path, *, w: float | jax.Array | None = None) -> glue.NetOf:
    """(params, labels) -> denoiser or consistency function on that path; of a guided network at the scale w."""

    def net_of(params: Params, labels: jax.Array | None) -> Net:
        f = preconditioning.trigflow(glue.bind(model, params, labels, w=w), config.sigma_data)
        return conversions.trigflow_on_path(f, path, sigma_data=config.sigma_data)

    return net_of


def on_path_with_end(model: DiT, config: ConfigDict, path: Path) -> Callable[[Params, jax.Array | None], FlowMap]:
    """(params, labels) -> g(x_t, t, s): the same for a network that is told where the jump ends, at s, an angle too."""

    def g_of(params: Params, labels: jax.Array | None) -> FlowMap:
        def g(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            end = jnp.arctan2(path.sigma(s) / config.sigma_data, path.alpha(s))
            f = preconditioning.trigflow(glue.bind(model, params, labels, s=end), config.sigma_data)
            return conversions.trigflow_on_path(f, path, sigma_data=config.sigma_data)(x_t, t)

        return g

    return g_of


def teacher(config: ConfigDict, source: data.Source, *, guidance: float = 1.0) -> teachers.Teacher:
    """The run in config.teacher_run, checked against this one."""
    return teachers.teacher(
        config.teacher_run,
        shape=source.shape,
        num_classes=source.num_classes,
        sigma_data=config.sigma_data,
        form=forms.TRIGFLOW,
        guidance=guidance,
    )
