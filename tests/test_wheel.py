"""The wheel holds the islands and nothing else, and losses and samplers train a model where jax alone is installed."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import jax
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
NOT_SHIPPED = ("configs", "tests", "benchmarks", "docs")

TRAINS = """
import json, sys
from importlib.machinery import PathFinder

wheel, libraries, allowed = sys.argv[1], json.loads(sys.argv[2]), {*json.loads(sys.argv[3]), "fewstep"}
standard_library = list(sys.path)


class JaxAlone(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        refused = path is None and name not in allowed
        return super().find_spec(name, standard_library if refused else path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = JaxAlone
sys.path += [wheel, *libraries]

from functools import partial

import jax
import jax.numpy as jnp
from fewstep.losses import consistency, curricula, edm, pairs, rectified_flow
from fewstep.samplers import euler, grids, multistep_consistency, noise, sample_keys

MEAN, STD = jnp.array([1.0, -0.5]), jnp.array([0.3, 0.6])
CENTRES = MEAN + STD * jax.random.normal(jax.random.key(0), (4096, 2))


def init(key):
    keys = jax.random.split(key, 3)
    sizes = [(3, 64), (64, 64), (64, 2)]
    return [(jax.random.normal(k, s) / s[0] ** 0.5, jnp.zeros(s[1])) for k, s in zip(keys, sizes)]


def mlp(params, x, t):
    h = jnp.concatenate([x, t[:, None]], axis=1)
    for weight, bias in params[:-1]:
        h = jax.nn.silu(h @ weight + bias)
    return h @ params[-1][0] + params[-1][1]


def velocity(params):
    return lambda x, t: mlp(params, x, t)


def consistency_function(params):  # f(x, 0) = x
    def f(x, t):
        total = jnp.sqrt(1 + t[:, None] ** 2)
        return x / total**2 + t[:, None] / total * mlp(params, x / total, jnp.log(t) / 4)

    return f


def flow_loss(params, x, key, step):
    return rectified_flow(velocity(params), x, key)[0].mean()


def consistency_loss(params, x, key, step):
    stage = curricula.ect_stage(step, stage_steps=20, last=3)
    return consistency(consistency_function(params), x, key, pairs=partial(pairs.ect, stage=stage))[0].mean()


def train(loss, steps=80):
    def adam(carry, step):
        params, first, second = carry
        key_x, key = jax.random.split(jax.random.fold_in(jax.random.key(1), step))
        x = jax.random.choice(key_x, CENTRES, (256,))
        gradient = jax.grad(loss)(params, x, key, step)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, second, gradient)
        n = step + 1.0
        move = lambda p, m, v: p - 0.01 * (m / (1 - 0.9**n)) / (jnp.sqrt(v / (1 - 0.99**n)) + 1e-8)
        return (jax.tree.map(move, params, first, second), first, second), None

    @jax.jit
    def run(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        trained = jax.lax.scan(adam, (params, zeros, zeros), jnp.arange(steps))[0][0]
        # One draw and one stage for both, so that the losses are comparable.
        on_all = lambda p: loss(p, CENTRES, jax.random.key(2), steps)
        return trained, on_all(params), on_all(trained)

    return run(init(jax.random.key(3)))


def numbers(before, after, samples):
    return {
        "before": float(before), "after": float(after), "finite": bool(jnp.isfinite(samples).all()),
        "mean": samples.mean(0).tolist(), "variance": samples.var(0).tolist(),
    }


keys = sample_keys(0, jnp.arange(1000))
z = noise.initial(keys, (2,))
found = {"data": numbers(0, 0, CENTRES), "noise": numbers(0, 0, z)}
params, *losses = train(flow_loss)
found["rectified flow"] = numbers(*losses, euler(velocity(params), z, grids.linear(8)))
params, *losses = train(consistency_loss)
samples = multistep_consistency(consistency_function(params), 80 * z, grids.explicit(80, 0.8), keys, path=edm)
found["consistency"] = numbers(*losses, samples)
found["files"] = [sys.modules[f"fewstep.{island}"].__file__ for island in ("losses", "samplers")]
found["loaded"] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: the checkout may hold an old build/, whose files setuptools would ship again."""
    copied = tmp_path_factory.mktemp("checkout")
    for name in (*ISLANDS, *(name for name in NOT_SHIPPED if (ROOT / name).is_dir())):
        copytree(ROOT / name, copied / name, ignore=ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            copy(path, copied)
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if build_requirements_are_here() else []  # else pip fetches them
    run([*PIP, "wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(copied)], folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which pip installed the wheel, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    run([*PIP, "install", "--no-index", "--no-deps", "--target", str(folder), str(wheel)], folder)
    return folder


def build_requirements_are_here() -> bool:
    """Whether this environment has what pyproject.toml needs to build."""
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    try:
        return all(r.specifier.contains(metadata.version(r.name)) for r in map(Requirement, requires))
    except metadata.PackageNotFoundError:
        return False


def run(command: list[str], folder: Path) -> str:
    """Standard output of a command that is run in a folder, which is not the checkout.

    Without the tests' own compilation cache, whose lock jax alone has not.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def required_by(distribution: metadata.Distribution) -> set[str]:
    """What a distribution needs on this machine when it is installed without extras."""
    requirements = [Requirement(text) for text in distribution.requires or []]
    return {
        str(canonicalize_name(r.name)) for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})
    }


