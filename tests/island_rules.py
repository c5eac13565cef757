"""Rules over syntax trees that keep the islands islands; each returns what is wrong."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")
NEED_JAX_ALONE = ("losses", "samplers")
OURS = {*ISLANDS, "fewstep", "configs", "main", "modes", "tests", "benchmarks"}
JOINERS = ("main.py", "modes/", "configs/", "tests/", "benchmarks/")
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
