"""How much of a block's forward pass is kept for the backward pass; the rest is computed again.

Each takes a class of modules and gives the one to use in its place. Blocks in a scan, one in each iteration, need no
`prevent_cse`, since nothing is merged across iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import flax.linen as nn
import jax

Remat: TypeAlias = Callable[..., Any]
"""(class of modules, prevent_cse=True) -> class of modules"""


def keep_all(block: Any, *, prevent_cse: bool = True) -> Any:
    """Everything that the derivative needs."""
    return block


def keep_products(block: Any, *, prevent_cse: bool = True) -> Any:
    """The results of linear layers: norms, activations and attention's weights are computed again, no layer is."""
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return nn.remat(block, prevent_cse=prevent_cse, policy=policy)


def keep_nothing(block: Any, *, prevent_cse: bool = True) -> Any:
    """Only the input of the block: least memory, and one forward pass more."""
    return nn.remat(block, prevent_cse=prevent_cse)


REMATS: Mapping[str, Remat] = MappingProxyType({"none": keep_all, "dots": keep_products, "full": keep_nothing})
"""By what is computed again: none of it, all but the products of matrices with weights, all."""
