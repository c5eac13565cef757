"""Files that make a reader write where it should not, or take memory or time without end, are refused for what they do.

Each did so, or was read as if nothing were wrong with it, when pickles were given to Python's interpreter; `GUARDS` and
the encrypted archives were refused even then.
"""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from models.pretrained import unpickle
from models.pretrained.modules import state_dict
from models.pretrained.reader import read
from models.pretrained.values import Record
from tests.models.pretrained import written
from tests.models.pretrained.written import call, dict_of, named, plain, tuple_of


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "file.pt"


def data_of(content: bytes) -> bytes:
    """Opcodes of bytes as they are."""
    return b"B" + struct.pack("<i", len(content)) + content


def changeable(content: bytes) -> bytes:
    """Opcodes of a bytearray."""
    return b"\x96" + struct.pack("<Q", len(content)) + content


def number_type(code: str) -> bytes:
    """Opcodes of a dtype of numpy."""
    return call("numpy", "dtype", plain(code)) + plain((3, "<", None, None, None, -1, -1, 0)) + b"b"


def array_of(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    """Opcodes of an array of numpy with a state."""
    empty = call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), plain((0,)), data_of(b"b"))
    return empty + tuple_of(plain(1), shape, dtype, plain(False), data) + b"b"


def many(first: bytes, times: int, each: bytes) -> bytes:
    """Opcodes of a list of things made of one that is remembered as number 1."""
    return first + b"q\x010" + b"(" + each * times + b"l"


def doubled(times: int, pair: bytes = b"\x86") -> bytes:
    """Opcodes of a tuple of itself twice, so many times: few bytes, and no end to it for who enters it."""
    return plain("x") + (b"2" + pair) * times


LISTS = b"]" + b"q\x000(h\x00h\x00l" * 40  # a list that holds one twice, which holds one twice ...
MEGABYTE = data_of(bytes(2**20))
EIGHT = array_of(plain((8,)), number_type("u1"), data_of(b"12345678"))
WITHOUT_CALL = r"calls numpy\.ndarray, which is not callable"
PLAIN_KEYS = "is a key of a dict or an item of a set"
GIVEN = "calls are given more than 2 times what it has"

HOSTILE = {
    "an array of pointers": (
        call("numpy", "ndarray", plain((1,)), plain("O"), changeable(b"\x01" * 8)) + plain(0) + plain("x") + b"s",
        "opcode BYTEARRAY8",
    ),
    "an array of pointers in bytes": (
        call("numpy", "ndarray", plain((1,)), plain("O"), data_of(b"\x01" * 8)),
        WITHOUT_CALL,
    ),
    "an array before its bytes": (
        call("numpy", "ndarray", plain((1,)), plain("u1"), data_of(bytes(64)), plain(-64)),
        WITHOUT_CALL,
    ),
    "an array of 16 GiB": (call("numpy", "ndarray", plain((2**34,)), plain("u1")), WITHOUT_CALL),
    "an array as an object": (named("numpy", "ndarray") + tuple_of(plain((2**20,))) + b"\x81", WITHOUT_CALL),
    "a state given twice": (
        EIGHT + tuple_of(plain(1), plain((8,)), number_type("u1"), plain(False), data_of(b"87654321")) + b"b",
        "attributes to a ndarray, which takes none, or has its own already",
    ),
    "an item of an array": (EIGHT + plain(0) + plain(1) + b"s", "sets items of a ndarray"),
    "an array of too many axes": (array_of(plain((1,) * 40), number_type("u1"), data_of(b"1")), "a tuple of 40"),
    "a dtype that has no end": (
        call("numpy.core.multiarray", "scalar", call("numpy", "dtype", LISTS), data_of(bytes(8))),
        "dtype a list of 2",
    ),
    "an item of a list": (plain([1]) + plain(0) + plain(2) + b"s", "sets items of"),
    "sizes of a megabyte": (many(MEGABYTE, 50, named("torch", "Size") + b"h\x01\x85R"), "for the size of a tensor"),
    "dicts of a dict": (
        many(plain(dict.fromkeys(range(1000))), 1000, named("collections", "OrderedDict") + b"h\x01\x85R"),
        GIVEN,
    ),
    "sets of a list": (many(plain(list(range(1000))), 1000, named("builtins", "set") + b"h\x01\x85R"), GIVEN),
    "text encoded again and again": (
        many(plain("x" * 2**20), 50, named("_codecs", "encode") + b"h\x01" + plain("latin1") + b"\x86R"),
        GIVEN,
    ),
    "a storage read again and again": (
        many(
            data_of(written.legacy(written.storage("0", np.float32, 1000), {"0": np.zeros(1000, np.float32)})),
            1000,
            named("torch.storage", "_load_from_bytes") + b"h\x01\x85R",
        ),
        GIVEN,
    ),
    "a key without an end": (b"}" + doubled(40) + plain(1) + b"s", PLAIN_KEYS),
    "a deep key": (b"}" + plain(0) + b"\x85" * 150_000 + plain(1) + b"s", PLAIN_KEYS),
    "a deep item of a set": (b"\x8f(" + plain(0) + b"\x85" * 150_000 + b"\x90", PLAIN_KEYS),
    "keys of one hash": (
        b"}(" + b"".join(plain(i * (2**61 - 1)) + b"N" for i in range(1, 20_000)) + b"u",
        PLAIN_KEYS,
    ),
    "a record without an end": (
        call(
            "torch_utils.persistence",
            "_reconstruct_persistent_obj",
            dict_of({"type": plain("class"), "version": plain(6), "class_name": LISTS, "state": plain({})}),
        ),
        "class_name a list of 2 is not known",
    ),
    "a number of a megabyte": (b"\x8b" + struct.pack("<i", 2**20) + b"\x01" * 2**20, "opcode LONG4"),
    "a name of a megabyte": (plain("torch.nn.modules." + "x" * 2**20) + plain("y") + b"\x93", "not on the list"),
}

