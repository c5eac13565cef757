"""The islands stay islands: rules over the syntax trees, and the rules over sources that break them."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")
NEED_JAX_ALONE = ("losses", "samplers")
OURS = {*ISLANDS, "fewstep", "configs", "main", "tests", "benchmarks"}
JOINERS = ("main.py", "configs/", "tests/", "benchmarks/")
FORBIDDEN = {
    "pmap": "in maintenance mode; use jax.jit with shardings, or jax.shard_map",
    "nansum": "hides a NaN",
    "pickle": "runs code from data files",
}


class Import(NamedTuple):
    """One imported name. Relative imports are resolved as in the wheel, where an island is `fewstep.<island>`."""

    line: int
    module: str
    name: str | None = None  # of `from module import name`
    relative: bool = False
    type_checking: bool = False  # under `if TYPE_CHECKING:`
    guarded: bool = False  # in a `try` that catches its absence

    @property
    def target(self) -> str:
        """What is imported, by its full name."""
        return f"{self.module}.{self.name}" if self.name else self.module


def imports_of(source: str, package: str) -> list[Import]:
    """All imports of a file that lies in a package, wherever in the file they are."""
    return list(_imports(ast.parse(source), package.split("."), type_checking=False, guarded=False))


def _imports(node: ast.AST, package: list[str], *, type_checking: bool, guarded: bool) -> Iterator[Import]:
    for module, name, relative in _imported(node, package):
        yield Import(getattr(node, "lineno", 0), module, name, relative, type_checking, guarded)
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _imports(
                    child,
                    package,
                    type_checking=type_checking or (field == "body" and _is_for_type_checkers(node)),
                    guarded=guarded or (field == "body" and _survives_absence(node)),
                )


def _imported(node: ast.AST, package: list[str]) -> list[tuple[str, str | None, bool]]:
    """(module, name, relative) of everything that this node itself imports."""
    match node:
        case ast.Import():
            return [(alias.name, None, False) for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [(module, alias.name, False) for alias in node.names]
        case ast.ImportFrom():
            parents = package[: len(package) + 1 - node.level]
            module = ".".join([*parents, node.module] if node.module else parents)
            return [(module, alias.name, True) for alias in node.names]
        case ast.Call(
            func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            return [(module, None, False)]
    return []


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _survives_absence(node: ast.AST) -> bool:
    caught = (
        {ast.unparse(handler.type) for handler in node.handlers if handler.type} if isinstance(node, ast.Try) else {}
    )
    return bool({"ImportError", "ModuleNotFoundError"} & set(caught))


# ---- Rules: each returns what is wrong -------------------------------------------------------------------------------


def foreign_imports(imports: list[Import], island: str) -> list[str]:
    """An island imports itself, relatively, and libraries; never another island nor anything else of ours."""
    own = f"fewstep.{island}"
    return [
        f"line {i.line}: imports {i.target}"
        for i in imports
        if (not f"{i.module}.".startswith(f"{own}.") if i.relative else i.module.split(".")[0] in OURS)
    ]


def imports_beyond_jax(imports: list[Import], file: str) -> list[str]:
    """At run time jax, numpy and the standard library; jaxtyping where `_shapes.py` can do without it."""
    return [
        f"line {i.line}: needs {i.module}"
        for i in imports
        if not (i.relative or i.type_checking)
        and i.module.split(".")[0] not in {"jax", "numpy"} | sys.stdlib_module_names
        and not (i.module == "jaxtyping" and i.guarded and file == "_shapes.py")
    ]


def import_cycle(modules: dict[str, list[Import]]) -> list[str]:
    """A cycle among the modules of an island, the first one twice; empty if there is none.

    An import in a function counts: it may run, but it is the same knot. One for the type checker does not.
    """
    graph = {
        module: {
            target
            for i in imports
            if not i.type_checking
            for target in [i.target if i.target in modules else i.module]
            if target in modules
        }
        for module, imports in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def joined_islands(imports: list[Import]) -> set[str]:
    """The islands that a file outside of them imports, under either name."""
    parts = [i.target.split(".") for i in imports if not i.relative]
    return {p[1] if p[0] == "fewstep" and len(p) > 1 else p[0] for p in parts} & set(ISLANDS)


def forbidden_names(source: str) -> list[str]:
    """Uses of pmap, nansum and pickle, and arrays loaded with pickle allowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
                found += [(node.lineno, part) for part in name.split(".") if part in FORBIDDEN]
            case ast.ImportFrom(module=str(name)):
                found += [(node.lineno, part) for part in name.split(".") if part in FORBIDDEN]
            case ast.keyword(arg="allow_pickle", value=value) if ast.unparse(value) != "False":
                found.append((node.lineno, "pickle"))
    return [f"line {line}: {name}, which {FORBIDDEN[name]}" for line, name in sorted(set(found))]


