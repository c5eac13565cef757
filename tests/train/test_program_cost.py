"""Counts of compiled programs: XLA's own where there is no loop, closed forms where there is."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from train.hlo import Shape
from train.program_cost import cost_of

FUSED = """HloModule m, is_scheduled=true

%sliced (p0: f32[12,8,128], p1: s32[]) -> f32[8,128] {
  %p0 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,128}
  %flat = f32[8,128]{1,0:T(8,128)} bitcast(%slice)
  ROOT %twice = f32[8,128]{1,0:T(8,128)} add(%flat, %flat)
}

%written (q0: f32[12,8,128], q1: f32[1,8,128], q2: s32[]) -> f32[12,8,128] {
  %q0 = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %q1 = f32[1,8,128]{2,1,0:T(8,128)} parameter(1)
  %q2 = s32[]{:T(128)} parameter(2)
  %none = s32[]{:T(128)} constant(0)
  ROOT %update = f32[12,8,128]{2,1,0:T(8,128)} dynamic-update-slice(%q0, %q1, %q2, %none, %none)
}

%condition (c: (s32[], f32[8,128])) -> pred[] {
  %c = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%c), index=0
  %twelve = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%count, %twelve), direction=LT
}

%body (b: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %b = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%b), index=1
  %sum = f32[8,128]{1,0:T(8,128)} all-reduce(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %next = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %sum)
}

ENTRY %main (a: f32[12,8,128], k: s32[], u: f32[1,8,128]) -> f32[12,8,128] {
  %a = f32[12,8,128]{2,1,0:T(8,128)} parameter(0)
  %k = s32[]{:T(128)} parameter(1)
  %u = f32[1,8,128]{2,1,0:T(8,128)S(1)} parameter(2)
  %read = f32[8,128]{1,0:T(8,128)S(1)} fusion(%a, %k), kind=kLoop, calls=%sliced
  %start = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%k, %read)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[12,8,128]{2,1,0:T(8,128)} fusion(%a, %u, %k), kind=kLoop, calls=%written
}
"""
PART = 8 * 128 * 4  # bytes


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def compiled(function, *shapes) -> Any:
    return jax.jit(function).lower(*shapes).compile()


def image_convolution(x, kernel, groups=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda a, b: a @ b, (shape(64, 32), shape(32, 16))),
        (lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), (shape(2, 16, 4, 8), shape(2, 16, 4, 8))),
        (image_convolution, (shape(2, 16, 16, 8), shape(3, 3, 8, 4))),
        (lambda x, k: image_convolution(x, k, groups=4), (shape(2, 16, 16, 8), shape(3, 3, 2, 4))),
        (lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "SAME"), (shape(2, 8, 8, 8), shape(3, 3, 8, 4))),
    ],
    ids=["product", "batched", "strided", "grouped", "transposed"],
)
def test_without_loops_counts_are_those_of_the_compiler(function, shapes):
    program = compiled(function, *shapes)
    counted, expected = cost_of(program.as_text()), program.cost_analysis()
    assert counted.product_flops == counted.flops == expected["flops"]
    assert counted.bytes_accessed == counted.memory_bytes == expected["bytes accessed"]


@pytest.mark.parametrize("n", [3, 12])
def test_the_body_of_a_scan_counts_as_often_as_it_runs(n):
    def layers(x, weights):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]

    x, weights = shape(64, 32), shape(n, 32, 32)
    forward = cost_of(compiled(layers, x, weights).as_text())
    assert forward.product_flops == n * 2 * 64 * 32 * 32
    gradient = compiled(jax.grad(lambda x, w: layers(x, w).sum()), x, weights)
    assert cost_of(gradient.as_text()).product_flops == 2 * forward.product_flops


def test_of_a_sliced_array_the_slice_counts_and_what_lies_on_the_chip_is_told_apart():
    cost = cost_of(FUSED)
    rest = 2 * 4 + 12 * (4 + 4 + 1)  # an index for each of two fusions, and the comparisons of the loop
    # A slice read and a part written on the chip; a part read there and written to memory; two parts in each iteration.
    assert cost.bytes_accessed == (2 + 2 + 12 * 2) * PART + rest
    assert cost.memory_bytes == (1 + 1 + 12 * 2) * PART + rest


def test_a_loop_that_counts_in_twos_runs_half_as_often():
    text = FUSED.replace("tuple(%i, %sum)", "tuple(%after, %sum)").replace(
        "  ROOT %next",
        "  %two = s32[]{:T(128)} constant(2)\n  %after = s32[]{:T(128)} add(%i, %two)\n  ROOT %next",
    )
    assert cost_of(text).collectives["all-reduce"].messages == 6


def test_messages_count_in_each_iteration_and_go_round_a_ring():
    messages = cost_of(FUSED).collectives
    assert set(messages) == {"all-reduce"}
    assert messages["all-reduce"] == (12, 12 * PART, 12 * 2 * PART * 3 / 4)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("[2,8]<=[16]", 8),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4] {'axis_2'}", 4),
        ("mesh['axis_0'=1,'axis_1'=4,'axis_2'=4], device_ids=([4,2,2]T(1,0,2)) {'axis_1','axis_2'}", 16),
    ],
)
def test_groups_are_read_in_each_way_of_writing_them(groups, size):
    text = FUSED.replace("{{0,1,2,3},{4,5,6,7}}", groups)
    assert cost_of(text).collectives["all-reduce"].sent == 12 * 2 * PART * (size - 1) / size


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        cost_of("HloModule m\n")


ASYNCHRONOUS = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[512,512]) -> f32[512,512] {
  %x = f32[512,512]{1,0:T(8,128)} parameter(0)
  %start = (f32[512,512]{1,0:T(8,128)S(1)}, f32[512,512]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %here = f32[512,512]{1,0:T(8,128)S(1)} copy-done(%start)
  ROOT %twice = f32[512,512]{1,0:T(8,128)} add(%here, %here)
}
"""


