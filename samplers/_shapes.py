"""Shapes in signatures, without a dependency.

jaxtyping gives `Float[Array, "batch *shape"]` its meaning and lets the tests check it. This island must run
where jax alone is installed; there the annotation is documentation and means the array type.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Key
else:
    try:
        from jaxtyping import Array, Bool, Float, Key
    except ModuleNotFoundError:
        from jax import Array

        class Float:
            """Stand-in for jaxtyping.Float."""

            def __class_getitem__(cls, item):
                return item[0]

        Bool = Key = Float

__all__ = ["Array", "Bool", "Float", "Key"]
