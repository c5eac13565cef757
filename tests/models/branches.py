"""What U-Nets with a branch of its own for a second time have in common."""

from collections.abc import Mapping
from typing import Any


def blocks_of_branch(params: Mapping[str, Any]) -> set[str]:
    """The blocks that are told t, each of which the branch of s has to reach by two layers of its own."""
    blocks = {name for name, layer in params.items() if "affine" in layer}
    assert {name for name, layer in params.items() if "affine_s" in layer} == blocks
    assert {name for name in params if name.endswith("_s")} == {"map_layer0_s", "map_layer1_s"}
    return blocks
