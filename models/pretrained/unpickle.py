"""A pickle as plain values, by an interpreter of our own: nothing that a file names is looked up, and nothing executed.

Python's own interpreter asks the objects on its stack for methods, and so the objects of numpy as well: a file may then
choose what is called on memory that it described itself. This one puts together objects of a few exact types.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO
from typing import IO, Any, TypeAlias, cast

from .values import LONGEST, SIZED, Name, Record, Unbuilt, plain_key, put, short

Globals: TypeAlias = Mapping[tuple[str, str], Callable[..., Any] | None]
"""{(module, name): what makes a plain value of the arguments of a call; None of what is only named}"""

Stream: TypeAlias = BytesIO | mmap.mmap
"""Something in memory, of which reading too much gives what there is, and takes no more memory than that."""

# Kept as a name with what the file says of it. `getattr` is that of the loss in ECT's snapshots: a method of an
# object, which is never asked for.
INERT = {("argparse", "Namespace"), ("builtins", "getattr"), ("__builtin__", "getattr"), ("torch", "device")}
INERT |= {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int32", "int64", "uint8", "bool")}

MOST_STEPS = 2_000_000  # of one pickle: an empty set takes 1 byte of a file and 200 of memory
CALLED_WITH = 2  # times the length of a pickle: what its calls may be given in all, as they may copy it


@dataclass(slots=True)
class _State:
    known: Globals
    persistent: Callable[[Any], Any] | None
    left: int  # of what calls may be given
    stack: list[Any] = field(default_factory=list)  # since the last mark
    below: list[list[Any]] = field(default_factory=list)  # before each mark
    memo: dict[int, Any] = field(default_factory=dict)


def unpickle(stream: Stream, known: Globals, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read one pickle from a stream, and leave the stream behind it.

    Lengths that the pickle declares are compared with what there is before anything is made of it.

    Args:
        stream: from where it stands.
        known: {(module, name): what is called for it}, besides the names of this file.
        persistent: what stands for a persistent id, such as a storage that lies elsewhere in the file.

    Raises:
        Exception: of any kind, as there is no end to what can be wrong with a file; nothing was executed.
    """
    start = stream.tell()
    stream.seek(0, SEEK_END)
    state = _State(known, persistent, CALLED_WITH * (stream.tell() - start))
    stream.seek(start)
    for position, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
        if position > MOST_STEPS:
            raise ValueError(f"it takes more than {MOST_STEPS:,} steps")
        if opcode.name.endswith("PUT") and cast(int, argument) > position:
            raise ValueError(f"it declares {argument} remembered values after {position} steps")
        if opcode.name in ARGUMENTS:
            state.stack.append(argument)
        elif step := STEPS.get(opcode.name):
            step(state, argument)
        else:
            raise ValueError(f"it uses the opcode {opcode.name}, which no checkpoint needs")
    return state.stack.pop()


# ---- What the opcodes do ---------------------------------------------------------------------------------------------


def _exact(value: Any, kind: type, purpose: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"it {purpose} {short(value)}, which is no {kind.__name__}")
    return value


def _marked(state: _State) -> list[Any]:
    """What lies above the last mark, which is taken away."""
    items, state.stack = state.stack, state.below.pop()
    return items


def _mark(state: _State, _: Any) -> None:
    state.below.append(state.stack)
    state.stack = []


def _pop(state: _State, _: Any) -> None:
    if state.stack:
        state.stack.pop()
    else:
        _marked(state)


def _pop_mark(state: _State, _: Any) -> None:
    _marked(state)


def _from_marked(make: Callable[[list[Any]], Any]) -> Callable[[_State, Any], None]:
    def step(state: _State, _: Any) -> None:
        items = _marked(state)
        state.stack.append(make(items))

    return step


def _tuple_of(count: int) -> Callable[[_State, Any], None]:
    def step(state: _State, _: Any) -> None:
        state.stack.append(tuple([state.stack.pop() for _ in range(count)][::-1]))

    return step


