"""Every container gives back the numbers that were put in; what is hostile or damaged is refused, and runs nothing."""

import pickle
import struct
import sys
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained.modules import state_dict
from models.pretrained.reader import read
from models.pretrained.values import Record
from tests.models.pretrained import written
from tests.models.pretrained.written import call, dict_of, named, plain, tuple_of

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
with_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published programs' files are not here")

ARRAYS: dict[str, np.ndarray] = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2], np.float16),
    "bfloat16": np.array([1.5, -3e38], jnp.bfloat16),
    "double": np.array(2.5),
    "count": np.array([7], np.int64),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "file.pt"


def test_state_dict_in_a_zip(path):
    found = read(written.write_state_dict(path, ARRAYS))
    assert_same(found, ARRAYS)
    with pytest.raises(ValueError, match="read-only"):
        found["matrix"][0] = 0


@pytest.mark.parametrize("function", ["_rebuild_tensor", "_rebuild_tensor_v2"])
def test_state_dict_of_old_torch(path, function):
    keys = {name: str(94_000 + i) for i, name in enumerate(ARRAYS)}
    value = dict_of(
        {
            name: written.whole(written.storage(keys[name], a.dtype, a.size, plain(None)), a, function=function)
            for name, a in ARRAYS.items()
        }
    )
    path.write_bytes(written.legacy(value, {keys[name]: a for name, a in ARRAYS.items()}))
    assert_same(read(path), ARRAYS)


def test_safetensors(path):
    arrays = {name: array for name, array in ARRAYS.items() if array.size}
    pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    found = read(path)
    assert_same({name: found[name] for name in arrays}, arrays)


def test_views_of_one_storage(path):
    numbers = np.arange(12, dtype=np.float32)
    of = written.storage("0", np.float32, 12)
    views = {
        "transposed": written.tensor(of, (4, 3), (1, 4)),
        "part": written.tensor(of, (2, 2), (4, 1), offset=5),
        "number": written.tensor(of, (), (), offset=11),
        "parameter": call("torch._utils", "_rebuild_parameter", written.tensor(of, (2,), (6,)), plain(True)),
    }
    expected = {
        "transposed": numbers.reshape(3, 4).T,
        "part": numbers.reshape(3, 4)[1:, 1:3],
        "number": numbers[11],
        "parameter": numbers[::6],
    }
    assert_same(read(written.write_zip(path, dict_of(views), {"0": numbers})), expected)


def test_module_of_nvidia(path):
    linear = written.module(
        "Linear",
        {"weight": ARRAYS["matrix"]},
        {"frequencies": ARRAYS["half"]},
        in_features=3,
    )
    children = {"first": linear, "none": plain(None), "list": container("ModuleDict", {"second": linear})}
    value = dict_of({"ema": written.module("Net", modules=children), "dataset_kwargs": plain({"resolution": 8})})
    content = read(written.write_pickle(path, value))
    assert content["dataset_kwargs"] == {"resolution": 8}
    assert content["ema"].name == "Net"
    assert content["ema"].state["_modules"]["first"].state["in_features"] == 3
    expected = {
        f"{prefix}.{name}": array
        for prefix in ("first", "list.second")
        for name, array in (("weight", ARRAYS["matrix"]), ("frequencies", ARRAYS["half"]))
    }
    assert_same(state_dict(content["ema"]), expected)


def container(name, modules):
    """One of torch's own modules, an object whose state is given afterwards."""
    state = {"_parameters": dict_of({}), "_buffers": dict_of({}), "_modules": dict_of(modules)}
    return named("torch.nn.modules.container", name) + b")\x81" + dict_of(state) + b"b"


def test_inert_objects_and_numbers_of_numpy(path):
    double = call("numpy", "dtype", plain("f8"), plain(False), plain(True))
    double += plain((3, "<", None, None, None, -1, -1, 0)) + b"b"
    raw = np.array([1.5, 2.5]).tobytes()
    empty = call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), plain((0,)), plain(b"b"))
    value = {
        "arguments": call("argparse", "Namespace") + dict_of({"model": plain("SiT-S/2")}) + b"b",
        "method": call("builtins", "getattr", plain("text"), plain("upper")),
        "easy": named("dnnlib.util", "EasyDict") + b")\x81" + plain("a") + plain(1) + b"s",
        "number": call("numpy._core.multiarray", "scalar", double, plain(raw[:8])),
        "array": empty + tuple_of(plain(1), plain((2,)), double, plain(False), plain(raw)) + b"b",
    }
    content = read(written.write_pickle(path, dict_of(value)))
    assert isinstance(content["arguments"], Record)
    assert (content["arguments"].name, content["arguments"].state) == ("argparse.Namespace", {"model": "SiT-S/2"})
    assert content["method"].arguments == ("text", "upper")  # and not the method
    with pytest.raises(ValueError, match=r"the object is Record\(argparse.Namespace\), which is no module"):
        state_dict(content["arguments"])
    assert content["easy"] == {"a": 1}
    assert content["number"] == 1.5
    np.testing.assert_array_equal(content["array"], [1.5, 2.5])


