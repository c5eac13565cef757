"""Whole metrics beside pytorch-fid, torch-fidelity and clean-fid: two folders of images to numbers, on both sides.

All have the same random weights, and ours are asked as on the command line.
"""

import cleanfid.fid
import numpy as np
import pytest
import pytorch_fid.fid_score
import pytorch_fid.inception
import torch
import torch_fidelity
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image

from eval.fid import main
from eval.rows import read_rows

GENERATED, REAL = 56, 72  # unequal, so that subsets of the larger set are drawn at random
SIDE = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two sets of images that differ in brightness and contrast; each is noise on a patch of one colour."""
    generator = np.random.default_rng(0)
    made = {}
    for name, count, contrast in (("generated", GENERATED, 0.8), ("real", REAL, 1.0)):
        made[name] = tmp_path_factory.mktemp(name)
        colours = generator.uniform(40, 200, (count, 1, 1, 3))
        noise = generator.normal(0, 60, (count, SIDE, SIDE, 3)) * generator.uniform(0, 1, (count, 1, 1, 1))
        images = (contrast * (colours + noise)).clip(0, 255).astype(np.uint8)
        for i, image in enumerate(images):
            Image.fromarray(image).save(made[name] / f"{i:04}.png")
    return [str(made[name]) for name in ("generated", "real")]


@pytest.fixture
def ours(folders, inception_file, tmp_path):
    """Build (resize, features) -> our values by the name of the metric."""

    def measured(resize, *features):
        options = ["--weights", str(inception_file), "--resize", resize, "--batch-size", "32", "--allow-few"]
        rows = tmp_path / "rows.jsonl"
        assert main([*folders, "--features", *features, *options, "--out", str(rows)]) == 0
        return {row["metric"]: row["value"] for row in read_rows(rows)}

    return measured


def compare(what, found, theirs, rtol=1e-5):
    """Of few images a covariance has zeros; the roots of what rounding makes of them are in theirs, and not in ours."""
    print(f"{what}: {theirs:.6g}, we differ by {abs(found / theirs - 1):.1e}")
    assert found == pytest.approx(theirs, rel=rtol), what


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_pytorch_fid(folders, ours, inception_state, monkeypatch):
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **options: inception_state)
    theirs = pytorch_fid.fid_score.calculate_fid_given_paths(folders, 32, "cpu", 2048, num_workers=0)
    compare("pytorch-fid, FID", ours("halfpixel", "inception")[f"fid_halfpixel_{GENERATED}"], theirs)


def test_torch_fidelity(folders, ours, inception_file):
    theirs = torch_fidelity.calculate_metrics(
        input1=folders[0],
        input2=folders[1],
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_file),
        feature_layer_prc="2048",
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=GENERATED,
        batch_size=32,
        cuda=False,
        cache=False,
        verbose=False,
    )
    found = ours("tf1", "inception", "inception_logits")
    compare("torch-fidelity, FID", found[f"fid_tf1_{GENERATED}"], theirs["frechet_inception_distance"])
    compare("torch-fidelity, KID", found[f"kid_inception_tf1_{GENERATED}"], theirs["kernel_inception_distance_mean"])
    score = found[f"inception_score_torch_fidelity_tf1_{GENERATED}"]
    compare("torch-fidelity, Inception Score", score, theirs["inception_score_mean"])
    for name in ("precision", "recall"):
        assert 0 < theirs[name] < 1
        compare(f"torch-fidelity, {name}", found[f"{name}_inception_tf1_{GENERATED}"], theirs[name])


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_clean_fid(folders, ours, inception_state, monkeypatch, tmp_path):
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *args, **options: inception_state)
    network = pytorch_fid.inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    # Their network comes as a program of torch's: one of the same layout is written with our weights.
    program = Program(network)
    torch.jit.trace(program, torch.zeros(1, 3, 299, 299)).save(tmp_path / "inception-2015-12-05.pt")
    loaded = InceptionV3W(str(tmp_path), download=False, resize_inside=False)
    theirs = cleanfid.fid.compare_folders(
        *folders, loaded, mode="clean", batch_size=32, device=torch.device("cpu"), verbose=False
    )
    compare("clean-fid, FID", ours("clean", "inception")[f"fid_clean_{GENERATED}"], theirs)


class Program(torch.nn.Module):
    """The network as `layers`, where clean-fid looks for it."""

    def __init__(self, network):
        """Hold it."""
        super().__init__()
        self.layers = Layers(network)

    def forward(self, x):
        """Its features."""
        return self.layers(x)


class Layers(torch.nn.Module):
    """The pooled features alone."""

    def __init__(self, network):
        """Hold the network."""
        super().__init__()
        self.network = network

    def forward(self, x):
        """The last of its outputs."""
        return self.network(x)[0]
