from pathlib import Path

import numpy as np
import pytest

from eval import classifier_cache
from eval.classifier_cache import cache_folder, kept_classifier


@pytest.fixture
def trainings(monkeypatch, classifier):
    """How often a classifier was trained, in place of training one."""
    calls = []

    def train(image, label, held_out_image, held_out_label, *, num_classes, seed):
        calls.append(len(image))
        return classifier

    monkeypatch.setattr(classifier_cache, "train_classifier", train)
    return calls


def keep(toy, folder, **changes):
    images = {"image": toy.image, "label": toy.label, "held_out_image": toy.image[:9], "held_out_label": toy.label[:9]}
    return kept_classifier(**(images | changes), num_classes=2, folder=folder)


def test_trained_once_for_the_same_data(toy, classifier, trainings, tmp_path):
    folder = tmp_path / "new" / "folder"
    first, again = keep(toy, folder), keep(toy, folder)
    assert trainings == [len(toy.image)]
    assert first.name == again.name == classifier.name
    assert again.held_out_accuracy == classifier.held_out_accuracy
    np.testing.assert_allclose(again.logits(toy.image[:5]), first.logits(toy.image[:5]), rtol=1e-5, atol=1e-6)
    assert len(list(folder.iterdir())) == 1  # nothing unfinished stays


@pytest.mark.parametrize("name", ["image", "label", "held_out_image", "held_out_label"])
def test_trained_anew_for_other_data(toy, trainings, tmp_path, name):
    keep(toy, tmp_path)
    array = (toy.image if "image" in name else toy.label)[: 9 if "held" in name else None].copy()
    array.flat[-1] = 1 - min(array.flat[-1], 1)
    keep(toy, tmp_path, **{name: array})
    assert len(trainings) == 2


def test_another_seed_is_another_classifier(toy, trainings, tmp_path):
    for seed in (0, 1, 1):
        keep(toy, tmp_path, seed=seed)
    assert len(trainings) == 2


def test_trained_anew_after_a_change_of_its_code(toy, trainings, tmp_path, monkeypatch):
    keep(toy, tmp_path)
    changed = tmp_path / "changed.py"
    changed.write_text(Path(classifier_cache.module.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(classifier_cache.module, "__file__", str(changed))
    keep(toy, tmp_path)
    assert len(trainings) == 2


def test_trained_each_time_where_nothing_can_be_written(toy, trainings, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    for _ in range(2):
        keep(toy, file / "folder")
    assert len(trainings) == 2


def test_where_it_is_kept(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/fewstep/classifiers")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fewstep" / "classifiers"
