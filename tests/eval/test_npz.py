import numpy as np
import pytest

from eval import npz


def test_only_arrays_of_the_names_asked_for_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=np.ones(3), arr_1=np.arange(2))
    found = npz.read_npz(tmp_path / "a.npz", "arr_1", "absent")
    assert list(found) == ["arr_1"]
    np.testing.assert_array_equal(found["arr_1"], [0, 1])
    assert list(npz.read_npz(tmp_path / "a.npz")) == ["arr_0", "arr_1"]


def test_what_is_no_archive_is_not_said_to_hold_objects(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.npz is no npz file$"):
        npz.read_npz(tmp_path / "a.npz")


def test_more_than_the_memory_of_the_machine_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, arr_0=np.zeros(10**6, np.uint8), arr_1=np.zeros(10, np.uint8))
    assert path.stat().st_size < 10_000 < 10**6 < npz.memory()
    monkeypatch.setattr(npz, "memory", lambda: 10**6)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, name: pytest.fail("it was unpacked"))
    with pytest.raises(
        ValueError, match=r"zeros\.npz.* it unpacks to 1,000,266 bytes, more than .* machine, 1,000,000"
    ):
        npz.read_npz(path)
