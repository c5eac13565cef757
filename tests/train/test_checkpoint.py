import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from train import checkpoint
from train.checksums import checksums
from train.reading import restore
from train.snapshots import restore_or_reconstruct
from train.weights import restore_average

TREE: dict[str, Any] = {
    "params": {"w": jnp.arange(6.0).reshape(2, 3)},
    "averages": {"ema": {"w": jnp.full((2, 3), 0.5)}},
}
DEVICE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=DEVICE), TREE)


def write(folder: Path, *steps: int, keep: int | None = None) -> None:
    with checkpoint.open_checkpoints(folder, keep=keep) as checkpoints:
        for step in steps:
            checkpoint.save(
                checkpoints, step, jax.tree.map(lambda x, step=step: x + step, TREE), {"data": {"name": "toy"}}
            )


def read(folder: Path, step: int, like=LIKE):
    with checkpoint.open_checkpoints(folder) as checkpoints:
        return restore(checkpoints, like, step=step)


def test_what_was_saved_comes_back_with_its_facts(tmp_path):
    write(tmp_path, 3)
    tree, facts = read(tmp_path, 3)
    np.testing.assert_array_equal(tree["params"]["w"], TREE["params"]["w"] + 3)
    assert facts["data"] == {"name": "toy"}


def test_only_the_newest_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4, keep=2)
    assert checkpoint.steps_in(tmp_path) == [3, 4]


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    write(tmp_path, 2)
    write(tmp_path, 2)
    assert checkpoint.steps_in(tmp_path) == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda like: like | {"extra": like["params"]}, "extra/w: not in the checkpoint"),
        (lambda like: {"params": like["params"]}, "averages/ema/w: only in the checkpoint"),
        (
            lambda like: like | {"params": {"w": jax.ShapeDtypeStruct((3, 3), jnp.float32)}},
            r"params/w: checkpoint float32\[2, 3\], run float32\[3, 3\]",
        ),
        (
            lambda like: like | {"params": {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)}},
            r"params/w: checkpoint float32\[2, 3\], run bfloat16\[2, 3\]",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_leaf_by_leaf(tmp_path, change, message):
    write(tmp_path, 1)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, 1, change(LIKE))


def test_missing_checkpoints_say_what_is_there(tmp_path):
    write(tmp_path / "checkpoints", 1, 2)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7 .* steps there: \[1, 2\]"):
        read(tmp_path / "checkpoints", 7)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7"):
        restore_average(tmp_path, "ema", 7)
    with pytest.raises(FileNotFoundError, match="nothing was trained there yet"):
        restore_average(tmp_path / "elsewhere", "ema")


def test_restore_average_reads_one_average_and_lists_the_others(tmp_path):
    write(tmp_path / "checkpoints", 4)
    params, step = restore_average(tmp_path, "ema")
    assert step == 4
    np.testing.assert_array_equal(params["w"], np.full((2, 3), 4.5))
    np.testing.assert_array_equal(restore_average(tmp_path, "params")[0]["w"], TREE["params"]["w"] + 4)
    with pytest.raises(ValueError, match=r"no average 'emma' .*; there are: params, ema"):
        restore_average(tmp_path, "emma")


def test_checksums_see_a_single_bit_and_not_the_sharding():
    x = jnp.linspace(-1, 1, 1000)
    bits = np.asarray(x).view(np.uint32).copy()
    bits[123] ^= 1 << 7
    before, after = (checksums({"x": jnp.asarray(v)})["x"] for v in (x, bits.view(np.float32)))
    assert before != after
    assert before == int(np.asarray(x).view(np.uint32).sum(dtype=np.uint64) % 2**32)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16, jnp.uint8])
def test_checksums_take_every_dtype(dtype):
    assert checksums({"x": jnp.ones(5, dtype)})["x"] == 5 * int(
        np.frombuffer(np.asarray(jnp.ones(1, dtype)).tobytes(), f"u{jnp.dtype(dtype).itemsize}")[0]
    )


def test_checksums_take_truth_values():
    assert checksums({"x": jnp.array([True, False, True])})["x"] == 2


def test_one_flipped_bit_on_disk_is_found_and_the_way_back_is_told(tmp_path):
    # Normal draws do not compress, so the middle of the largest file is the payload, of which Orbax keeps no checksum.
    tree = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoint.save(checkpoints, step, tree, {})
    payload = max((tmp_path / "2" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    damaged = bytearray(payload.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    payload.write_bytes(damaged)
    like = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=DEVICE)}
    np.testing.assert_array_equal(read(tmp_path, 1, like)[0]["w"], tree["w"])
    with pytest.raises(ValueError, match=r"2 is damaged: the bits of w .* those that were saved"):
        read(tmp_path, 2, like)


def test_a_truncated_file_is_an_error(tmp_path):
    # One leaf alone: reads of others would still be in flight when the first fails, and end in a later test.
    with checkpoint.open_checkpoints(tmp_path) as checkpoints:
        checkpoint.save(checkpoints, 1, {"w": TREE["params"]["w"]}, {})
    payload = max((tmp_path / "1" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    payload.write_bytes(payload.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r'OUT_OF_RANGE.*Error reading "w/'):
        read(tmp_path, 1, {"w": LIKE["params"]["w"]})


def test_a_leftover_of_a_killed_save_is_ignored_and_removed(tmp_path):
    write(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    assert checkpoint.steps_in(tmp_path) == [1]
    write(tmp_path, 2)
    assert checkpoint.steps_in(tmp_path) == [1, 2]
    assert not list(tmp_path.glob("*tmp*"))


def test_a_folder_that_cannot_be_written_fails_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), checkpoint.open_checkpoints(tmp_path / "file" / "checkpoints"):
        pass


def test_reconstruction_at_the_length_of_a_stored_average_returns_it(tmp_path):
    with checkpoint.open_checkpoints(tmp_path / "snapshots", keep=None) as snapshots:
        for step in (2, 4, 6, 8):
            averages = {"short": {"w": jnp.float32(step)}, "long": {"w": jnp.float32(-step)}}
            checkpoint.save(snapshots, step, {"averages": averages}, {})
    lengths = {"short": 0.05, "long": 0.10}
    params, step = restore_or_reconstruct(tmp_path, "power:0.05", sigma_rels=lengths)
    assert (step, float(params["w"])) == (8, pytest.approx(8, rel=1e-5))
    params, step = restore_or_reconstruct(tmp_path, "power:0.10", 6, sigma_rels=lengths)
    assert (step, float(params["w"])) == (6, pytest.approx(-6, rel=1e-5))
    with pytest.raises(ValueError, match=r"expected power:NUMBER"):
        restore_or_reconstruct(tmp_path, "power:long", sigma_rels=lengths)
    with pytest.raises(FileNotFoundError, match="no snapshots"):
        restore_or_reconstruct(tmp_path / "elsewhere", "power:0.05", sigma_rels=lengths)


def test_a_converted_network_is_a_run_of_no_steps(tmp_path):
    arrays = {"first/conv/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "gain": np.array(2.0, np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    params, step = restore_average(tmp_path, "params")
    assert step == 0
    assert jax.tree.map(jnp.shape, params) == {"first": {"conv": {"kernel": (2, 3)}}, "gain": ()}
    np.testing.assert_array_equal(params["first"]["conv"]["kernel"], arrays["first/conv/kernel"])
    for average, other in (("ema", None), ("params", 3)):
        with pytest.raises(ValueError, match="has the average params of step 0 alone, got"):
            restore_average(tmp_path, average, other)