# ---- Hostile files ---------------------------------------------------------------------------------------------------

ATTACK = call("posix", "system", plain("touch PWNED"))
NUMBERS = np.arange(4, dtype=np.float32)
STORED = written.storage("0", np.float32, 4)


def big(opcode, length, size):
    return opcode + length.to_bytes(size, "little")


HOSTILE = {
    "a command": (ATTACK, r"names posix\.system"),
    "a command by getattr": (
        call("builtins", "getattr", named("torch.nn.modules", "os"), plain("system")) + tuple_of(plain("x")) + b"R",
        "not callable",
    ),
    "a command as a class": (b"(" + plain("touch PWNED") + b"iposix\nsystem\n", "opcode INST"),
    "eval": (call("builtins", "eval", plain("open('PWNED', 'w')")), r"names builtins\.eval"),
    "a command in a storage": (
        call("torch.storage", "_load_from_bytes", plain(written.program(ATTACK))),
        r"names (posix\.system|_codecs\.encode)",
    ),
    "torch's own nested load": (call("torch.serialization", "load"), r"names torch\.serialization\.load"),
    "an extension code": (b"\x82\x01", "opcode EXT1"),
    "attributes of a function": (
        named("torch._utils", "_rebuild_tensor") + tuple_of(plain(None), dict_of({"__defaults__": plain(())})) + b"b",
        "attributes to torch._utils._rebuild_tensor",
    ),
    "attributes of a class": (
        named("argparse", "Namespace") + tuple_of(plain(None), dict_of({"name": plain("x")})) + b"b",
        "attributes to argparse.Namespace",
    ),
    "an array of objects": (
        call("numpy.core.multiarray", "scalar", call("numpy", "dtype", plain("O8")), plain(b"12345678")),
        "dtype 'O8'",
    ),
    "many bytes": (big(b"\x8e", 2**60, 8), "expected 1152921504606846976 bytes"),
    "many characters": (big(b"X", 2**31, 4), "expected 2147483648 bytes"),
    "much to remember": (b"N" + big(b"r", 2**32 - 1, 4), "declares 4294967295 remembered values"),
    "another record": (call("torch_utils.persistence", "_reconstruct_persistent_obj", plain({"type": "x"})), "record"),
    "a storage outside": (STORED, "refers to something outside"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_pickles_run_nothing(path, monkeypatch, attack):
    monkeypatch.chdir(path.parent)
    value, told = HOSTILE[attack]
    written.write_pickle(path, value)
    with pytest.raises(ValueError, match=rf"file\.pt: not a checkpoint that can be read: .*{told}"):
        read(path)
    assert [file.name for file in path.parent.iterdir()] == ["file.pt"]


def test_the_attack_would_work_on_an_open_door(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    written.write_pickle(path, ATTACK)
    if sys.platform == "win32":
        pytest.skip("posix is not there")
    pickle.loads(path.read_bytes())
    assert (path.parent / "PWNED").exists()


HOSTILE_ZIPS = {
    "a command": (dict_of({"a": ATTACK}), {}, r"names posix\.system"),
    "a storage larger than its member": (
        written.tensor(written.storage("0", np.float32, 5), (5,), (1,)),
        {"0": NUMBERS},
        "5 numbers of float32 has 16 bytes",
    ),
    "a storage of 2^60 numbers": (
        written.tensor(written.storage("0", np.float32, 2**60), (2**60,), (1,)),
        {"0": NUMBERS},
        "has 16 bytes",
    ),
    "a storage of negative size": (written.storage("0", np.float32, -4), {"0": NUMBERS}, "has -4 numbers"),
    "no such storage": (written.storage("1", np.float32, 4), {"0": NUMBERS}, "is missing"),
    "a tensor beyond its storage": (written.tensor(STORED, (4,), (1,), offset=1), {"0": NUMBERS}, "outside"),
    "a stride beyond its storage": (written.tensor(STORED, (2, 2), (3, 1)), {"0": NUMBERS}, "outside"),
    "a tensor before its storage": (written.tensor(STORED, (2,), (1,), offset=-1), {"0": NUMBERS}, "offset -1"),
    "a negative stride": (written.tensor(STORED, (2,), (-1,), offset=1), {"0": NUMBERS}, r"stride \(-1,\)"),
    "many numbers from one": (written.tensor(STORED, (2**40,), (0,)), {"0": NUMBERS}, "outside"),
    "a storage for nothing": (plain({}), {"0": NUMBERS}, r"more than it refers to: \['archive/data/0'\]"),
    "a second pickle": (plain({}) + b"." + plain({}), {}, "a second one"),
    "no storage": (tuple_of(plain("module"), plain(1), plain(2), plain(3), plain(4)) + b"Q", {}, "no storage"),
}


@pytest.mark.parametrize("attack", HOSTILE_ZIPS)
def test_hostile_zips(path, monkeypatch, attack):
    monkeypatch.chdir(path.parent)
    value, storages, told = HOSTILE_ZIPS[attack]
    written.write_zip(path, value, storages)
    with pytest.raises(ValueError, match=rf"file\.pt: .*{told}"):
        read(path)
    assert [file.name for file in path.parent.iterdir()] == ["file.pt"]


def test_compressed_zip(path):
    zeros = np.zeros(1_000_000, np.float32)
    of = written.storage("0", np.float32, zeros.size)
    written.write_zip(path, written.whole(of, zeros), {"0": zeros}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"more than it holds, or is compressed"):
        read(path)


def test_zip_of_something_else(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
    with pytest.raises(ValueError, match=r"has 0 members data\.pkl"):
        read(path)


def test_big_endian(path):
    path.write_bytes(written.legacy(plain({}), {}, little_endian=False))
    with pytest.raises(ValueError, match="big-endian"):
        read(path)


def test_old_torch_with_a_wrong_number_of_numbers(path):
    data = written.legacy(dict_of({"a": written.whole(STORED, NUMBERS)}), {"0": NUMBERS})
    path.write_bytes(data.replace(struct.pack("<q", 4), struct.pack("<q", 5)))
    with pytest.raises(ValueError, match="does not have 4 numbers"):
        read(path)
    path.write_bytes(written.legacy(dict_of({"a": written.storage("0", np.float32, 2**60)}), {"0": NUMBERS}))
    with pytest.raises(ValueError, match="larger than the file"):
        read(path)


def whole_files(path) -> dict[str, bytes]:
    """One intact file of each kind."""
    return {
        "zip": written.write_state_dict(path, ARRAYS).read_bytes(),
        "legacy": written.legacy(dict_of({"a": written.whole(STORED, NUMBERS)}), {"0": NUMBERS}),
        "nvidia": written.program(dict_of({"ema": written.module("Net", {"a": NUMBERS})})),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "nvidia"])
def test_damaged_files(path, kind):
    data = whole_files(path)[kind]
    path.write_bytes(data)
    read(path)
    for cut in (*range(16, len(data), max(1, len(data) // 40)), len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"file\.pt"):
            read(path)
    path.write_bytes(data + b"x")
    with pytest.raises(ValueError, match=r"file\.pt: .*(left over|before or after)"):
        read(path)


def test_other_files(path):
    with pytest.raises(FileNotFoundError, match=r"file\.pt: no such file"):
        read(path)
    path.touch()
    with pytest.raises(ValueError, match=r"file\.pt is empty"):
        read(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"neither a file of torch.*short"):
        read(path)
    path.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(ValueError, match=r"neither a file of torch.*DOCTYPE"):
        read(path)
    path.write_bytes(struct.pack("<q", 1000) + b'{"a": 1}')
    with pytest.raises(ValueError, match=r"file\.pt: not a checkpoint"):
        read(path)


def test_safetensors_without_its_package(path, monkeypatch):
    path.write_bytes(struct.pack("<q", 8) + b'{"a": 1}')
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)  # an import of it raises ModuleNotFoundError
    with pytest.raises(ImportError, match="pip install safetensors"):
        read(path)


# ---- Files of the published programs ---------------------------------------------------------------------------------


@with_fixtures
@pytest.mark.parametrize("name", ["malicious_edm.pkl", "truncated_edm.pkl"])
def test_published_negatives(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {"malicious_edm.pkl": r"names \w+\.system", "truncated_edm.pkl": "only 20 remain"}[name]
    with pytest.raises(ValueError, match=rf"{name}: .*{told}"):
        read(FIXTURES / "negative" / name)
    assert list(tmp_path.iterdir()) == []


@with_fixtures
def test_one_network_in_three_containers():
    plain_file = read(FIXTURES / "ect_ddpmpp_cond.state_dict.pt")
    snapshot = read(FIXTURES / "ect_ddpmpp_cond.network-snapshot-latest.pkl")
    training = read(FIXTURES / "ect_ddpmpp_cond.training-state-latest.pt")
    assert_same(state_dict(snapshot["ema"]), plain_file)
    assert_same(state_dict(training["net"]), plain_file)


@with_fixtures
@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*.p[tk]*")) if FIXTURES.is_dir() else [], ids=lambda p: p.name)
def test_names_shapes_and_sums(file):
    content = read(file)
    if file.name.startswith(("edm", "ect")) and not file.name.endswith("state_dict.pt"):
        content = state_dict(content["ema" if "ema" in content else "net"])
    content = content.get("ema", content)
    with np.load(FIXTURES / f"{file.name.split('.')[0]}.npz") as arrays:
        assert list(content) == arrays["state_names"].tolist()
        sums = [a.astype(np.float64).sum() for a in content.values()]
        np.testing.assert_allclose(sums, arrays["state_sums"], rtol=1e-12, atol=1e-9)
