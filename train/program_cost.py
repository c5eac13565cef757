"""What a compiled program does on one chip: operations, bytes moved, messages between chips.

The compiler's own count takes the body of a loop once, and here most work is in loops over layers. This one reads the
program's text, takes a body as often as it runs, and otherwise counts as XLA's HloCostAnalysis does.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from typing import NamedTuple

from .hlo import Computation, Instruction, Shape, parse
from .hlo_bytes import Computations, fusion_reads, fusion_writes, reads_and_writes
from .hlo_flops import flops

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "domain", "iota", "copy-done", "async-done", "async-update", "all-reduce-done", "all-gather-done",
    "collective-permute-done", "send-done", "recv-done", "add-dependency", "slice-start",
}  # fmt: skip
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[(\d+),(\d+)\]|mesh\[([^\]]*)\][^{]*\{([^}]*)\})")
KERNEL = re.compile(r'custom_call_target="(tpu_custom_call|[^"]*(?:triton|mosaic|__cublas|__cudnn)[^"]*)"')
HOST = 5  # memory space


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
            read, written = reads_and_writes(i, body)
            return _bytes(read + written)._replace(collectives={kind: _traffic(i, kind, body)})
        if i.opcode == "fusion":
            moved = _bytes([*fusion_reads(i, body, computations), *fusion_writes(i, computations)])
            return _sum([inside_fusion(i.called[0]), moved])
        products, others = flops(i, body)
        read, written = reads_and_writes(i, body)
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
                products, others = flops(i, body)
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
