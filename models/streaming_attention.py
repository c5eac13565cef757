"""Softmax attention whose memory grows with the length and not with its square, in every kind of derivative.

One function serves `jax.grad`, `jax.jvp` and one inside of the other without being told which it is. Custom rules of
JAX cannot do that: a `custom_vjp` refuses forward mode, and a `custom_jvp` whose rule computes output and tangent in
one kernel cannot be transposed. So there are five primitives, each with what JAX has to know about it:

    attention   (q, k, v) -> (o, lse)                             derivative: dual, which computes both in one pass
    dual        (q, k, v, q_dot, k_dot, v_dot) -> (o, lse, o_dot) taken apart into attention and tangent where the
                                                                  tangents are not known, as in `jax.grad`
    tangent     (q, k, v, o, lse, q_dot, ...) -> o_dot            linear in the dots; its transpose is backward
    backward    (q, k, v, o, lse, o_bar) -> (q_bar, ...)          linear in o_bar; its transpose is tangent
    curvature   second derivative of o in two directions          linear in each; plain JAX code over blocks

The derivative of a tangent is a tangent plus a curvature. Where the tangent is stopped, as in MeanFlow and sCM, the
curvature is not computed; where it is not, it is computed and right, at several times the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from . import streaming_tpu
from .streaming_chunked import chunked
from .streaming_chunked import forward as differentiable
from .streaming_kernels import Kernels, Keys, Queries, accumulator
from .streaming_lowering import lowering


def streaming_attention(q: Queries, k: Keys, v: Keys, kernels: Kernels | None = None) -> Queries:
    """softmax(q k^T / sqrt(D)) v in memory O(L), softmax and sums in float32 or wider; returns the dtype of q.

    Args:
        q: [B, L, H, D].
        k: [B, L', H, D], of the dtype of q.
        v: Like k.
        kernels: The implementation; by default that of the platform it is compiled for.

    Raises:
        ValueError: shapes or dtypes do not go together, or there is no key.
    """
    if not (q.ndim == k.ndim == v.ndim == 4 and k.shape == v.shape):
        raise ValueError(f"attention needs q, k and v [B, L, H, D], k like v; got {q.shape}, {k.shape}, {v.shape}")
    if (q.shape[0], q.shape[2:]) != (k.shape[0], k.shape[2:]):
        raise ValueError(f"q and k must agree in all but the length, got {q.shape} and {k.shape}")
    if not q.dtype == k.dtype == v.dtype or not jnp.issubdtype(q.dtype, jnp.floating):
        raise ValueError(f"q, k and v must be of one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if 0 in k.shape or 0 in q.shape:
        raise ValueError(f"attention over nothing: q {q.shape}, k {k.shape}")
    return attention_p.bind(q, k, v, kernels=kernels)[0]


# ---- What the primitives compute -------------------------------------------------------------------------------------


def _attention(*args: Array, kernels: Kernels) -> Sequence[Array]:
    return kernels.forward(*args)


def _dual(*args: Array, kernels: Kernels) -> Sequence[Array]:
    return kernels.dual(*args)


def _tangent(q: Array, k: Array, v: Array, o: Array, lse: Array, *dots: Array, kernels: Kernels) -> Sequence[Array]:
    return kernels.dual(q, k, v, *dots)[2:]


def _backward(*args: Array, kernels: Kernels) -> Sequence[Array]:
    return kernels.backward(*args)


def _curvature(*args: Array, kernels: Kernels | None) -> Sequence[Array]:
    x, first, second = args[:3], args[3:6], args[6:]
    return (jax.jvp(lambda *x: _derivative(x, first), x, second)[1],)


def _derivative(x: Sequence[Array], dots: Sequence[Array]) -> Array:
    """The tangent of attention, as JAX derives it from plain code."""
    return jax.jvp(lambda *x: differentiable(*x)[0], tuple(x), tuple(dots))[1]


def _like_output(q: Any, *_: Any, **__: Any) -> list[ShapedArray]:
    return [ShapedArray(q.shape, q.dtype)]


def _like_inputs(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> list[ShapedArray]:
    return [ShapedArray(x.shape, x.dtype) for x in (q, k, v)]


def _output_and_lse(q: Any, *_: Any, **__: Any) -> list[ShapedArray]:
    batch, length, heads, _features = q.shape
    return [ShapedArray(q.shape, q.dtype), ShapedArray((batch, heads, length), accumulator(q.dtype))]


def _primitive(
    name: str, compute: Callable[..., Sequence[Array]], shapes: Callable[..., list[ShapedArray]]
) -> Primitive:
    """A primitive that is compiled for the platform at hand, and maps over examples like a longer batch."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(shapes)
    # Outside of jit it runs as if it were inside of one.
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="kernels"))

    mlir.register_lowering(primitive, lowering(compute, chunked))
    mlir.register_lowering(primitive, lowering(compute, streaming_tpu.kernels), platform="tpu")

    def mapped(args: Sequence[Array], axes: Sequence[int | None], **params: Any) -> tuple[list[Array], list[int]]:
        # The mapped axis becomes the inner part of the batch, so that a sharded batch keeps its shards.
        size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
        examples = [
            jnp.repeat(x[:, None], size, axis=1) if axis is None else jnp.moveaxis(x, axis, 1)
            for x, axis in zip(args, axes, strict=True)
        ]
        outs = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in examples), **params)
        return [out.reshape(-1, size, *out.shape[1:]) for out in outs], [1] * len(outs)

    batching.primitive_batchers[primitive] = mapped
    return primitive