def test_a_copy_into_the_chip_reads_main_memory_once_and_writes_none_of_it():
    """The array is read by the copy and written by the sum."""
    assert cost_of(ASYNCHRONOUS).memory_bytes == 2 * 512 * 512 * 4


GPU = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[2,9,9,4], w: f32[3,3,4,8], a: f32[16,32], b: f32[32,64]) -> f32[16,64] {{
  %x = f32[2,9,9,4]{{3,2,1,0}} parameter(0)
  %w = f32[3,3,4,8]{{3,2,1,0}} parameter(1)
  %y = f32[2,9,9,8]{{3,2,1,0}} parameter(4)
  %a = f32[16,32]{{1,0}} parameter(2)
  %b = f32[32,64]{{1,0}} parameter(3)
  %out = ({result}, u8[0]{{0}}) custom-call({operands}), {window}, custom_call_target="__cudnn${target}"
  ROOT %product = (f32[16,64]{{1,0}}, s8[4]{{0}}) custom-call(%a, %b), custom_call_target="__cublas$gemm", {gemm}
}}
"""


WINDOW = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
CONTRACTED = '"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]'
GEMM = f'backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{{{CONTRACTED}}}}}}}'


@pytest.mark.parametrize(
    ("target", "operands", "result"),
    [
        ("convForward", "%x, %w", "f32[2,9,9,8]{3,2,1,0}"),
        ("convBackwardInput", "%y, %w", "f32[2,9,9,4]{3,2,1,0}"),
        ("convBackwardFilter", "%x, %y", "f32[3,3,4,8]{3,2,1,0}"),
    ],
)
def test_products_and_convolutions_of_cuda_libraries_are_counted(target, operands, result):
    """A convolution takes the same pairs in each direction; at the border a tap meets fewer."""
    pairs = (9 + 2 * 8) ** 2  # along each axis the middle tap meets 9, each of the others 8
    cost = cost_of(GPU.format(target=target, operands=operands, result=result, window=WINDOW, gemm=GEMM))
    assert cost.product_flops == 2 * 2 * pairs * 4 * 8 + 2 * 16 * 32 * 64
    assert cost.bytes_accessed > 4 * (16 * 32 + 32 * 64 + 16 * 64)


def test_a_token_has_no_bytes():
    assert Shape("token", (), 0).bytes == 0
    assert (Shape("pred", (3,), 0).bytes, Shape("bf16", (3,), 0).bytes) == (3, 6)