# What Python's interpreter or numpy refused as well, though not by what it is.
GUARDS = {
    "an array of objects": (array_of(plain((1,)), number_type("O8"), data_of(bytes(8))), "dtype 'O8'"),
    "an array of lists": (array_of(plain((1,)), number_type("O8"), plain([0])), "dtype 'O8'"),
    "an array of a dtype by its name": (array_of(plain((8,)), plain("u1"), data_of(bytes(8))), "dtype 'u1'"),
    "an array of a list": (array_of(plain((2,)), number_type("u1"), plain([0, 1])), r"in \(0, 1\)"),
    "an array of negative sides": (
        array_of(plain((-2, -4)), number_type("u1"), data_of(bytes(8))),
        r"shape \(-2, -4\)",
    ),
    "items added to a list": (b"](" + plain(1) + b"\x90", "adds items to"),
    "items appended to a dict": (b"}(" + plain(1) + b"e", "appends to a dict"),
}


@pytest.mark.parametrize("attack", [*HOSTILE, *GUARDS])
def test_hostile_pickles_take_nothing(path, attack):
    value, told = (HOSTILE | GUARDS)[attack]
    written.write_pickle(path, dict_of({"a": value}))
    with pytest.raises(ValueError, match=rf"file\.pt: not a checkpoint that can be read: .*{told}") as caught:
        read(path)
    assert len(str(caught.value)) < 2000


def test_steps_have_an_end(path, monkeypatch):
    monkeypatch.setattr(unpickle, "MOST_STEPS", 1000)
    written.write_pickle(path, plain([None] * 900))
    read(path)
    written.write_pickle(path, plain([None] * 1000))
    with pytest.raises(ValueError, match="more than 1,000 steps"):
        read(path)


@pytest.mark.parametrize("value", [b"]" + b"\x85" * 50_000, b"]2a"], ids=["tuples", "a list in itself"])
def test_what_has_no_end_is_read_and_thrown_away(path, value):
    written.write_pickle(path, value)
    assert type(read(path)) in (tuple, list)