attention_p = _primitive("streaming_attention", _attention, _output_and_lse)
dual_p = _primitive("streaming_attention_dual", _dual, lambda q, *_, **__: _output_and_lse(q) + _like_output(q))
tangent_p = _primitive("streaming_attention_tangent", _tangent, _like_output)
backward_p = _primitive("streaming_attention_backward", _backward, _like_inputs)
curvature_p = _primitive("streaming_attention_curvature", _curvature, _like_output)


# ---- Their derivatives -----------------------------------------------------------------------------------------------


def _is_zero(*tangents: Any) -> bool:
    return all(isinstance(x, ad.Zero) for x in tangents)


def _dense(tangents: Sequence[Any]) -> list[Array]:
    return [ad.instantiate_zeros(x) for x in tangents]


def _no_tangent(x: Array) -> ad.Zero:
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _attention_jvp(x: Sequence[Array], dots: Sequence[Any], kernels: Kernels | None) -> tuple[list, list]:
    o, lse, o_dot = dual_p.bind(*x, *_dense(dots), kernels=kernels)
    # lse is only ever used beside the q and k that it was computed from, and their tangents account for it.
    return [o, lse], [o_dot, _no_tangent(lse)]


def _dual_jvp(args: Sequence[Array], tangents: Sequence[Any], kernels: Kernels | None) -> tuple[list, list]:
    x, first = args[:3], args[3:]
    o, lse, o_dot = dual_p.bind(*args, kernels=kernels)
    o_tangent = _no_tangent(o)
    if not _is_zero(*tangents[:3]):
        (o_tangent,) = tangent_p.bind(*x, o, lse, *_dense(tangents[:3]), kernels=kernels)
    changed = _tangent_change(x, o, lse, first, tangents[:3], tangents[3:], kernels)
    return [o, lse, o_dot], [o_tangent, _no_tangent(lse), changed]


def _tangent_jvp(args: Sequence[Array], tangents: Sequence[Any], kernels: Kernels | None) -> tuple[list, list]:
    (q, k, v, o, lse), first = args[:5], args[5:]
    change = _tangent_change((q, k, v), o, lse, first, tangents[:3], tangents[5:], kernels)
    return tangent_p.bind(*args, kernels=kernels), [change]


def _tangent_change(
    x: Sequence[Array],
    o: Array,
    lse: Array,
    first: Sequence[Array],
    x_dots: Sequence[Any],
    first_dots: Sequence[Any],
    kernels: Kernels | None,
) -> Any:
    """Derivative of the tangent of attention at x along `first`, when x and `first` move."""
    change: Any = _no_tangent(o)
    if not _is_zero(*first_dots):
        (change,) = tangent_p.bind(*x, o, lse, *_dense(first_dots), kernels=kernels)
    if not _is_zero(*x_dots):
        (bend,) = curvature_p.bind(*x, *first, *_dense(x_dots), kernels=kernels)
        change = ad.add_tangents(change, bend)
    return change


def _backward_jvp(args: Sequence[Array], tangents: Sequence[Any], kernels: Kernels | None) -> tuple[list, list]:
    x, o_bar = tuple(args[:3]), args[5]
    outs = backward_p.bind(*args, kernels=kernels)
    changes: list[Any] = [_no_tangent(out) for out in outs]
    if not _is_zero(tangents[5]):
        changes = backward_p.bind(*args[:5], tangents[5], kernels=kernels)
    if not _is_zero(*tangents[:3]):

        def pull(*x: Array) -> tuple[Array, ...]:
            return jax.vjp(lambda *x: differentiable(*x)[0], *x)[1](o_bar)

        bends = jax.jvp(pull, x, tuple(_dense(tangents[:3])))[1]
        changes = [ad.add_tangents(a, b) for a, b in zip(changes, bends, strict=True)]
    return outs, changes


