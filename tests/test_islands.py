"""Islands import only themselves, relatively; configs, main.py with its modes, benchmarks and tests join them."""

from pathlib import Path

import pytest

from tests.island_rules import (
    ISLANDS,
    JOINERS,
    NEED_JAX_ALONE,
    ROOT,
    forbidden_names,
    foreign_imports,
    import_cycle,
    imports_beyond_jax,
    imports_of,
    joined_islands,
    unpacked_folders,
)

# Adaptive steps are diffrax's, too much to write again for one sampler. The file is imported by its own name and by no
# other file of its island, which therefore still needs jax alone; the extra `adaptive` brings what it imports.
OPTIONAL = {"samplers/adaptive.py": {"diffrax", "equinox", "jaxtyping"}}

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
        if path not in OPTIONAL
    }
    assert {path: lines for path, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize("optional", OPTIONAL)
def test_a_file_that_needs_more_needs_what_it_says_and_is_needed_by_none(optional):
    files = python_files(*NEED_JAX_ALONE)
    beyond = imports_beyond_jax(imports_of(files[optional], package_of(optional)), Path(optional).name)
    assert {line.split()[-1].split(".")[0] for line in beyond} == OPTIONAL[optional]
    targets = {path: {i.target for i in imports_of(source, package_of(path))} for path, source in files.items()}
    assert [path for path, names in targets.items() if module_of(optional) in names] == []


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
    sources = [source for path, source in own_code().items() if path.startswith(("main.py", "modes/", "configs/"))]
    assert set().union(*(joined_islands(imports_of(source, "")) for source in sources)) == set(ISLANDS)


def test_no_pmap_no_nansum_no_pickle():
    wrong = {path: forbidden_names(source) for path, source in own_code().items() if not path.startswith("tests/")}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


def test_every_island_is_packed():
    folders = {Path(path).parent.as_posix() for path in python_files(*ISLANDS)}
    assert unpacked_folders(folders, (ROOT / "pyproject.toml").read_text()) == []