NUMBERS = np.arange(4, dtype=np.float32)
HOSTILE_ZIPS = {
    "a storage without an end": (
        tuple_of(plain("storage"), LISTS, LISTS, plain("cpu"), plain(4)) + b"Q",
        "a list of 2",
    ),
    "a storage of another device without an end": (
        tuple_of(plain("storage"), named("torch", "FloatStorage"), plain("0"), plain("cpu"), plain(4), LISTS) + b"Q",
        "a tuple of 6, which is no storage",
    ),
    "a tensor without an end": (
        written.call("torch._utils", "_rebuild_tensor_v2", LISTS, plain(0), LISTS, LISTS),
        "lies in a list of 2",
    ),
    "a tensor of a tensor, beyond their storage": (
        written.tensor(written.tensor(written.storage("0", np.float32, 4), (4,), (0,), offset=3), (4,), (1,)),
        "lies in a ndarray, which is no storage",
    ),
    "a tensor of many axes": (
        written.tensor(written.storage("0", np.float32, 4), (1,) * 40, (1,) * 40),
        "size a tuple of 40",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE_ZIPS)
def test_hostile_zips_take_nothing(path, attack):
    value, told = HOSTILE_ZIPS[attack]
    written.write_zip(path, value, {"0": NUMBERS})
    with pytest.raises(ValueError, match=rf"file\.pt: .*{told}") as caught:
        read(path)
    assert len(str(caught.value)) < 2000


def test_old_torch_with_keys_without_an_end(path):
    data = written.legacy(plain({}), {})
    path.write_bytes(data.removesuffix(written.program(plain([]))) + written.program(LISTS))
    with pytest.raises(ValueError, match=r"storages \(\) and has a list of 2"):
        read(path)


def whole_zip(path) -> bytes:
    of = written.storage("0", np.float32, 4)
    return written.write_zip(path, dict_of({"a": written.whole(of, NUMBERS)}), {"0": NUMBERS}).read_bytes()


def changed(data: bytes, signature: bytes, at: int, value: bytes) -> bytes:
    """A zip with a field of the first header of a kind changed."""
    start = data.index(signature) + at
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize("bit", [0x1, 0x20, 0x40])
def test_encrypted_members(path, bit):
    path.write_bytes(changed(whole_zip(path), b"PK\x01\x02", 8, struct.pack("<H", bit)))
    with pytest.raises(ValueError, match="compressed or encrypted"):
        read(path)


def test_members_of_two_sizes(path):
    data = whole_zip(path)
    read(path)
    path.write_bytes(changed(data, b"PK\x01\x02", 20, struct.pack("<I", len(data))))
    with pytest.raises(ValueError, match=r"compressed or encrypted: \['archive/data.pkl'\]"):
        read(path)


def test_a_member_within_another(path):
    inner = zipfile.ZipInfo("archive/data/1")
    inner.CRC, inner.file_size, inner.compress_size = zlib.crc32(NUMBERS.tobytes()), NUMBERS.nbytes, NUMBERS.nbytes
    outer = np.frombuffer(inner.FileHeader() + NUMBERS.tobytes(), np.uint8)
    views = [written.whole(written.storage(key, np.float32, 4), NUMBERS) for key in "01"]
    outer = np.frombuffer(outer.tobytes() + bytes(-outer.size % 4), np.float32)
    views[0] = written.whole(written.storage("0", np.float32, outer.size), outer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", written.program(tuple_of(*views)))
        archive.writestr("archive/data/0", outer.tobytes())
        inner.header_offset = archive.infolist()[1].header_offset + len(archive.infolist()[1].FileHeader())
        archive.filelist.append(inner)
    with pytest.raises(ValueError, match="'archive/data/0' of the archive lies in another member"):
        read(path)


# ---- Modules ---------------------------------------------------------------------------------------------------------


def module(children: dict[str, Record], **parameters: np.ndarray) -> Record:
    state = {"_parameters": parameters, "_buffers": {}, "_modules": children}
    return Record("Module", (), state)


def test_modules_that_are_in_each_other_many_times():
    tree = module({}, weight=NUMBERS)
    for _ in range(18):
        tree = module({"a": tree, "b": tree})
    with pytest.raises(ValueError, match="more than 100,000 parts"):
        state_dict(tree)


def test_a_module_that_two_others_have_is_under_both_names():
    one = module({}, weight=NUMBERS)
    assert list(state_dict(module({"a": one, "b": one}))) == ["a.weight", "b.weight"]


def test_long_names_of_modules():
    tree = module({}, weight=NUMBERS)
    for _ in range(20):
        tree = module({"x" * 100: tree})
    with pytest.raises(ValueError, match="a longer name than 1000"):
        state_dict(tree)
