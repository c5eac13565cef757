"""Every family's files become the network they are of, and back; what does not fit is refused, with its name."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.pretrained import FAMILIES, convert, export, load, read, write
from models.pretrained.__main__ import main
from models.pretrained.layouts import convolution, flat, linear, patches, qkv
from models.pretrained.tensors import LISTED
from tests.models.pretrained import made_up, written


def assert_equal_trees(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


# ---- Layouts ---------------------------------------------------------------------------------------------------------


def test_order_of_q_k_and_v():
    # Outputs named by (head, part, dim), for 2 heads of 2 dims.
    ours = [(part, head, dim) for part in "qkv" for head in range(2) for dim in range(2)]
    orders = {
        "head dim qkv": [(part, head, dim) for head in range(2) for dim in range(2) for part in "qkv"],
        "head qkv dim": [(part, head, dim) for head in range(2) for part in "qkv" for dim in range(2)],
        "qkv head dim": ours,
    }
    for order, stored in orders.items():
        layout = qkv(order, 2, linear)
        rows = np.arange(12.0)[:, None] * np.ones(4)  # outputs x inputs
        assert [stored[int(i)] for i in layout.ours(rows)[0]] == ours
        np.testing.assert_array_equal(layout.stored(layout.ours(rows)), rows)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(linear, (3, 4)), (convolution, (2, 3, 4, 5)), (flat(1), (3, 4, 1)), (patches(2), (6, 3, 2, 2))],
)
def test_layouts_go_both_ways(layout, shape):
    a = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_array_equal(layout.stored(layout.ours(a)), a)


def test_patches_are_those_of_a_convolution():
    weight = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal((1, 4, 4, 3)).astype(np.float32)
    kernel = jnp.asarray(weight.transpose(2, 3, 1, 0))
    expected = jax.lax.conv_general_dilated(
        jnp.asarray(x), kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    cut = x.reshape(1, 2, 2, 2, 2, 3).swapaxes(2, 3).reshape(1, 2, 2, 12)
    np.testing.assert_allclose(cut @ patches(2).ours(weight), expected, rtol=1e-5, atol=1e-5)


# ---- Files that are made up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", made_up.CASES)
def test_a_checkpoint_becomes_its_network_and_goes_back(name, tmp_path):
    path, case, params = made_up.write(tmp_path / "file.pt", name)
    converted = convert(path, **case.given)
    assert converted.family == case.family
    assert_equal_trees(converted.params, params)
    wanted, found = ({k: v for k, v in vars(m).items() if k[0] != "_"} for m in (case.module, converted.module))
    for field in ("noise_embedding", "norm", "parent", "name"):
        wanted.pop(field, None), found.pop(field, None)
    differing = {field: (value, found[field]) for field, value in wanted.items() if value != found[field]}
    assert set(differing) <= {"dropout", "out_channels"}  # of no use here, and the same number said in two ways

    write(tmp_path / "folder", converted, path)
    again = load(tmp_path / "folder")
    assert again.family == converted.family
    assert_equal_trees(again.params, converted.params)
    export(again, tmp_path / "back.safetensors")
    back, original = read(tmp_path / "back.safetensors"), read(path)
    assert back.keys() == original.keys()
    for tensor, array in original.items():
        np.testing.assert_allclose(back[tensor], array, rtol=1e-6, err_msg=tensor)


def test_edm2_in_sixteen_bits(tmp_path):
    path, params = made_up.edm2_snapshot(tmp_path / "snapshot.pkl")
    converted = convert(path)
    assert_equal_trees(converted.params, params)
    write(tmp_path / "folder", converted, path)
    assert_equal_trees(load(tmp_path / "folder").params, params)


def test_functions_of_a_made_up_network_survive_the_folder(tmp_path):
    path, case, _ = made_up.write(tmp_path / "file.pt", "ncsnpp")
    converted = convert(path, **case.given)
    write(tmp_path / "folder", converted, path)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.array([0.5, -0.3])
    outputs = [
        jax.jit(module.apply)({"params": params}, x, t)
        for module, params in (
            (case.module, converted.params),
            *((c.module, c.params) for c in (converted, load(tmp_path / "folder"))),
        )
    ]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_a_training_state_gives_its_average_and_says_what_it_is(tmp_path):
    case = made_up.CASES["sit"]
    params = made_up.params_of(case)
    said = written.call("argparse", "Namespace") + written.dict_of({"model": written.plain("SiT-XL/2")}) + b"b"
    path = written.write_state_dict(
        tmp_path / "0100000.pt",
        made_up.tensors(case, params),
        wrap=lambda value: written.dict_of({"ema": value, "args": said}),
    )
    converted = convert(path, heads=3)
    assert converted.settings["call"] == {"kind": "velocity", "reversed": True}
    assert_equal_trees(converted.params, params)


def test_layers_of_repa_are_left_out_and_named(tmp_path):
    case = made_up.CASES["sit"]
    params = made_up.params_of(case)
    arrays = made_up.tensors(case, params) | {"projectors.0.0.weight": np.ones((4, 24), np.float32)}
    converted = convert(written.write_state_dict(tmp_path / "repa.pt", arrays), heads=3)
    assert converted.settings["call"] == {"kind": "velocity", "reversed": False}
    assert converted.settings["left_out"] == ["projectors.0.0.weight"]


# ---- Refused ---------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, name: str, change, **given) -> str:
    case = made_up.CASES[name]
    arrays = made_up.tensors(case, made_up.params_of(case))
    change(arrays)
    path = written.write_state_dict(tmp_path / "changed.pt", arrays)
    with pytest.raises(ValueError, match=r"changed\.pt") as error:
        convert(path, **{**case.given, **given})
    return str(error.value)


@pytest.mark.parametrize("name", made_up.CASES)
def test_missing_and_left_over_and_misshaped_tensors_are_listed(name, tmp_path):
    lost, cut = {
        "edm": ("model.dec.8x8_block0.conv0.bias", "model.dec.8x8_block0.norm1.weight"),
        "openai": ("output_blocks.1.0.in_layers.2.bias", "output_blocks.1.0.out_layers.0.weight"),
        "dit": ("blocks.1.mlp.fc1.bias", "blocks.1.mlp.fc2.bias"),
    }[made_up.CASES[name].family]

    def change(arrays):
        del arrays[lost]
        arrays[cut] = arrays[cut][1:]
        arrays["model.extra"] = np.ones(2, np.float32)

    told = refused(tmp_path, name, change)
    assert f"{lost} is missing" in told
    assert f"{cut} has shape" in told
    assert "model.extra is not a tensor of this network" in told


def test_numbers_that_are_none_and_constants_of_another_network(tmp_path):
    def not_a_number(arrays):
        arrays["model.map_layer0.bias"] = np.full_like(arrays["model.map_layer0.bias"], np.nan)
        arrays["model.map_layer1.bias"] = np.zeros(32, np.int64)

    told = refused(tmp_path, "ddpmpp", not_a_number)
    assert "model.map_layer0.bias holds something else than finite numbers (float32)" in told
    assert "model.map_layer1.bias holds something else than finite numbers (int64)" in told

    def other_filter(arrays):
        arrays["model.enc.4x4_down.conv0.resample_filter"] = np.full((1, 1, 2, 2), 0.3, np.float32)

    told = refused(tmp_path, "ddpmpp", other_filter)
    assert "model.enc.4x4_down.conv0.resample_filter is a constant with another value" in told

    def other_positions(arrays):
        arrays["pos_embed"] = arrays["pos_embed"] + np.float32(0.01)

    assert "pos_embed is a constant with another value" in refused(tmp_path, "sit", other_positions)


def test_a_long_list_ends(tmp_path):
    def change(arrays):
        arrays |= {f"other.{i}": np.ones(1, np.float32) for i in range(LISTED + 5)}

    assert "and 5 more" in refused(tmp_path, "sit", change)


def test_what_a_file_does_not_say_is_asked_for(tmp_path):
    def nothing(arrays):
        pass

    assert "give one of edm, vp, ve, iddpm, ecm; got 'edn'" in refused(
        tmp_path, "ddpmpp", nothing, preconditioning="edn"
    )
    assert "give heads, which no file says" in refused(tmp_path, "sit", nothing, heads=None)
    assert "give program, dit, sit, repa; got None" in refused(tmp_path, "sit", nothing, program=None)
    assert "give resolution" in refused(tmp_path, "consistency_models", nothing, resolution=None)
    assert "give schedule, cosine" in refused(tmp_path, "guided_diffusion", nothing, schedule="quadratic")
    assert "cannot be halved" in refused(tmp_path, "guided_diffusion", nothing, resolution=7)
    assert "takes no heads; what can be given is preconditioning" in refused(tmp_path, "ddpmpp", nothing, heads=3)


def test_a_file_of_no_family(tmp_path):
    path = written.write_state_dict(tmp_path / "file.pt", {"layers.0.weight": np.ones(3, np.float32)})
    with pytest.raises(
        ValueError, match=r"none of the families autoencoder, edm, edm2, openai, dit, .*; it has layers\.0\.weight"
    ):
        convert(path)


def test_the_trajectory_network_of_imagenet_reads_250_ln_s(tmp_path):
    """Its layers for s, written out with the tensors of the file: sinusoids with the cosines first, two layers."""
    path, case, params = made_up.write(tmp_path / "file.pt", "ctm_imagenet64")
    file, converted = read(path), convert(path, **case.given)
    assert converted.settings["call"]["kind"] == "trajectory"
    t, s, labels = jnp.array([80.0, 3.0]), jnp.array([0.5, 0.002]), jnp.array([1, 4])
    told: Any = {"s": jnp.log(s) / 4, "capture_intermediates": True, "mutable": ["intermediates"]}
    _, seen = converted.module.apply({"params": params}, jnp.ones((2, 8, 8, 3)), jnp.log(t) / 4, labels, **told)
    found = seen["intermediates"]["map_layer1_s"]["__call__"][0]

    angles = 250 * np.log(np.array([0.5, 0.002]))[:, None] * np.exp(-np.log(10_000) * np.arange(16) / 16)
    h = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    h = h @ file["time_embed_s.0.weight"].T + file["time_embed_s.0.bias"]
    h = h / (1 + np.exp(-h)) @ file["time_embed_s.2.weight"].T + file["time_embed_s.2.bias"]
    np.testing.assert_allclose(found, h, rtol=0, atol=5e-5)  # angles of a thousand have float32's rounding


# ---- The command line ------------------------------------------------------------------------------------------------


def test_command_line(tmp_path, capsys):
    path, _, _ = made_up.write(tmp_path / "file.pt", "consistency_models")
    out = tmp_path / "folder"
    arguments = [str(path), "--resolution=8", "--channels-per-head=16", f"--out={out}"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    count = sum(a.size for a in read(path).values())
    assert "family      openai, ADMUNet called as consistency" in told
    assert f"tensors     {len(read(path))}" in told
    assert f"parameters  {count:,}" in told
    assert "resolution  8 x 8 x 3" in told
    assert "classes     5" in told

    description = json.loads((out / "model.json").read_text())
    assert description["source"]["file"] == "file.pt"
    assert description["names"]["enc_8x8_block0/conv0/kernel"] == "input_blocks.1.0.in_layers.2.weight"
    assert json.loads((out / "run.json").read_text())["config_file"] == "configs/pretrained_consistency.py"

    assert main(arguments) == 2
    assert "model.safetensors, model.json, run.json already" in capsys.readouterr().err
    assert main([str(out), f"--export={tmp_path / 'back.safetensors'}"]) == 0
    assert read(tmp_path / "back.safetensors").keys() == read(path).keys()

    other = [*arguments[:-1], f"--out={tmp_path / 'other'}"]
    assert main([*other, "--diffusion"]) == 0
    run = json.loads((tmp_path / "other" / "run.json").read_text())
    assert run["config_file"] == "configs/pretrained_diffusion.py"


def test_what_the_command_line_refuses(tmp_path, capsys):
    path, _, _ = made_up.write(tmp_path / "file.pt", "sit")
    for arguments, told in (
        ([str(path)], "give --out FOLDER"),
        ([str(path), f"--out={tmp_path / 'a'}"], "give program"),
        ([str(tmp_path / "no.pt"), f"--out={tmp_path / 'a'}"], "no such file"),
        ([str(tmp_path), "--export=x"], "nothing was converted there"),
        ([str(tmp_path)], "give --out FOLDER for what it is converted to"),
        ([str(tmp_path), f"--out={tmp_path / 'a'}"], "nor was anything converted there"),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_damaged_folder(tmp_path):
    path, case, _ = made_up.write(tmp_path / "file.pt", "sit")
    out = tmp_path / "folder"
    write(out, convert(path, **case.given), path)
    description = json.loads((out / "model.json").read_text())
    (out / "model.json").write_text(json.dumps(description | {"names": {"other": "other"}}))
    with pytest.raises(ValueError, match=r"(?s)does not have the weights.*other is missing"):
        load(out)
    (out / "model.json").write_text(json.dumps(description | {"format": 2}))
    with pytest.raises(ValueError, match="is not of format 1"):
        load(out)


def test_every_way_to_call_a_network_has_a_config():
    from models.pretrained.files import CONFIGS, NO_RUN

    root = Path(__file__).parents[3]
    assert [file for file in CONFIGS.values() if not (root / file).is_file()] == []
    assert (root / NO_RUN).is_file()
    assert {name for name, family in FAMILIES.items() if not family.use} == {"edm", "edm2", "openai", "dit"}
