"""The rules of the islands can fail: each finds its own violation in a made-up source."""

import pytest

from tests.island_rules import (
    forbidden_names,
    foreign_imports,
    import_cycle,
    imports_beyond_jax,
    imports_of,
    joined_islands,
    unpacked_folders,
)

# ---- The rules can fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "import data",
        "import jax, data.order",
        "from data import digits",
        "import fewstep.data",
        "from fewstep import data",
        "from losses.paths import edm",
        "from fewstep.losses import paths",
        "from .. import data",
        "from ..data import digits",
        "from ..losses import paths as other_way_home\nfrom ..data import digits",
        "from configs import glue",
        "import main",
        "from tests.tiny import init",
        "from benchmarks import data_rate",
        "def f():\n    from models import DiT\n    return DiT",
        "class A:\n    def f(self):\n        import models.dit as dit",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models import Net",
        "try:\n    import models\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('train')",
        "from importlib import import_module\nimport_module('train.loop')",
        "__import__('train')",
    ],
)
def test_the_import_of_another_island_is_found(source):
    assert len(foreign_imports(imports_of(source, "fewstep.losses"), "losses")) == 1


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("from . import paths\nfrom .paths import edm", "fewstep.losses"),
        ("from ..paths import edm\nfrom .. import paths", "fewstep.losses.pretrained"),
        ("import jax\nimport datasets\nfrom jax import random", "fewstep.losses"),
        ("import jax\nlosses = jax.data.losses", "fewstep.losses"),
        ("'import data'", "fewstep.losses"),
    ],
)
def test_an_island_may_import_itself_and_libraries(source, package):
    assert foreign_imports(imports_of(source, package), "losses") == []


def test_a_name_that_begins_as_an_islands_is_not_the_island():
    assert len(foreign_imports(imports_of("from ..losses_of_others import l2", "fewstep.losses"), "losses")) == 1


GUARDED = "try:\n    from jaxtyping import Float\nexcept ModuleNotFoundError:\n    Float = None"


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import optax", "weights.py"),
        ("from flax import linen", "weights.py"),
        ("import jaxtyping", "_shapes.py"),
        (GUARDED, "weights.py"),
        (GUARDED.replace("jaxtyping", "scipy"), "_shapes.py"),
        ("try:\n    pass\nexcept ModuleNotFoundError:\n    import jaxtyping", "_shapes.py"),
        ("try:\n    import jaxtyping\nexcept ValueError:\n    pass", "_shapes.py"),
        ("def f():\n    import scipy.linalg", "weights.py"),
        ("TYPE_CHECKING = False\nif TYPE_CHECKING:\n    pass\nelse:\n    import optax", "weights.py"),
    ],
)
def test_a_dependency_beyond_jax_is_found(source, file):
    assert len(imports_beyond_jax(imports_of(source, "fewstep.losses"), file)) == 1


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (GUARDED, "_shapes.py"),
        ("import typing\nif typing.TYPE_CHECKING:\n    from jaxtyping import Float", "weights.py"),
        ("import math\nimport jax.numpy as jnp\nfrom numpy import pi\nfrom . import paths", "weights.py"),
    ],
)
def test_jax_numpy_and_the_standard_library_are_enough(source, file):
    assert imports_beyond_jax(imports_of(source, "fewstep.losses"), file) == []


def cycle(**sources: str) -> list[str]:
    """The cycle among made-up modules of one island; `init` stands for its `__init__`."""
    named = {("fewstep.data" if name == "init" else f"fewstep.data.{name}"): text for name, text in sources.items()}
    return import_cycle({name: imports_of(text, "fewstep.data") for name, text in named.items()})


def test_an_import_cycle_is_reported():
    found = cycle(init="from . import a", a="from .b import f", b="from . import c", c="from .a import g", d="")
    assert found[0] == found[-1]
    assert " ".join(module[-1] for module in found[:-1]) in ("a b c", "b c a", "c a b")
    assert cycle(a="from .b import f", b="def f():\n    from . import a") != []
    assert cycle(a="from . import a") != []
    assert cycle(init="from .a import f", a="from . import f") == ["fewstep.data", "fewstep.data.a", "fewstep.data"]


def test_what_is_no_cycle_is_not_reported():
    assert cycle(init="from . import a, b", a="from .c import f", b="from .c import f", c="import jax") == []
    type_checking = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import a"
    assert cycle(a="from . import b", b=type_checking) == []


@pytest.mark.parametrize(
    ("source", "islands"),
    [
        ("import losses\nfrom models import DiT", {"losses", "models"}),
        ("import eval as evaluation\nfrom train.loop import fit", {"eval", "train"}),
        ("from fewstep.losses import edm\nimport fewstep.data", {"losses", "data"}),
        ("from fewstep import losses, samplers", {"losses", "samplers"}),
        ("def f():\n    import losses\n    import data.order", {"losses", "data"}),
        ("import jax\nfrom .losses import x", set()),
    ],
)
def test_joined_islands_are_found(source, islands):
    assert joined_islands(imports_of(source, "")) == islands


@pytest.mark.parametrize(
    "source",
    [
        "jax.pmap(f)",
        "from jax import pmap",
        "@jax.pmap\ndef f(x): ...",
        "jnp.nansum(x)",
        "from numpy import nansum as total",
        "x = nansum(y)",
        "import pickle",
        "def f():\n    import pickle as p\n    return p.loads(b'')",
        "from pickle import load",
        "pickle.loads(b'')",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=trust)",
    ],
)
def test_forbidden_names_are_found(source):
    assert len(forbidden_names(source)) == 1


def test_other_names_are_not_forbidden():
    assert forbidden_names("'jax.pmap'  # nansum\nnp.load(f, allow_pickle=False)\njax.vmap(pickled)") == []


def test_a_folder_that_the_wheel_would_lack_is_found():
    packed = '[tool.setuptools]\npackages = ["fewstep.data"]\npackage-dir = {"fewstep.data" = "data"}\n'
    assert unpacked_folders({"data"}, packed) == []
    assert len(unpacked_folders({"data", "data/readers"}, packed)) == 1
    assert len(unpacked_folders({"data", "eval"}, packed)) == 2
    assert len(unpacked_folders(set(), packed)) == 1
    assert len(unpacked_folders({"data"}, packed.replace('= "data"', '= "date"'))) == 1
