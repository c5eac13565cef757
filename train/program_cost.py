"""What a compiled program does on one chip: operations, bytes moved, messages between chips.

The compiler's own count takes the body of a loop once, and here most work is in loops over layers. This one reads the
program's text, takes a body as often as it runs, and otherwise counts as XLA's HloCostAnalysis does: each fusion reads
its inputs and writes its results once, of an array that is sliced only the slice.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from typing import NamedTuple

from .hlo import Computation, Instruction, Shape, parse

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "iota", "copy-done", "async-done", "async-update", "all-reduce-done", "all-gather-done",
    "collective-permute-done", "send-done", "recv-done", "add-dependency", "slice-start",
}  # fmt: skip
MOVES = {
    "broadcast", "reshape", "transpose", "copy", "copy-start", "slice", "dynamic-slice", "dynamic-update-slice",
    "concatenate", "pad", "reverse", "gather", "convert", "bitcast-convert", "select", "slice-done",
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[(\d+),(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})")
KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|\w*triton\w*|\w*mosaic\w*|\w*gemm\w*|__cudnn\w*)"')
SLICES = ("dynamic-slice", "gather", "slice", "dynamic-update-slice")
HOST = 5  # memory space


Computations = Mapping[str, Computation]


class Traffic(NamedTuple):
    """Messages of one kind in a step.

    Attributes:
        messages: how many.
        bytes: size of what one chip holds of the results, or of the inputs of a reduce-scatter, all together.
        sent: bytes that a chip sends when they go round a ring.
    """

    messages: float = 0.0
    bytes: float = 0.0
    sent: float = 0.0


NOTHING = Traffic()


class Cost(NamedTuple):
    """Of one run of a program on one chip.

    Attributes:
        flops: multiplications and additions, two for each pair in a product of matrices.
        product_flops: those of products of matrices and convolutions alone.
        bytes_accessed: read and written, wherever it lies.
        memory_bytes: the part of it that is in the chip's main memory.
        host_bytes: the part of it that is in the host's.
        collectives: by kind.
    """

    flops: float = 0.0
    product_flops: float = 0.0
    bytes_accessed: float = 0.0
    memory_bytes: float = 0.0
    host_bytes: float = 0.0
    collectives: Mapping[str, Traffic] = {}


def cost_of(text: str) -> Cost:
    """Cost of a compiled program from its text, `jax.stages.Compiled.as_text()`.

    Raises:
        ValueError: if the text is not one.
    """
    computations, entry = parse(text)

    @cache
    def inside(name: str) -> Cost:
        """A computation with everything it calls."""
        body = computations[name]
        return _sum(_of(instruction, body) for instruction in body.values())

    def _of(i: Instruction, body: Computation) -> Cost:
        if i.opcode == "while":
            return _times(_sum(inside(name) for name in i.called), _iterations(i, computations))
        if i.opcode == "conditional":
            return max((inside(name) for name in i.called), key=lambda cost: cost.flops, default=Cost())
        if i.opcode in ("call", "async-start"):
            return _sum(inside(name) for name in i.called)
        if i.opcode in FREE or (i.opcode == "custom-call" and not KERNEL.search(i.attributes)):
            return Cost()
        kind = i.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            read, written = _io(i, body)
            return _bytes(read + written)._replace(collectives={kind: _traffic(i, kind, body)})
        if i.opcode == "fusion":
            moved = _bytes([*_fusion_reads(i, body, computations), *_fusion_writes(i, computations)])
            return _sum([inside_fusion(i.called[0]), moved])
        products, others = _flops(i, body)
        read, written = _io(i, body)
        return _bytes(read + written)._replace(flops=products + others, product_flops=products)

    @cache
    def inside_fusion(name: str) -> Cost:
        """Operations and messages within a fusion, whose values never reach memory."""
        total, body = Cost(), computations[name]
        for i in body.values():
            kind = i.opcode.removesuffix("-start")
            if i.opcode in FREE:
                continue
            if kind in COLLECTIVES:
                total = _sum([total, Cost(collectives={kind: _traffic(i, kind, body)})])
            elif i.opcode in ("fusion", "call", "async-start", "while"):
                total = _sum([total, *(_times(inside_fusion(called), i.trips) for called in i.called)])
            else:
                products, others = _flops(i, body)
                total = _sum([total, Cost(products + others, products)])
        return total

    return inside(entry)


def _iterations(loop: Instruction, computations: Computations) -> int:
    """How often a loop runs: as written beside it, else counted from 0 to what its condition compares with."""
    if loop.trips > 1:
        return loop.trips
    condition, body = (computations[_called(loop, name)] for name in ("condition", "body"))
    inner = [condition, *(computations[name] for i in condition.values() for name in i.called)]
    bounds = [i.number for part in inner for i in part.values() if i.opcode == "constant" and i.number]
    if len(bounds) != 1:
        return 1
    return -(-bounds[0] // _increment(condition, body))


def _increment(condition: Computation, body: Computation) -> int:
    """What is added to the counter of a loop; 1 where that cannot be seen, as for loops of `lax.scan`."""
    counter = condition.get(next((i.operands[0] for i in condition.values() if i.opcode == "compare"), ""))
    place = re.search(r"index=(\d+)", counter.attributes) if counter else None
    root = next(i for i in body.values() if i.root)
    if place is None or root.opcode != "tuple":
        return 1
    after = body[root.operands[int(place[1])]]
    steps = [body[name].number for name in after.operands if body[name].opcode == "constant"]
    return steps[0] if after.opcode == "add" and steps and steps[0] else 1


def _called(i: Instruction, attribute: str) -> str:
    found = re.search(rf"{attribute}=%?([\w.\-]+)", i.attributes)
    if found is None:
        raise ValueError(f"a {i.opcode} without {attribute}: {i.attributes[:200]}")
    return found[1]


# ---- Operations ------------------------------------------------------------------------------------------------------


def _flops(i: Instruction, body: Computation) -> tuple[float, float]:
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
    if i.opcode == "custom-call":
        estimate = re.search(r'"flops":\s*"?(\d+)', i.attributes)
        return (float(estimate.group(1)) if estimate else 0.0), 0.0
    return 0.0, 0.0 if i.opcode in MOVES else float(out)


def _convolution(i: Instruction, body: Computation) -> float:
    """Two for each pair of a kernel's element and one of the input that it meets; products are written like this too.

    Along each spatial axis pairs are counted that fall neither into padding nor between dilated elements.
    """
    left, right, out = body[i.operands[0]].shapes[0].dims, body[i.operands[1]].shapes[0].dims, i.shapes[0].dims
    labels = re.search(r"dim_labels=([\w?]+)_([\w?]+)->([\w?]+)", i.attributes)
    if labels is None:
        raise ValueError(f"a convolution without dim_labels: {i.attributes[:200]}")
    of_left, of_right, of_out = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", i.attributes)
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


# ---- Bytes -----------------------------------------------------------------------------------------------------------


def _io(i: Instruction, body: Computation) -> tuple[list[Shape], list[Shape]]:
    """Arrays that an instruction outside a fusion reads and writes."""
    inputs = [shape for name in i.operands for shape in body[name].shapes]
    if i.opcode in ("dynamic-slice", "gather", "slice"):
        return [i.shapes[0]._replace(space=inputs[0].space)], [i.shapes[0]]
    if i.opcode == "slice-done":  # of a copy from the memory of what its start sliced
        source = body[i.operands[0]].shapes[0]
        return [i.shapes[0]._replace(space=source.space)], [i.shapes[0]]
    if i.opcode == "dynamic-update-slice":
        update = list(body[i.operands[1]].shapes)
        return update, update
    if i.opcode.endswith("-start"):  # its result holds the inputs again, and a word of state
        return inputs, [max(i.shapes[len(inputs) :] or i.shapes, key=lambda shape: shape.bytes)]
    return inputs, list(i.shapes)


def _fusion_reads(i: Instruction, body: Computation, computations: Computations) -> list[Shape]:
    """What a fusion reads of each of its inputs: a slice if it only slices it, nothing if it only writes into it."""
    read: list[Shape] = []
    for place, operand in enumerate(i.operands):
        whole = body[operand].shapes
        users = _users(i.called[0], _parameter(computations[i.called[0]], place), computations)
        if users and all(user.opcode in SLICES and user.operands[0] == name for user, name in users):
            slices = [user for user, _ in users if user.opcode != "dynamic-update-slice"]
            read += [shape._replace(space=whole[0].space) for user in slices for shape in user.shapes]
        else:
            read += whole
    return read


def _fusion_writes(i: Instruction, computations: Computations) -> list[Shape]:
    """What a fusion writes of each of its results: an update if it is one within a larger array."""
    root = next(result for result in computations[i.called[0]].values() if result.root)
    names = root.operands if root.opcode == "tuple" else (root.name,)
    updates = [_update(i.called[0], name, computations) for name in names]
    return [
        shape if update is None else update._replace(space=shape.space)
        for update, shape in zip(updates, i.shapes, strict=False)
    ]


def _users(name: str, value: str, computations: Computations) -> list[tuple[Instruction, str]]:
    """Who reads a value of a fused computation, and by which name; seen through changes of form and inner fusions."""
    found: list[tuple[Instruction, str]] = []
    for user in computations[name].values():
        if value not in user.operands:
            continue
        if user.opcode == "bitcast":
            found += _users(name, user.name, computations)
        elif user.opcode == "fusion":
            for place, operand in enumerate(user.operands):
                if operand == value:
                    within = user.called[0]
                    found += _users(within, _parameter(computations[within], place), computations)
        else:
            found.append((user, value))
    return found


def _update(name: str, value: str, computations: Computations) -> Shape | None:
    """What is written, where a result of a fused computation is a larger array with a part of it replaced."""
    result = computations[name][value]
    if result.opcode == "bitcast":
        return _update(name, result.operands[0], computations)
    if result.opcode == "fusion":
        root = next(i for i in computations[result.called[0]].values() if i.root)
        return _update(result.called[0], root.name, computations)
    if result.opcode == "dynamic-update-slice":
        return computations[name][result.operands[1]].shapes[0]
    return None


def _parameter(body: Computation, place: int) -> str:
    return next(i.name for i in body.values() if i.opcode == "parameter" and i.number == place)


def _bytes(shapes: list[Shape]) -> Cost:
    total = float(sum(shape.bytes for shape in shapes))
    main = float(sum(shape.bytes for shape in shapes if shape.space == 0))
    host = float(sum(shape.bytes for shape in shapes if shape.space == HOST))
    return Cost(bytes_accessed=total, memory_bytes=main, host_bytes=host)


# ---- Messages --------------------------------------------------------------------------------------------------------


def _traffic(i: Instruction, kind: str, body: Computation) -> Traffic:
    """What one collective moves; on a ring of n, each of n parts of an array passes n - 1 links."""
    inputs = sum(shape.bytes for name in i.operands for shape in body[name].shapes)
    n = _group_size(i.attributes)
    size = inputs * n if kind == "all-gather" else inputs
    share = (n - 1) / n
    sent = {"all-reduce": 2 * share * size, "collective-permute": size}.get(kind, share * size)
    return Traffic(1, float(size), float(sent))


def _group_size(attributes: str) -> int:
    found = GROUPS.search(attributes)
    if found is None:
        return 1
    explicit, _, size, mesh, axes = found.groups()
    if explicit is not None:
        return len(explicit.split(","))
    if size is not None:
        return int(size)
    sizes = {name.strip(" '"): int(n) for name, n in (part.split("=") for part in mesh.split(","))}
    return prod(sizes[axis.strip(" '")] for axis in axes.split(","))


# ---- Sums ------------------------------------------------------------------------------------------------------------


def _sum(costs: Iterable[Cost]) -> Cost:
    total = Cost()
    for cost in costs:
        kinds = {*total.collectives, *cost.collectives}
        messages = {k: _both(total.collectives.get(k, NOTHING), cost.collectives.get(k, NOTHING)) for k in kinds}
        total = Cost(
            flops=total.flops + cost.flops,
            product_flops=total.product_flops + cost.product_flops,
            bytes_accessed=total.bytes_accessed + cost.bytes_accessed,
            memory_bytes=total.memory_bytes + cost.memory_bytes,
            host_bytes=total.host_bytes + cost.host_bytes,
            collectives=messages,
        )
    return total


def _both(a: Traffic, b: Traffic) -> Traffic:
    return Traffic(a.messages + b.messages, a.bytes + b.bytes, a.sent + b.sent)


def _times(cost: Cost, n: int) -> Cost:
    return Cost(
        flops=n * cost.flops,
        product_flops=n * cost.product_flops,
        bytes_accessed=n * cost.bytes_accessed,
        memory_bytes=n * cost.memory_bytes,
        host_bytes=n * cost.host_bytes,
        collectives={k: Traffic(n * t.messages, n * t.bytes, n * t.sent) for k, t in cost.collectives.items()},
    )


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(n) for n in found.group(1).split(",") if n] if found else []
