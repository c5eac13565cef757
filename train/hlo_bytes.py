"""Arrays that one instruction of a compiled program reads and writes, counted as XLA's HloCostAnalysis does.

A fusion reads its inputs and writes its results once, of an array that is sliced only the slice.
"""

from collections.abc import Mapping

from .hlo import Computation, Instruction, Shape

Computations = Mapping[str, Computation]

SLICES = ("dynamic-slice", "gather", "slice", "dynamic-update-slice")


def reads_and_writes(i: Instruction, body: Computation) -> tuple[list[Shape], list[Shape]]:
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
    if i.opcode == "copy-start":  # its result holds where to, where from and a word of state
        return inputs, [i.shapes[0]]
    if i.opcode.endswith("-start"):  # its result may hold the inputs again before the results, and words of state
        return inputs, list(i.shapes[len(inputs) :] or i.shapes)
    return inputs, list(i.shapes)


def fusion_reads(i: Instruction, body: Computation, computations: Computations) -> list[Shape]:
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


def fusion_writes(i: Instruction, computations: Computations) -> list[Shape]:
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