def _dict_of(items: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    put(made, zip(items[::2], items[1::2], strict=True))
    return made


def _append(state: _State, items: list[Any]) -> None:
    _exact(state.stack[-1], list, "appends to").extend(items)


def _set_items(state: _State, items: list[Any]) -> None:
    put(_exact(state.stack[-1], dict, "sets items of"), zip(items[::2], items[1::2], strict=True))


def _add_items(state: _State, items: list[Any]) -> None:
    _exact(state.stack[-1], set, "adds items to").update(map(plain_key, items))


def _two(state: _State) -> list[Any]:
    second, first = state.stack.pop(), state.stack.pop()
    return [first, second]


def _put(state: _State, index: Any) -> None:
    state.memo[len(state.memo) if index is None else index] = state.stack[-1]


def _get(state: _State, index: int) -> None:
    if index not in state.memo:
        raise ValueError(f"it recalls value {index}, which it has not remembered")
    value = state.memo[index]
    state.stack.append(value.built if type(value) is Unbuilt and value.built is not None else value)


def _name(state: _State, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str or len(module) + len(name) > LONGEST:
        raise ValueError(f"it names {short(name)} of {short(module)}, which is not on the list")
    text = f"{module}.{name}"
    if (module, name) in state.known:
        make = state.known[module, name]
    elif (module, name) in INERT or re.fullmatch(r"torch\.nn\.modules(\.\w+)*", module):
        make = lambda *arguments: Record(text, arguments)
    else:
        raise ValueError(f"it names {text}, which is not on the list of what may be in a checkpoint")
    state.stack.append(Name(text, make))


def _call(state: _State, _: Any) -> None:
    named, arguments = _two(state)
    if type(named) is not Name or named.make is None:
        raise ValueError(f"it calls {short(named)}, which is not callable")
    _exact(arguments, tuple, "calls with")
    state.left -= len(arguments) + sum(len(argument) for argument in arguments if type(argument) in SIZED)
    if state.left < 0:
        raise ValueError(f"its calls are given more than {CALLED_WITH} times what it has")
    state.stack.append(named.make(*arguments))


def _build(state: _State, _: Any) -> None:
    value = state.stack.pop()
    target = state.stack[-1]
    if type(target) is Unbuilt and target.built is None:
        target.built = state.stack[-1] = target.build(value)
    elif type(target) is Record and target.state is None:
        target.state = value
    elif type(target) is not dict:  # attributes of a dict are not kept; torch has the versions of modules in one
        raise ValueError(f"it gives attributes to {short(target)}, which takes none, or has its own already")


def _persistent(state: _State, _: Any) -> None:
    if state.persistent is None:
        raise ValueError("it refers to something outside of itself")
    state.stack.append(state.persistent(state.stack.pop()))


def _protocol(_: _State, version: int) -> None:
    if version > 5:
        raise ValueError(f"it is of protocol {version}, which is not known")


def _constant(make: Callable[[], Any]) -> Callable[[_State, Any], None]:
    return lambda state, _: state.stack.append(make())


ARGUMENTS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
ARGUMENTS |= {"SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
ARGUMENTS |= {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
"""Opcodes whose argument is the value."""

STEPS: Mapping[str, Callable[[_State, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda state, _: None,
    "STOP": lambda state, _: None,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda state, _: state.stack.append(state.stack[-1]),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_SET": _constant(set),
    "TUPLE": _from_marked(tuple),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _from_marked(list),
    "DICT": _from_marked(_dict_of),
    "FROZENSET": _from_marked(lambda items: frozenset(map(plain_key, items))),
    "APPEND": lambda state, _: _append(state, [state.stack.pop()]),
    "APPENDS": lambda state, _: _append(state, _marked(state)),
    "SETITEM": lambda state, _: _set_items(state, _two(state)),
    "SETITEMS": lambda state, _: _set_items(state, _marked(state)),
    "ADDITEMS": lambda state, _: _add_items(state, _marked(state)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "GLOBAL": lambda state, both: _name(state, *both.split(" ", 1)),
    "STACK_GLOBAL": lambda state, _: _name(state, *_two(state)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _call),
    "BUILD": _build,
    "BINPERSID": _persistent,
}
"""What the others do that a checkpoint needs. No array grows by them, and nothing is changed but what they made."""
