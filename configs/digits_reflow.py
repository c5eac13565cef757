r"""Reflow on scikit-learn's digits: the flow again, on pairs of noise and what the flow makes of it.

    python main.py --config configs/digits_rectified_flow.py --workdir runs/digits_rectified_flow
    python main.py --workdir runs/digits_rectified_flow --mode=pairs --n=20000 --out=runs/digits_pairs
    python main.py --config configs/digits_reflow.py --workdir runs/digits_reflow --config.pairs=runs/digits_pairs \
        --config.teacher_run=runs/digits_rectified_flow

Starts from the flow's weights. With --config.improved=True it is 2-rectified flow++ (Lee et al. 2024): U-shaped times,
a robust distance, and the data predicted at every time compared too; by default that of Liu et al. 2022.
--config.real_pairs=FOLDER adds pairs of real images, which `--mode=pairs --invert --out=FOLDER` has taken up to noise.

Differs from the papers: 20,000 pairs for a million; predicted digits are compared by the distance of velocities, not by
LPIPS, which has no meaning for 8 x 8 pixels.
"""

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, flows, glue
from losses import linear, rectified_flow, reflow, scaled_pseudo_huber
from losses.types import Loss, Net
from models import preconditioning
from samplers import euler, grids
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The flow's network and the budget of digits_students.py."""
    config = digits_students.get_config()
    del config.grids, config.sigma_data
    config.update(
        {
            "pairs": "",
            "real_pairs": "",
            "improved": False,
            "learning_rate": 1e-3,
            "euler_steps": (1, 2, 4, 8, 32),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    model = digits.network(config, source)
    pairs = flows.pairs_of(config, source.shape, source.num_classes)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        net = velocity(params, batch["label"])

        def coupling(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return x, batch["noise"]

        if config.improved:
            return reflow(net, batch["image"], key, coupling=coupling, perceptual=scaled_pseudo_huber)
        return rectified_flow(net, batch["image"], key, coupling=coupling)

    samplers = tuple(
        glue.ode_sampler(f"euler {n}", euler, n, velocity, source.shape, grids.linear(n), path=linear)
        for n in config.euler_steps
    )
    rest = digits.fields(config, source, samplers) | flows.pair_data(
        pairs, seed=config.seed, batch_size=config.batch_size, num_classes=source.num_classes
    )
    return Experiment(
        init=glue.initialiser(model, source), objective=objective, **flows.start(config, model, source), **rest
    )
