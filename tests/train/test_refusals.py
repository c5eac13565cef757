"""What a run refuses to go on with: damaged checkpoints, and those of another run; each fault is really made."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import BRIEF, experiment
from train import Record, Refused, Resume, averages, fit, read_log
from train.checkpoint import FACTS_SUM, steps_in
from train.lock import hold


def params_of(state):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


def payload(folder: Path) -> Path:
    """The largest file of a checkpoint."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---- Damaged checkpoints ---------------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    path = payload(folder / "state" / "d") if (folder / "state" / "d").is_dir() else payload(folder / "state")
    path.write_bytes(path.read_bytes()[:-20])


DAMAGES = {
    "facts are gone": (
        lambda folder: shutil.rmtree(folder / "facts"),
        "cannot be read; a whole one has facts and state",
    ),
    "state is gone": (
        lambda folder: shutil.rmtree(folder / "state"),
        "cannot be read; a whole one has facts and state",
    ),
    "metadata is gone": (lambda folder: (folder / "state" / "_METADATA").unlink(), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_passed_over_only_if_allowed(run, damage):
    act, message = DAMAGES[damage]
    act(run / "checkpoints" / "12")
    with pytest.raises(Refused, match=rf"checkpoints/12 {message}.*--allow_fallback goes back to step 8") as caught:
        fit(experiment(**BRIEF), run)
    assert steps_in(run / "checkpoints") == [8, 12], caught.value
    again = fit(experiment(**BRIEF), run, resume=Resume(fallback=True))
    assert again.steps_taken == 4
    assert steps_in(run / "checkpoints") == [8, 12]
    assert [path.name for path in (run / "set_aside").glob("*/checkpoints/*")] == ["12"]


def test_a_flipped_bit_sends_a_run_back_only_if_allowed_and_it_ends_the_same(finished, tmp_path):
    # Wide enough that the middle of the largest file is payload.
    wide = experiment(dim=64, **BRIEF)
    whole = fit(wide, tmp_path / "run")
    flip(payload(tmp_path / "run" / "checkpoints" / "12" / "state"))
    # Where the bit is in a compressed block, that may be what cannot be read any more.
    damage = r"(?s)12 (is damaged: the bits of .* are not|cannot be read;) .*; --allow_fallback goes back to step 8"
    with pytest.raises(Refused, match=damage):
        fit(wide, tmp_path / "run")
    again = fit(wide, tmp_path / "run", resume=Resume(fallback=True))
    np.testing.assert_array_equal(params_of(whole.state), params_of(again.state))


def test_the_last_checkpoint_that_is_damaged_says_that_there_is_no_older_one(run):
    shutil.rmtree(run / "checkpoints" / "8")
    shutil.rmtree(run / "checkpoints" / "12" / "facts")
    with pytest.raises(Refused, match="there is no older one"):
        fit(experiment(**BRIEF), run, resume=Resume(fallback=True))


def change_facts(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]], *, summed: bool) -> None:
    """As a disk changes them, or as an earlier program, which knew of no sum, would have written them."""
    path = run / "checkpoints" / "12" / "facts" / "metadata"
    facts = change(json.loads(path.read_text()))
    path.write_text(json.dumps(facts if summed else {name: facts[name] for name in facts if name != FACTS_SUM}))


def with_another_name(facts: dict[str, Any], name: str) -> dict[str, Any]:
    """One letter of a name is another one; the rest is as it was."""
    return {(f"X{key[1:]}" if key == name else key): value for key, value in facts.items()}


@pytest.mark.parametrize("name", ["format_version", "checksums", "data"])
@pytest.mark.parametrize("summed", [True, False], ids=["with a sum", "of an earlier program"])
def test_one_letter_in_the_facts_is_a_damage_of_this_checkpoint(run, name, summed):
    change_facts(run, lambda facts: with_another_name(facts, name), summed=summed)
    told = "its facts are not those that were saved" if summed else f"its facts have no {name}"
    with pytest.raises(Refused, match=rf"checkpoints/12 is damaged: {told}.*--allow_fallback goes back to step 8"):
        fit(experiment(**BRIEF), run)
    assert fit(experiment(**BRIEF), run, resume=Resume(fallback=True)).steps_taken == 4


def test_the_name_of_a_leaf_or_a_number_in_the_facts_is_a_damage_too(run):
    def rename(facts):
        return facts | {"checksums": with_another_name(facts["checksums"], "params/weight")}

    change_facts(run, rename, summed=False)
    with pytest.raises(Refused, match=r"12 is damaged: the bits of params/weight are not .*goes back to step 8"):
        fit(experiment(**BRIEF), run)
    change_facts(run, lambda facts: facts | {FACTS_SUM: 1}, summed=True)
    with pytest.raises(Refused, match=r"12 is damaged: its facts are not those that were saved"):
        fit(experiment(**BRIEF), run)


def test_a_checkpoint_without_a_sum_of_its_facts_is_gone_on_from(run):
    change_facts(run, lambda facts: facts, summed=False)
    assert fit(experiment(**BRIEF | {"steps": 16}), run).steps_taken == 4


