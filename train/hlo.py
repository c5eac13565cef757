"""A compiled program read from its text: instructions with shapes, operands and the computations that they call."""

import re
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "c64": 64, "c128": 128, "f4e2m1fn": 4, "token": 0}
ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
NAME = re.compile(r"%([\w.\-]+)")


class Shape(NamedTuple):
    """One array of a type.

    Attributes:
        dtype: as HLO writes it, e.g. "bf16".
        dims: sizes.
        space: memory space of its layout: 0 is the chip's main memory, 5 the host's, others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.dims)

    @property
    def bytes(self) -> int:
        """Size without padding."""
        known = BITS.get(self.dtype)
        bits = int(re.sub(r"^[a-z]+(\d+).*", r"\1", self.dtype)) if known is None else known
        return self.elements * bits // 8


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        name, opcode: as written.
        shapes: arrays of its result, one unless it is a tuple.
        operands: names of its inputs.
        number: of a parameter, its place among them; of a scalar constant, an integer, its value; 0 otherwise.
        attributes: what follows the operands.
        called: computations it calls, but for those of reductions' single elements, which are also listed.
        trips: iterations of a loop, where it is written beside it; 1 otherwise.
        root: whether it is the result of its computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    number: int
    attributes: str
    called: tuple[str, ...]
    trips: int
    root: bool


Computation = Mapping[str, Instruction]
"""Instructions by name, in order."""


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The computations of a module by name, and the name of the one that it starts with.

    Raises:
        ValueError: if the text has no entry.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", dict[str, Instruction]()
    for line in text.splitlines():
        if line.endswith("{") and " -> " in line and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
            entry = name if line.startswith("ENTRY ") else entry
            computations[name] = current = {}
        elif computations and line.startswith(" ") and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    if not entry:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return computations, entry


def shapes_of(type_text: str) -> tuple[Shape, ...]:
    """The arrays of a type, such as "(f32[2,3]{1,0:T(8,128)S(1)}, s32[])"."""

    def space(layout: str) -> int:
        found = re.search(r"S\((\d+)\)", layout or "")
        return int(found.group(1)) if found else 0

    return tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n), space(layout))
        for dtype, dims, layout in ARRAY.findall(type_text)
    )


def _instruction(line: str) -> Instruction:
    left, right = line.strip().split(" = ", 1)
    type_text, rest = _until_space(right)
    opcode, rest = rest.split("(", 1)
    inputs, attributes = _until_closed(rest)
    branches = [name for group in BRANCHES.findall(attributes) for part in group for name in part.split(",") if name]
    trips = TRIPS.search(attributes)
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode.strip(),
        shapes=shapes_of(type_text),
        operands=tuple(NAME.findall(inputs)),
        number=int(inputs) if inputs.isdigit() else 0,
        attributes=attributes,
        called=tuple(CALLED.findall(attributes)) + tuple(name.strip().lstrip("%") for name in branches),
        trips=int(trips.group(1)) if trips else 1,
        root=left.startswith("ROOT "),
    )


def _until_space(text: str) -> tuple[str, str]:
    """The type before the first space outside brackets, and what follows."""
    depth = 0
    for index, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and not depth:
            return text[:index], text[index + 1 :]
    return text, ""


def _until_closed(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes one opened before the text, and what follows."""
    depth = 1
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[:index], text[index + 1 :]
    return text, ""
