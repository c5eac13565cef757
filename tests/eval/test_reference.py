import numpy as np
import pytest
from PIL import Image

from eval.features import pixels
from eval.images import write_samples
from eval.real import make_reference
from eval.reference import main
from eval.reference_files import read_reference


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (30, 3, 3, 1)).astype(np.uint8)


def built(tmp_path, *arguments):
    out = tmp_path / "reference.npz"
    assert main([*arguments, "--out", str(out)]) == 0
    with np.load(out) as file:
        return read_reference(out, pixels), {key: file[key] for key in file.files if key not in ("mu", "sigma")}


def test_folder_and_npz_give_one_reference_with_its_recipe(images, tmp_path, capsys):
    folder = tmp_path / "real"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03d}.png")
    write_samples(tmp_path / "real.npz", images)
    expected = make_reference("real", pixels, images)
    hashes = []
    for i, source in enumerate((folder, tmp_path / "real.npz")):
        (tmp_path / str(i)).mkdir()
        reference, facts = built(tmp_path / str(i), str(source), "--name", "noise/train", "--batch-size", "7")
        np.testing.assert_allclose(reference.covariance, expected.covariance, rtol=1e-10, atol=1e-12)
        assert (reference.name, reference.n, reference.image_shape) == ("noise/train", 30, (3, 3, 1))
        assert (str(facts["feature"]), str(facts["resize"]), str(facts["preprocessing"])) == (
            *("pixels", "none"),
            "as they are",
        )
        hashes.append(str(facts["images_sha256"]))
        assert hashes[-1][:12] in capsys.readouterr().out
    assert hashes[0] == hashes[1]


def test_a_data_set_by_its_name(tmp_path):
    reference, _ = built(tmp_path, "digits", "--split", "held_out", "--preprocessing", "levels times 255 / 16")
    assert (reference.name, reference.n, reference.image_shape) == ("digits/held_out", 355, (8, 8, 1))


def test_what_is_refused(images, tmp_path, capsys):
    write_samples(tmp_path / "real.npz", images)
    source, out = str(tmp_path / "real.npz"), str(tmp_path / "out.npz")
    for arguments, message in (
        ([source, "--out", source], "exists; choose another name, or give --overwrite"),
        ([str(tmp_path / "absent"), "--out", out], "absent: no such npz file or folder of images"),
        ([source, "--out", out, "--features", "inceptoin"], "there are no features 'inceptoin'; there are pixels"),
        ([source, "--out", str(tmp_path / "out.json")], "the name must end in .npz"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