def _curvature_jvp(args: Sequence[Array], tangents: Sequence[Any], kernels: Kernels | None) -> tuple[list, list]:
    outs, changes = jax.jvp(partial(_curvature, kernels=kernels), tuple(args), tuple(_dense(tangents)))
    return list(outs), list(changes)


ad.primitive_jvps[attention_p] = _attention_jvp
ad.primitive_jvps[dual_p] = _dual_jvp
ad.primitive_jvps[tangent_p] = _tangent_jvp
ad.primitive_jvps[backward_p] = _backward_jvp
ad.primitive_jvps[curvature_p] = _curvature_jvp


# ---- Their transposes ------------------------------------------------------------------------------------------------


def _linear_in(bars: Sequence[Array], args: Sequence[Any]) -> list[Array | None]:
    """Cotangents of the arguments that are not known."""
    return [bar if ad.is_undefined_primal(x) else None for bar, x in zip(bars, args, strict=True)]


def _tangent_transpose(bars: Sequence[Any], *args: Any, kernels: Kernels | None) -> Sequence[Array | None]:
    outs = backward_p.bind(*args[:5], *_dense(bars), kernels=kernels)
    return [None] * 5 + _linear_in(outs, args[5:])


def _backward_transpose(bars: Sequence[Any], *args: Any, kernels: Kernels | None) -> Sequence[Array | None]:
    return [None] * 5 + tangent_p.bind(*args[:5], *_dense(bars), kernels=kernels)


def _curvature_transpose(bars: Sequence[Any], *args: Any, kernels: Kernels | None) -> Sequence[Array | None]:
    x, first, second = args[:3], args[3:6], args[6:]
    # It is symmetric: whichever of the two directions is known, the cotangent of the other is the gradient of the
    # tangent along the known one.
    first_unknown = any(ad.is_undefined_primal(a) for a in first)
    known = second if first_unknown else first
    outs = jax.vjp(lambda *x: _derivative(x, known), *x)[1](*_dense(bars))
    nothing: list[Array | None] = [None] * 3
    if first_unknown:
        return [*nothing, *_linear_in(outs, first), *nothing]
    return [*nothing, *nothing, *_linear_in(outs, second)]


ad.primitive_transposes[tangent_p] = _tangent_transpose
ad.primitive_transposes[backward_p] = _backward_transpose
ad.primitive_transposes[curvature_p] = _curvature_transpose


# ---- One pass taken apart --------------------------------------------------------------------------------------------


def _split(trace: Any, *tracers: Any, kernels: Kernels | None) -> Sequence[Any]:
    """Where x is known and its tangent is not, which is reverse mode: compute the output, keep the linear rest."""
    x = [tracer.pval.get_known() for tracer in tracers[:3]]
    if any(value is None for value in x) or all(tracer.is_known() for tracer in tracers[3:]):
        return trace.default_process_primitive(dual_p, tracers, {"kernels": kernels})
    known = [trace.new_const(value) for value in attention_p.bind(*x, kernels=kernels)]
    rest = [*tracers[:3], *known, *tracers[3:]]
    return [*known, *trace.default_process_primitive(tangent_p, rest, {"kernels": kernels})]


def _split_in_remat(
    saveable: Callable[..., Any], unknown: Sequence[bool], available: Sequence[bool], eqn: JaxprEqn
) -> tuple[JaxprEqn | None, JaxprEqn, list[bool], list[bool], list[Any]]:
    """The same inside of `jax.checkpoint`, where the backward pass computes the output a second time."""
    kept = [x for x, here in zip(eqn.invars, available, strict=True) if not here]
    if any(unknown[:3]):
        return None, eqn, [True] * 3, [True] * 3, kept
    outs = eqn.outvars if not any(unknown) else eqn.outvars[:2]
    first = eqn if not any(unknown) else eqn.replace(primitive=attention_p, invars=eqn.invars[:3], outvars=outs)
    return first, eqn, [False, False, any(unknown)], [True] * 3, kept


def _without_tangent(used: Sequence[bool], *told: Any) -> tuple[list[bool], JaxprEqn | None]:
    """A tangent that nobody uses is not computed."""
    eqn: JaxprEqn = told[-1]  # jax 0.12 says before it which inputs are alive
    if not any(used):
        return [False] * 6, None
    if used[2]:
        return [True] * 6, eqn
    attention = eqn.replace(primitive=attention_p, invars=eqn.invars[:3], outvars=eqn.outvars[:2])
    return [True] * 3 + [False] * 3, attention


pe.custom_partial_eval_rules[dual_p] = _split
pe.partial_eval_jaxpr_custom_rules[dual_p] = _split_in_remat
pe.dce_rules[dual_p] = _without_tangent
