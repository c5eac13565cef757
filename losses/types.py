"""The few types that every recipe and every ingredient speaks.

A network is a plain callable. Its parameters, labels, dropout key and precision live in the closure, so a
student, a teacher and an average are the same type, and any JAX network can be used.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from ._shapes import Array, Float, Key

Batch: TypeAlias = Float[Array, "batch *shape"]
PerExample: TypeAlias = Float[Array, "batch"]
Factor: TypeAlias = Float[Array, "batch *ones"]
"""One number per example with a batch's axes, [B, 1, ..., 1]"""

Net: TypeAlias = Callable[[Array, Array], Array]
"""net(x[B, ...], t[B]) -> [B, ...]"""

FlowMap: TypeAlias = Callable[[Array, Array, Array], Array]
"""flow_map(x[B, ...], t[B], s[B]) -> [B, ...], the state at time s <= t"""

AverageVelocity: TypeAlias = Callable[[Array, Array, Array], Array]
"""u(x_t[B, ...], t[B], s[B]) -> [B, ...], the mean velocity of the trajectory between s <= t and t; v where s = t"""

Schedule: TypeAlias = Callable[[Array], Array]
"""schedule(t[B]) -> [B], one coefficient of a path; differentiable"""

Times: TypeAlias = Callable[[Key, int], Array]
"""times(key, n) -> t[n]"""

Pairs: TypeAlias = Callable[[Key, int], tuple[Array, Array, Array]]
"""pairs(key, n) -> t[n], s[n], weight[n] with s < t"""

Triples: TypeAlias = Callable[[Key, int], tuple[Array, Array, Array]]
"""triples(key, n) -> t[n], u[n], s[n] with s <= u < t"""

Step: TypeAlias = Callable[[Any, Array, Array, Array, Array], Array]
"""step(path, x[B, ...], z[B, ...], t[B], s[B]) -> x_s[B, ...]"""

Tangent: TypeAlias = Callable[[Array], Array]
"""tangent(g[B, ...]) -> [B, ...], a derivative made safe to regress on"""

Coupling: TypeAlias = Callable[[Key, Array], tuple[Array, Array]]
"""coupling(key, x[B, ...]) -> x[B, ...], z[B, ...]"""

Distance: TypeAlias = Callable[[Array, Array], Array]
"""distance(a[B, ...], b[B, ...]) -> [B]"""

Weight: TypeAlias = Callable[[Array], Array]
"""weight(t[B]) -> [B]"""

Loss: TypeAlias = tuple[PerExample, dict[str, PerExample]]
"""What a recipe returns: one float32 number per example, and metrics that are also one number per example."""
