"""Converted consistency models (those of OpenAI, ECT) as runs: sampled and judged.

Not a run by itself: folders that `python -m models.pretrained` writes are runs of this config.
"""

import jax
from ml_collections import ConfigDict

from configs import glue, pretrained
from losses import edm
from losses.types import Net
from models.pretrained import calls
from train import Params

GRIDS = ((80.0,), (80.0, 0.821))  # ECT's two steps


def build(config: ConfigDict) -> pretrained.Published:
    """The network in one step and in two."""
    settings = config.settings
    model = pretrained.network(config)

    def f(params: Params, labels: jax.Array | None) -> Net:
        return calls.consistency_function(settings.call.to_dict(), glue.bind(model, params, labels))

    samplers = glue.consistency_samplers(f, settings.shape, GRIDS, path=edm, sigma_min=settings.call.sigma_min)
    return pretrained.published(config, samplers)
