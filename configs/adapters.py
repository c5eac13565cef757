"""Low-rank adapters in the place of a network's weights: what the runs share that train them.

Not a run. Parameters are {"network": those of the teacher, which stay what they are, "adapters": what is trained}, so
that a checkpoint is whole; whatever else stands beside the two is trained as well.
"""

import jax
import optax

from models import lora
from train import Params


def weights(params: Params) -> Params:
    """Ordinary parameters of the network, adapters added: what it is called with, and what a merged model keeps.

    Gradients flow into the adapters alone.
    """
    return lora.adapted(jax.lax.stop_gradient(params["network"]), params["adapters"])


def optimizer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer for all but the network, for which it has no state; norms are clipped without it too."""

    def labels(params: Params) -> dict[str, str]:
        return {name: "kept" if name == "network" else "trained" for name in params}

    return optax.partition({"trained": inner, "kept": optax.set_to_zero()}, labels)