def jax_and_what_it_needs() -> tuple[list[str], list[str]]:
    """The folders of jax and of its declared dependencies, and the modules that they install."""
    needed, new = set(), {"jax"}
    while new:
        needed |= new
        new = set().union(*(required_by(metadata.distribution(name)) for name in new)) - needed
    modules = [
        module
        for module, owners in metadata.packages_distributions().items()
        if needed & {canonicalize_name(owner) for owner in owners}
    ]
    folders = {str(metadata.distribution(name).locate_file("")) for name in needed}
    return sorted(folders), sorted(modules)


def test_the_wheel_holds_the_islands_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    own = {name for name in held if ".dist-info/" not in name}
    expected = {
        f"fewstep/{path.relative_to(ROOT).as_posix()}" for island in ISLANDS for path in (ROOT / island).rglob("*.py")
    }
    assert own == expected
    assert "fewstep/__init__.py" not in held  # a namespace, which other wheels may extend
    (folder,) = {name.split("/")[0] for name in held - own}
    assert {f"{folder}/METADATA", f"{folder}/licenses/LICENSE"} <= held


def test_the_wheel_needs_jax_alone(installed):
    (wheel,) = metadata.distributions(path=[str(installed)])
    assert required_by(wheel) == {"jax"}


@pytest.fixture(scope="module")
def found(installed: Path) -> dict[str, Any]:
    """What the program saw, isolated from this environment (-I, -S) and shown jax with its dependencies alone."""
    folders, modules = jax_and_what_it_needs()
    arguments = [str(installed), json.dumps(folders), json.dumps(modules)]
    return json.loads(run([sys.executable, "-I", "-S", "-W", "error", "-c", TRAINS, *arguments], installed.parent))


def test_jax_alone_is_there(found, installed):
    assert all(Path(file).is_relative_to(installed) for file in found["files"])
    _, modules = jax_and_what_it_needs()
    assert {"jax", "numpy"} <= set(modules)
    assert not set(modules) & {"flax", "optax", "jaxtyping", "beartype", "losses", "fewstep"}
    assert not set(found["loaded"]) & {"flax", "optax", "jaxtyping", "beartype", "losses", "models"}


@pytest.mark.parametrize("method", ["rectified flow", "consistency"])
def test_it_trains_and_samples_with_jax_alone(found, method):
    result = found[method]
    assert result["after"] < 0.9 * result["before"]
    assert result["finite"]
    for moment in ("mean", "variance"):
        data, noise, samples = (jax.numpy.array(found[name][moment]) for name in ("data", "noise", method))
        assert jax.numpy.linalg.norm(samples - data) < 0.5 * jax.numpy.linalg.norm(noise - data)


def test_all_islands_import_from_the_wheel(installed):
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
import fewstep.data, fewstep.eval, fewstep.models, fewstep.train
from fewstep.losses import edm
print(json.dumps([sys.modules[name].__file__ for name in sys.modules if name.startswith("fewstep.")]))
"""
    files = json.loads(run([sys.executable, "-I", "-W", "error", "-c", program, str(installed)], installed.parent))
    assert {Path(file).relative_to(installed / "fewstep").parts[0] for file in files} == {*ISLANDS} - {"samplers"}
