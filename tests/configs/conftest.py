import pytest

import data
from configs import cifar10, flows, imagenet, imagenet256, imagenet512, latents_ilct, mnist_latents
from tests.configs import made_up


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """(name, changes) -> the workdir of a run that nobody trained; each is made once."""
    folders = {}

    def run_of(name, **changes):
        key = (name, *sorted(changes.items()))
        if key not in folders:
            folders[key] = made_up.run(tmp_path_factory.mktemp(name), name, **changes)
        return folders[key]

    return run_of


@pytest.fixture
def small_data(monkeypatch):
    """CIFAR-10 and ImageNet are on nobody's laptop; images of eight pixels can be made."""
    for shared in (cifar10, imagenet):
        monkeypatch.setattr(shared, "SHAPE", made_up.SHAPE)
        monkeypatch.setattr(shared, "CLASSES", made_up.CLASSES)
    monkeypatch.setattr(imagenet512, "SHAPE", made_up.LATENT_SHAPE)
    monkeypatch.setattr(imagenet512, "space", lambda config: made_up.space(made_up.CLASSES))
    monkeypatch.setattr(mnist_latents, "space", lambda config: made_up.space(made_up.CLASSES))
    monkeypatch.setattr(imagenet256, "space", lambda config: made_up.space(made_up.CLASSES))
    monkeypatch.setattr(latents_ilct, "space_of", lambda config: made_up.space(0))
    monkeypatch.setattr(flows, "pairs_of", lambda config, shape, num_classes: made_up.pairs(shape, num_classes))
    monkeypatch.setattr(data, "tfds_source", lambda name, **options: made_up.images())
