"""ECT on digits in colour, each class around a hue of its own: the model behind the editing pictures.

    python main.py --config configs/digits_coloured.py --workdir runs/digits_coloured
    python -m benchmarks.editing_pictures --workdir runs/digits_coloured --out docs/images/editing.png

The digits of digits.py, its network and its method; RGB, so that there is something to colour.
"""

import colorsys
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

import data
from configs import digits, glue, judges
from losses import consistency, curricula, edm, edm_weight, pairs, pseudo_huber
from losses.types import Loss, Net
from models import preconditioning
from train import Batch, Context, Experiment, Params


def get_config() -> ConfigDict:
    """The values of digits.py, for data that are less wide."""
    config = digits.get_config()
    config.sigma_data = 0.57
    return config


def source(config: ConfigDict) -> data.ArraySource:
    """scikit-learn's digits in colour: a hue for each class, scattered a little from image to image."""
    grey = data.digits()
    hues = (np.asarray(grey.label) / grey.num_classes + np.random.RandomState(0).uniform(-0.02, 0.02, len(grey))) % 1.0
    colours = np.asarray([colorsys.hsv_to_rgb(hue, 0.8, 1.0) for hue in hues])
    image = np.round(grey.image * colours[:, None, None, :]).astype(np.uint8)
    return data.ArraySource("digits/coloured", image, grey.label, num_classes=grey.num_classes)


def consistency_function(config: ConfigDict) -> glue.NetOf:
    """(params, labels) -> the consistency function, for samplers beyond those of the run."""
    model = digits.network(config, source(config))

    def f(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.consistency(glue.bind(model, params, labels), config.sigma_data)

    return f


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = source(config)
    f = consistency_function(config)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        stage_steps = max(config.steps // config.stages, 1)
        law = partial(
            pairs.ect,
            stage=curricula.ect_stage(context.step, stage_steps=stage_steps, last=config.stages - 1),
            mean=config.mean,
            std=config.std,
            q=config.q,
            weight=partial(edm_weight, sigma_data=config.sigma_data),
        )
        distance = partial(pseudo_huber, c=config.huber_c)
        return consistency(f(params, batch["label"]), batch["image"], key, pairs=law, distance=distance)

    fields = digits.fields(config, images, glue.consistency_samplers(f, images.shape, config.grids, path=edm))
    fields["judge"] = judges.pixel_judge(images)
    return Experiment(init=glue.initialiser(digits.network(config, images), images), objective=objective, **fields)
