"""Operations of one instruction of a compiled program, counted as XLA's HloCostAnalysis does."""

import re
from math import prod

from .hlo import Computation, Instruction

MOVES = {
    "broadcast", "reshape", "transpose", "copy", "copy-start", "slice", "dynamic-slice", "dynamic-update-slice",
    "concatenate", "pad", "reverse", "gather", "convert", "bitcast-convert", "select", "slice-done",
}  # fmt: skip


LIBRARY = re.compile(r'custom_call_target="(__cublas[^"]*|__cudnn\$conv[^"]*)"')


def flops(i: Instruction, body: Computation) -> tuple[float, float]:
    """Those of products, and all others: one for each element of the result, or of what is reduced."""
    out = sum(shape.elements for shape in i.shapes)
    if i.opcode == "dot":
        left = body[i.operands[0]].shapes[0].dims
        contracted = _numbers(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes)
        return 2.0 * out * prod(left[axis] for axis in contracted), 0.0
    if i.opcode == "convolution":
        return _convolution(i, body), 0.0
    if i.opcode in ("reduce", "reduce-window"):
        return 0.0, float(body[i.operands[0]].shapes[0].elements)
    if i.opcode == "custom-call" and (kind := LIBRARY.search(i.attributes)):
        return _of_library(kind.group(1), i, body), 0.0
    if i.opcode == "custom-call":
        estimate = re.search(r'"flops":\s*"?(\d+)', i.attributes)
        return (float(estimate.group(1)) if estimate else 0.0), 0.0
    return 0.0, 0.0 if i.opcode in MOVES else float(out)


def _of_library(target: str, i: Instruction, body: Computation) -> float:
    """Of a product by cuBLAS or a convolution by cuDNN, whose labels are those of the forward one in all directions."""
    first, second, result = body[i.operands[0]].shapes[0].dims, body[i.operands[1]].shapes[0].dims, i.shapes[0].dims
    if target.startswith("__cublas"):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.attributes)
        axes = [int(n) for n in re.findall(r"\d+", contracted.group(1))] if contracted else []
        return 2.0 * prod(result) * prod(first[axis] for axis in axes)
    if "BackwardInput" in target:
        return _pairs(i.attributes, result, second, first)
    if "BackwardFilter" in target:
        return _pairs(i.attributes, first, result, second)
    return _pairs(i.attributes, first, second, result)


def _convolution(i: Instruction, body: Computation) -> float:
    """Two for each pair of a kernel's element and one of the input that it meets; products look like this too."""
    left, right = (body[name].shapes[0].dims for name in i.operands[:2])
    return _pairs(i.attributes, left, right, i.shapes[0].dims)


def _pairs(attributes: str, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> float:
    """Those of a convolution of `left` with `right` into `out`.

    Along each spatial axis pairs are counted that fall neither into padding nor between dilated elements.
    """
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", attributes)
    if labels is None:
        raise ValueError(f"a convolution without dim_labels: {attributes[:200]}")
    of_left, of_right, of_out = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", attributes)
    given = dict(part.split("=") for part in window.group(1).split()) if window else {}
    axes = sorted(letter for letter in of_out if letter.isdigit())

    def per_axis(name: str, default: int) -> list[int]:
        return [int(n) for n in given[name].split("x")] if name in given else [default] * len(axes)

    low = [int(n.split("_")[0]) for n in given["pad"].split("x")] if "pad" in given else [0] * len(axes)
    strides, left_dilation, right_dilation = per_axis("stride", 1), per_axis("lhs_dilate", 1), per_axis("rhs_dilate", 1)
    pairs = 1
    for k, axis in enumerate(axes):
        n, kernel, positions = left[of_left.index(axis)], right[of_right.index(axis)], out[of_out.index(axis)]
        met = 0
        for tap in range(kernel):
            # Of position p, input p * stride + tap * dilation - padding is met if it is a whole, existing one.
            shift = tap * right_dilation[k] - low[k]
            first = range(shift, shift + positions * strides[k], strides[k])
            met += sum(0 <= at <= (n - 1) * left_dilation[k] and at % left_dilation[k] == 0 for at in first)
        pairs *= met
    return 2.0 * pairs * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(n) for n in found.group(1).split(",") if n] if found else []
