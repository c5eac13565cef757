import hashlib
import re

import pytest

from eval.weights import WEIGHTS, WeightFile, find_weights

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(tmp_path):
    """A file that is published at a URL, and the folder in which it will be kept."""
    (tmp_path / "there.pth").write_bytes(CONTENT)
    return WeightFile("w.pth", (tmp_path / "there.pth").as_uri(), SHA256[:8], "a network"), tmp_path / "kept"


def test_a_file_is_fetched_once(published, tmp_path):
    file, folder = published
    path = find_weights(file, folder=folder)
    assert path == folder / "w.pth"
    assert path.read_bytes() == CONTENT
    (tmp_path / "there.pth").unlink()
    assert find_weights(file, folder=folder) == path
    assert [p.name for p in folder.iterdir()] == ["w.pth"]


def test_a_path_that_is_given_wins(published, tmp_path):
    file, folder = published
    (tmp_path / "mine.pth").write_bytes(b"others")
    assert find_weights(file, tmp_path / "mine.pth", folder=folder) == tmp_path / "mine.pth"
    assert not folder.exists()
    with pytest.raises(
        FileNotFoundError, match=r"absent\.pth: no such file of weights, expected a network, from file:"
    ):
        find_weights(file, tmp_path / "absent.pth")


def test_another_published_file_is_given_by_its_name(published, monkeypatch, tmp_path):
    file, folder = published
    monkeypatch.setattr("eval.weights.WEIGHTS", (file,))
    other = WeightFile("other.pth", (tmp_path / "absent.pth").as_uri(), "", "another network")
    assert find_weights(other, "w.pth", folder=folder).read_bytes() == CONTENT


def test_what_is_absent_says_url_and_place(published, tmp_path):
    file, folder = published
    (tmp_path / "there.pth").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        find_weights(file, folder=folder)
    for part in (file.name, file.url, str(folder / "w.pth"), "--weights"):
        assert part in str(caught.value)
    assert list(folder.iterdir()) == []


def test_another_sha256_is_refused(published, tmp_path):
    file, folder = published
    for sha256 in ("0" * 8, "0" * 64):
        with pytest.raises(ValueError, match=f"sha256 is {SHA256}.*begins with {sha256}"):
            find_weights(file._replace(sha256=sha256), folder=folder)
        assert list(folder.iterdir()) == []
    assert find_weights(file._replace(sha256=""), folder=folder).read_bytes() == CONTENT  # none is known
    (folder / "w.pth").write_bytes(CONTENT[:3])
    with pytest.raises(ValueError, match="delete the file"):
        find_weights(file, folder=folder)


@pytest.mark.parametrize("file", WEIGHTS, ids=lambda file: file.name)
def test_the_table(file):
    assert file.url.startswith("https://")
    assert re.fullmatch(r"|[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
    named = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
    assert named is None or file.sha256 == named[1]


def test_names_in_the_cache_differ():
    assert len({file.name for file in WEIGHTS}) == len(WEIGHTS)
