"""The instructions for bf16 on the CPU: how they round, what becomes of them in machine code, and which are chosen."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from numba import njit

from minicnn.errors import DeviceError
from minicnn.kernels.cpu.bf16 import available, block, rounding
from tests.helpers.bf16 import from_bf16, to_bf16

# ---- rounding
HARD = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.4e38, 1e-39, -1e-39, 0, -0.0, np.inf, -np.inf,
                 np.nan, 65504, 1.17e-38, 1.18e-38, -7.1], np.float32)


@pytest.mark.parametrize("instruction", [True, False], ids=["instruction", "integers"])
def test_rounding_is_to_the_nearest_even_and_denormals_are_zero(monkeypatch, instruction):
    if instruction and all(map(available.why_not, available.NEEDS)):
        pytest.skip(available.why_not(available.DOTS))
    if not instruction:
        monkeypatch.setattr(available, "compiled_for", set)
    got, all_of_them = np.zeros(16, np.uint16), rounding.round_all

    @njit
    def run(source, target):
        all_of_them(source, target)

    run(HARD.ctypes.data, got.ctypes.data)
    wanted = to_bf16(np.where(np.abs(HARD) < 2**-126, np.copysign(np.float32(0), HARD), HARD))
    np.testing.assert_array_equal(from_bf16(got), from_bf16(wanted))
    np.testing.assert_array_equal(np.signbit(from_bf16(got))[:11], np.signbit(HARD)[:11])


# ---- machine code
def assembly(write, cpu: str, features: str) -> str:
    """Of a function whose body is write(builder, arguments), for another processor than this one."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = ir.Module()
    module.triple = "x86_64-unknown-linux-gnu"
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(block.ARGUMENTS))
    function = ir.Function(module, kind, "block")
    builder = ir.IRBuilder(function.append_basic_block())
    write(builder, function.args)
    builder.ret_void()
    machine = llvm.Target.from_triple(module.triple).create_target_machine(cpu=cpu, features=features, opt=3)
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine.emit_assembly(parsed)


@pytest.mark.parametrize("high, wide", [(2, 2), (1, 2), (2, 1), (1, 1)])
def test_tiles_become_tile_instructions_and_are_never_spilled(high, wide):
    text = assembly(lambda builder, arguments: block.tiles_code(builder, arguments, high, wide), "sapphirerapids",
                    "+amx-tile,+amx-bf16")
    sums, counts = high * wide, [len(re.findall(rf"\b{name}\b", text)) for name in (
        "tilestored", "tilezero", "tdpbf16ps", "tileloadd")]
    unrolled = counts[2] // sums
    assert unrolled and counts == [sums, sums, unrolled * sums, sums + unrolled * (high + wide)]
    assert not re.findall(r"tile\w+\s[^\n]*%rsp", text)


@pytest.mark.parametrize("vectors", block.DOT_ROWS)
def test_sums_of_dots_stay_in_registers(vectors):
    text = assembly(lambda builder, arguments: block.dots_code(builder, arguments, vectors), "znver4", "+avx512bf16")
    assert len(re.findall(r"\bvdpbf16ps\b", text)) == block.DOT_ROWS[vectors] * vectors * block.TOGETHER
    assert not re.findall(r"zmm\d+, -?\d*\(%rsp\)", text)


# ---- which are chosen
@pytest.mark.parametrize("lacking, message", [
    ("of_processor", "and this processor lacks avx512bf16, avx512bw, avx512vl; use --device cpu"),
    ("compiled_for", "and Numba does not compile for avx512bf16, avx512bw, avx512vl (NUMBA_CPU_NAME")])
def test_a_machine_without_the_instructions(monkeypatch, lacking, message):
    everything = set.union(*available.NEEDS.values())
    for name in ("of_processor", "compiled_for"):
        monkeypatch.setattr(available, name, lambda name=name: set() if name == lacking else everything)
    with pytest.raises(DeviceError, match=re.escape(message)):
        available.needed()


def test_tiles_are_preferred_where_linux_permits_them(monkeypatch):
    everything = set.union(*available.NEEDS.values())
    for name in ("of_processor", "compiled_for"):
        monkeypatch.setattr(available, name, lambda: everything)
    for permitted, wanted in ((True, available.TILES), (False, available.DOTS)):
        monkeypatch.setattr(available, "tiles_permitted", lambda permitted=permitted: permitted)
        assert available.needed() == wanted