def unpacked_folders(folders: set[str], pyproject: str) -> list[str]:
    """Folders of islands that the wheel would lack, and packages that are no folder."""
    setuptools = tomllib.loads(pyproject)["tool"]["setuptools"]
    expected = {f"fewstep.{folder.replace('/', '.')}" for folder in folders}
    wrong = [f"{name}: not the same in packages and in the folders" for name in expected ^ set(setuptools["packages"])]
    for island in sorted(folder for folder in folders if "/" not in folder):
        if setuptools["package-dir"].get(f"fewstep.{island}") != island:
            wrong.append(f"fewstep.{island}: not {island!r} in package-dir")
    return sorted(wrong)


# ---- The repository --------------------------------------------------------------------------------------------------


def python_files(*folders: str) -> dict[str, str]:
    """{path: source} of folders of the repository."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def package_of(path: str) -> str:
    return ".".join(["fewstep", *Path(path).parts[:-1]])


def module_of(path: str) -> str:
    return package_of(path) if path.endswith("__init__.py") else f"{package_of(path)}.{Path(path).stem}"


def own_code() -> dict[str, str]:
    """Every Python file of the checkout but those of environments, builds and runs."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not (path / "pyvenv.cfg").exists()]
    names = [path.name for path in folders if not path.name.startswith(".") and path.name not in ignored]
    return python_files(*names) | {path.name: path.read_text() for path in ROOT.glob("*.py")}


@pytest.mark.parametrize("island", ISLANDS)
def test_an_island_imports_no_other(island):
    files = python_files(island)
    assert f"{island}/__init__.py" in files
    wrong = {path: foreign_imports(imports_of(source, package_of(path)), island) for path, source in files.items()}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize("island", NEED_JAX_ALONE)
def test_losses_and_samplers_need_jax_alone(island):
    wrong = {
        path: imports_beyond_jax(imports_of(source, package_of(path)), Path(path).name)
        for path, source in python_files(island).items()
    }
    assert {path: lines for path, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize("island", ISLANDS)
def test_an_island_has_no_import_cycle(island):
    modules = {module_of(path): imports_of(source, package_of(path)) for path, source in python_files(island).items()}
    assert import_cycle(modules) == []


def test_only_configs_and_main_join_islands():
    joined = {
        path: joined_islands(imports_of(source, package_of(path)))
        for path, source in own_code().items()
        if not path.startswith((*JOINERS, *(f"{island}/" for island in ISLANDS)))
    }
    assert {path: islands for path, islands in joined.items() if len(islands) > 1} == {}


def test_configs_and_main_do_join_islands():
    sources = [source for path, source in own_code().items() if path.startswith(("main.py", "configs/"))]
    assert set().union(*(joined_islands(imports_of(source, "")) for source in sources)) == set(ISLANDS)


def test_no_pmap_no_nansum_no_pickle():
    wrong = {path: forbidden_names(source) for path, source in own_code().items() if not path.startswith("tests/")}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


def test_every_island_is_packed():
    folders = {Path(path).parent.as_posix() for path in python_files(*ISLANDS)}
    assert unpacked_folders(folders, (ROOT / "pyproject.toml").read_text()) == []


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