def test_a_checkpoint_of_another_format_is_refused(run):
    change_facts(run, lambda facts: facts | {"format_version": 99}, summed=False)
    with pytest.raises(Refused, match=r"checkpoints/12 has format 99, this version reads 1"):
        fit(experiment(**BRIEF), run)


# ---- Who may go on ---------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_with_its_user(tmp_path):
    with hold(tmp_path), pytest.raises(Refused, match=rf"in use by another run \(process {os.getpid()} on "):
        fit(experiment(**BRIEF), tmp_path)
    fit(experiment(**BRIEF | {"steps": 0}), tmp_path)


def test_another_config_is_refused_and_goes_on_if_allowed(run):
    config = {"rate": 1e-2, "steps": 12}
    fit(experiment(**BRIEF), run, record=Record("configs/tiny.py", config))
    other = Record("configs/tiny.py", {"rate": 1e-3, "steps": 16})
    longer = experiment(**BRIEF | {"steps": 16})
    with pytest.raises(Refused, match=r"by --allow_config_change:\n  rate: 0.01 there, 0.001 here\n  steps: 12 there"):
        fit(longer, run, record=other)
    assert json.loads((run / "run.json").read_text())["config"] == config
    assert fit(longer, run, record=other, resume=Resume(config_change=True)).steps_taken == 4
    record = json.loads((run / "run.json").read_text())
    assert (record["config"], record["earlier"][0]["config"]) == (other.config, config)


def test_an_older_step_is_gone_on_from_by_name_and_newer_ones_are_moved_aside(run):
    (run / "metrics.jsonl").write_text('{"metric": "fd", "step": 8}\n{"metric": "fd", "step": 12}\n')
    with pytest.raises(Refused, match=r"no checkpoint of step 5 .*; steps there: \[8, 12\]"):
        fit(experiment(**BRIEF), run, resume=Resume(step=5))
    again = fit(experiment(**BRIEF), run, resume=Resume(step=8))
    assert again.steps_taken == 4
    assert steps_in(run / "checkpoints") == [8, 12]
    (aside,) = (run / "set_aside").iterdir()
    assert steps_in(aside / "checkpoints") == [12]
    assert [json.loads(line)["step"] for line in (aside / "train.jsonl").read_text().splitlines()] == [10, 12]
    assert (run / "metrics.jsonl").read_text() == '{"metric": "fd", "step": 8}\n'
    assert [row["step"] for row in read_log(run)] == [5, 10, 12]


def test_another_network_or_type_is_refused_leaf_by_leaf(run):
    with pytest.raises(Refused, match=r"params/weight: checkpoint float32\[16, 16\], run float32\[8, 8\]"):
        fit(experiment(dim=8, **BRIEF), run)
    init = experiment().init
    half = experiment(**BRIEF, init=lambda key: jax.tree.map(lambda x: x.astype(jnp.bfloat16), init(key)))
    with pytest.raises(Refused, match=r"params/weight: checkpoint float32\[16, 16\], run bfloat16\[16, 16\]"):
        fit(half, run)


def test_another_optimizer_or_average_is_refused_and_starts_anew_if_asked_for(run):
    longer = BRIEF | {"steps": 16}
    other = experiment(**longer, optimizer=optax.sgd(1e-3, momentum=0.9))
    with pytest.raises(Refused, match=r"opt_state/.*\n--reset=optimizer"):
        fit(other, run)
    assert fit(other, run, resume=Resume(reset=("optimizer",))).steps_taken == 4

    averaged = other._replace(averages={"ema": lambda step: averages.constant(step, decay=0.9)})
    with pytest.raises(Refused, match=r"averages/ema/weight: not in the checkpoint.*\n--reset"):
        fit(averaged, run)
    state = fit(averaged, run, resume=Resume(reset=("averages",))).state
    np.testing.assert_array_equal(state.averages["ema"]["weight"], state.params["weight"])


def test_other_data_are_refused_and_gone_on_with_if_allowed(run):
    other = experiment(**BRIEF | {"steps": 16}, batch_size=32, fingerprint={"name": "gaussian", "seed": 1})
    with pytest.raises(Refused, match=r"--allow_data_change goes on with them:\n  seed: 0 in the checkpoint, 1 now"):
        fit(other, run)
    assert fit(other, run, resume=Resume(data_change=True)).steps_taken == 4


def test_what_is_not_as_it_was_is_said(run, capsys):
    record = Record("configs/tiny.py", {}, code="aaaa")
    fit(experiment(**BRIEF), run, record=record)
    there = json.loads((run / "run.json").read_text())
    there["packages"]["optax"] = "0.0.1"
    (run / "run.json").write_text(json.dumps(there))
    capsys.readouterr()
    fit(experiment(**BRIEF), run, record=record._replace(code="bbbb"))
    told = capsys.readouterr().out
    assert "not as when the run began, so that it may differ in its last bits: optax 0.0.1 -> " in told
    assert "code aaaa -> bbbb" in told
