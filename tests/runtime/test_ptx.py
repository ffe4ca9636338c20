"""Kernels in PTX, executed without a GPU: an interpreter's own arithmetic, and networks against ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svitkit.boards.board import load_board
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import Mode
from svitkit.models.checkpoint import Checkpoint
from svitkit.models.families import build_family
from svitkit.proven import random_samples
from svitkit.runtime.gpu_code import compile_gpu
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.memory import plan_memory
from svitkit.runtime.pipeline import lower_network
from svitkit.runtime.precision import half_layers, write_rounded
from svitkit.runtime.program import GpuTarget, Precision, Program, to_text, weight_bytes
from svitkit.runtime.program_facts import fact_lines
from tests.export.conftest import FAMILIES, build, describe, liven
from tests.export.quantized import quantize, quantize_neurons
from tests.export.reduced import images, reduced
from tests.runtime.ptx.arithmetic import TYPES, operation
from tests.runtime.ptx.machine import Module
from tests.runtime.ptx.memory import Argument, Memory, Tensor
from tests.runtime.ptx.parser import PtxError
from tests.runtime.ptx.player import Player
from tests.runtime.recordings import Recording, assert_lively, assert_same_bits, by_onnx_runtime, stack

NAN = float("nan")
ARCHITECTURES = ("sm_53", "sm_62", "sm_72", "sm_87")
ULP = 2.0**-23


@pytest.mark.parametrize(
    ("opcode", "sources", "result"),
    [
        ("add.s32", (0x7FFFFFFF, 1), -0x80000000),
        ("sub.s32", (3, 5), -2),
        ("add.s64", (1 << 40, -1), (1 << 40) - 1),
        ("mul.lo.s32", (65536, 65537), 65536),
        ("mul.wide.s32", (-3, 5), -15),
        ("mul.wide.u32", (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFE00000001),
        ("mul.hi.u32", (0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFE),
        ("mul.hi.s32", (-1, 5), -1),
        ("mul.hi.u16", (0x5555, 0xAAAB), 0x38E3),
        ("mul.hi.u64", ((1 << 64) - 1, (1 << 64) - 1), (1 << 64) - 2),
        ("mul.hi.u64", (0x123456789ABCDEF0, 0x0FEDCBA987654321), 0x0121FA00AD77D742),
        ("mad.lo.s32", (-7, 6, 40), -2),
        ("mad.lo.s16", (200, 200, 0), 40000 - 65536),
        ("and.b32", (0b1100, 0b1010), 0b1000),
        ("or.b64", (1 << 40, 1), (1 << 40) + 1),
        ("not.b32", (0xFFFF0000,), 0x0000FFFF),
        ("not.pred", (True,), False),
        ("neg.s32", (5,), -5),
        ("abs.s32", (-5,), 5),
        ("shl.b32", (1, 31), 0x80000000),
        ("shl.b32", (1, 32), 0),
        ("shl.b16", (3, 15), 0x8000),
        ("shr.u32", (0x80000000, 31), 1),
        ("shr.u32", (0x80000000, 32), 0),
        ("shr.s32", (-8, 1), -4),
        ("shr.s32", (-8, 40), -1),
        ("shr.u64", (1 << 63, 63), 1),
        ("bfe.u32", (0xABCD1234, 4, 8), 0x23),
        ("bfe.u32", (0xABCD1234, 28, 8), 0xA),
        ("bfe.u32", (0xABCD1234, 0, 32), 0xABCD1234),
        ("bfe.u32", (0xABCD1234, 4, 0), 0),
        ("bfe.s32", (0x00000020, 5, 1), -1),
        ("bfe.s32", (0x00000340, 4, 8), 0x34),
        ("bfe.s32", (-0x80000000, 28, 8), -8),
        ("prmt.b32", (0x44332211, 0x88776655, 0x3340), 0x44445511),
        ("prmt.b32", (0x00F00000, 0, 0xAAA2), 0xFFFFFFF0),
        ("popc.b32", (0xF0F00001,), 9),
        ("min.s32", (-1, 1), -1),
        ("min.u32", (0xFFFFFFFF, 1), 1),
        ("max.s16", (-1, 1), 1),
        ("setp.lt.s32", (-1, 1), True),
        ("setp.lt.u32", (0xFFFFFFFF, 1), False),
        ("setp.ge.f32", (0.5, 0.5), True),
        ("setp.ge.f32", (NAN, 0.5), False),
        ("setp.ne.f32", (NAN, 0.5), False),
        ("setp.ltu.f32", (NAN, 0.5), True),
        ("selp.b32", (7, 8, False), 8),
        ("add.rn.f32", (1.0, ULP / 2), 1.0),
        ("add.rn.f32", (1.0, ULP * 3 / 2), 1.0 + 2 * ULP),
        ("sub.rn.f32", (1.0, ULP / 4), 1.0),
        ("mul.rn.f32", (2.0**-126, 0.5), 2.0**-127),
        ("mul.rn.f32", (1.0 + ULP, 1.0 + ULP), 1.0 + 2 * ULP),
        ("div.rn.f32", (1.0, 3.0), float(np.float32(1 / 3))),
        ("fma.rn.f32", (1.0 + ULP, 1.0 + ULP, -1.0 - 2 * ULP), ULP**2),
        # the sum in float64 is half way between two float32 numbers, the exact one 2^-70 below
        ("fma.rn.f32", (2.0**-12 * (1 + ULP), 2.0**-12 * (1 - ULP), 1 + ULP), 1 + ULP),
        ("fma.rn.f32", (2.0**-12 * (1 + ULP), 2.0**-12 * (ULP - 1), -1 - ULP), -1 - ULP),
        ("fma.rn.f32", (float("inf"), 1.0, 1.0), float("inf")),
        ("min.f32", (NAN, 2.0), 2.0),
        ("max.f32", (-1.0, NAN), -1.0),
        ("neg.f32", (1.5,), -1.5),
        ("cvt.u16.u32", (70000,), 70000 - 65536),
        ("cvt.u32.u16", (65535,), 65535),
        ("cvt.s32.s16", (-2,), -2),
        ("cvt.s64.s32", (-2,), -2),
        ("cvt.u32.u64", ((1 << 32) + 5,), 5),
        ("cvt.rn.f32.s32", (16777219,), 16777220.0),
        ("cvt.rn.f32.u32", (0xFFFFFFFF,), 4294967296.0),
        ("cvt.f32.f16", (2.0**-24,), 2.0**-24),
        ("cvt.rni.f32.f32", (2.5,), 2.0),
        ("cvt.rni.f32.f32", (-3.5,), -4.0),
        ("cvt.rzi.s32.f32", (-1.9,), -1),
        ("cvt.rzi.s32.f32", (3e9,), 0x7FFFFFFF),
        ("cvt.rzi.s32.f32", (NAN,), 0),
    ],
)
def test_instructions_compute_what_was_computed_by_hand(opcode: str, sources: Sequence[Any], result: Any) -> None:
    found = operation(tuple(opcode.split(".")))
    arrays = [np.array([value], TYPES[kind]) for value, kind in zip(sources, found.sources, strict=True)]
    with np.errstate(invalid="ignore"):
        assert found.compute(*arrays).astype(TYPES[found.result])[0] == result


@pytest.mark.parametrize("opcode", ["add.f32", "div.full.f32", "cvt.f32.s32", "bar.sync", "shfl.sync.idx.b32"])
def test_an_instruction_that_is_not_known_is_refused_by_name(opcode: str) -> None:
    with pytest.raises(PtxError, match=r"not known"):
        operation(tuple(opcode.split(".")))


def test_of_zeros_the_negative_one_is_less() -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    assert np.signbit(operation(("min", "f32")).compute(zeros, zeros[::-1])).all()
    assert not np.signbit(operation(("max", "f32")).compute(zeros, zeros[::-1])).any()


@dataclass
class Bench:
    """Memory of three tensors of 64 words, and a kernel with one of each as parameters: weights, x and out."""

    def __post_init__(self) -> None:
        self.memory = Memory({"weights": 256, "workspace": 512})
        places = {"weights": ("weights", 0), "x": ("workspace", 0), "out": ("workspace", 256)}
        self.tensors = [
            Tensor(number, name, "int32", space, offset, 256)
            for number, (name, (space, offset)) in enumerate(places.items())
        ]
        self.memory.data["weights"].view(np.int32)[:] = np.arange(64) - 32
        self.memory.put(self.tensors[1], np.arange(64, dtype=np.int32).tobytes())

    def run(self, body: str, *, blocks: int = 1, threads: int = 32) -> np.ndarray:
        """Executes a kernel: ``%rd1`` to ``%rd3`` point to weights, x and out, ``%rd4`` is four times ``%r1``, the
        number of the thread, and ``%rd5`` to ``%rd7`` point to its own elements.
        """
        parameters = [f"k_{name}" for name in ("weights", "x", "out")]
        lines = [
            ".reg .pred %p<9>;",
            ".reg .b32 %r<30>;",
            ".reg .b64 %rd<30>;",
            *(f"ld.param.b64 %rd{number}, [{name}];" for number, name in enumerate(parameters, 1)),
            "mov.u32 %r1, %tid.x;",
            "mov.u32 %r2, %ctaid.x;",
            f"mad.lo.s32 %r1, %r2, {threads}, %r1;",
            "mul.wide.u32 %rd4, %r1, 4;",
            *(f"add.s64 %rd{number + 4}, %rd{number}, %rd4;" for number in (1, 2, 3)),
            *(f"{line}" if line.endswith(":") else f"{line};" for line in body.split("\n")),
        ]
        declared = ",\n".join(f"\t.param .b64 {name}" for name in parameters)
        text = (
            f".version 6.0\n.target sm_53\n.visible .entry k(\n{declared}\n)\n{{\n" + "\n".join(lines) + "\nret;\n}\n"
        )
        arguments = [Argument(self.memory, tensor) for tensor in self.tensors]
        Module(text).launch("k", blocks, threads, arguments)
        return self.memory.data["workspace"][256:].view(np.int32)


def test_threads_that_a_loop_parts_meet_behind_it() -> None:
    body = """\
mov.b32 %r3, 0
mov.b32 %r4, 0
$L_loop:
add.s32 %r3, %r3, %r4
add.s32 %r4, %r4, 1
setp.le.u32 %p1, %r4, %r1
@%p1 bra $L_loop
setp.gt.u32 %p2, %r3, 100
vote.sync.ballot.b32 %r5, %p2, -1
and.b32 %r6, %r1, 31
setp.ne.b32 %p3, %r6, 0
@%p3 bra $L_end
mov.b32 %r3, %r5
$L_end:
st.b32 [%rd7], %r3"""
    sums = np.cumsum(np.arange(64))
    wanted = sums.copy()
    wanted[[0, 32]] = [sum(1 << lane for lane in range(32) if sums[lane] > 100) - (1 << 32), -1]
    np.testing.assert_array_equal(Bench().run(body, blocks=2), wanted)


def test_loads_are_extended_and_vectors_and_narrow_words_are_found() -> None:
    body = """\
ld.global.nc.s8 %r3, [%rd1]
ld.global.nc.b8 %r4, [%rd1]
ld.v2.b32 {%r5, %r6}, [%rd2+8]
ld.b8 %r7, [%rd2+16]
ld.b16 %r8, [%rd1+4]
st.global.v4.b32 [%rd3], {%r3, %r4, %r5, %r6}
st.b32 [%rd3+16], %r7
st.b32 [%rd3+20], %r8"""
    assert Bench().run(body, threads=1)[:6].tolist() == [-32, 224, 2, 3, 4, 0xFFE1]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("ld.b32 %r3, [%rd6+256]", "outside of x: 256 bytes"),
        ("ld.b32 %r3, [%rd6+-4]", "outside of x"),
        ("ld.b32 %r3, [%rd6+2]", "not aligned"),
        ("ld.b32 %r3, [%rd4]", "no argument at 0x0"),
        ("ld.b32 %r3, [%rd7]", "nobody has written as out"),
        ("st.b32 [%rd5], %r1", "writes weights"),
        ("st.b32 [%rd3], %r1", "two threads write different values to out"),
        ("st.b32 [%rd7], 1\nld.b32 %r3, [%rd3]", "reads what another thread writes, in out"),
        ("ld.b32 %r3, [%rd2+4]\nst.b32 [%rd6], %r3", "writes what another thread reads, in x"),
        ("ld.global.nc.b32 %r3, [%rd6]\nst.b32 [%rd6], %r3", "read as a constant"),
        ("add.s32 %r3, %r9, 1", "nothing was written to '%r9'"),
        ("setp.lt.u32 %p1, %r1, 5\n@%p1 bra $L_end\nvote.sync.ballot.b32 %r3, %p1, -1\n$L_end:", "parts a warp"),
        ("ld.shared.b32 %r3, [%rd6]", "not known"),
        ("setp.eq.b32 %p1, %r1, 0\n@%p1 st.b32 [%rd7], %r1", "only branches may have a predicate"),
    ],
)
def test_what_a_kernel_must_not_do_is_said(body: str, problem: str) -> None:
    with pytest.raises(PtxError, match=problem):
        Bench().run(body)


def test_a_vote_wants_whole_warps() -> None:
    with pytest.raises(PtxError, match="without all of its threads"):
        Bench().run("setp.eq.b32 %p1, %r1, 0\nvote.sync.ballot.b32 %r3, %p1, -1", threads=16)


def test_an_address_may_lie_in_another_argument_for_each_thread() -> None:
    body = """\
setp.lt.u32 %p1, %r1, 3
selp.b64 %rd8, %rd5, %rd6, %p1
ld.b32 %r3, [%rd8+4]
st.b32 [%rd7], %r3"""
    assert Bench().run(body)[:5].tolist() == [-31, -30, -29, 4, 5]


def test_several_threads_may_write_the_same() -> None:
    assert Bench().run("mov.b32 %r3, 7\nst.b32 [%rd3], %r3")[0] == 7


def lower_for_cuda(onnx: Path, precision: Precision = "fp32", architecture: str = "sm_87") -> Program:
    target = GpuTarget(api="cuda", architecture=architecture, precision=precision)
    return lower_network(import_onnx(onnx), load_board("host"), gpu=target)


def write_bundle(onnx: Path, folder: Path, precision: Precision) -> Program:
    """Writes what the interpreter plays of a bundle."""
    program, metadata = lower_for_cuda(onnx, precision), import_onnx(onnx).metadata
    (folder / "kernels.ptx").write_text(compile_gpu(program, load_board("host").triple))
    plan = plan_memory(program)
    facts = fact_lines(metadata, features=(), golden_count=0, golden_tolerance=0)
    (folder / "program.txt").write_text(to_text(program, plan, facts))
    (folder / "weights.bin").write_bytes(weight_bytes(program, plan))
    return program


def recorded(checkpoint: Checkpoint, folder: Path, *, mode: Mode = "sequence", precision: Precision = "fp32") -> Case:
    """Exports a network, and runs two inputs in ONNX Runtime and in the interpreter."""
    onnx = folder / "model.onnx"
    metadata = export_onnx(checkpoint, onnx, mode=mode)
    inputs = np.round(random_samples(metadata, count=2, seed=0) * 16) / 16
    program = write_bundle(onnx, folder, precision)
    write_rounded(onnx, half_layers(program), folder / "reference.onnx")
    player = Player(folder)
    return Case(program, by_onnx_runtime(folder / "reference.onnx", inputs), stack([player.run(x) for x in inputs]))


@dataclass(frozen=True)
class Case:
    """A network's program, what ONNX Runtime says of two inputs, and what the interpreter says."""

    program: Program
    wanted: Recording
    got: Recording


def odd_channels(family: str) -> Checkpoint:
    """A network whose rows of channels (48 at most, in 4 heads) fill no words."""
    arguments = {**FAMILIES[family], "embed_dims": 48}
    checkpoint = describe(build_family(family, arguments), family=family, shape=(2, 16, 16))
    liven(checkpoint.model, images(checkpoint))
    return replace(checkpoint, spec=replace(checkpoint.spec, arguments=arguments))


@pytest.mark.parametrize(
    ("make", "precision", "mode"),
    [
        pytest.param(lambda: build("spikformer"), "fp32", "sequence", id="spikformer in fp32"),
        pytest.param(
            lambda: odd_channels("spike-driven-transformer"),
            "fp16",
            "step",
            id="spike-driven-transformer of odd channels in fp16, step by step",
        ),
        pytest.param(lambda: build("qkformer"), "fp16", "sequence", id="qkformer in fp16"),
    ],
)
def test_spikes_and_classes_of_real_weights_are_those_of_onnx_runtime(
    make: Callable[[], Checkpoint], precision: Precision, mode: Mode, tmp_path: Path
) -> None:
    case = recorded(make(), tmp_path, mode=mode, precision=precision)
    assert ("cvt.f32.f16" in (tmp_path / "kernels.ptx").read_text()) == (precision == "fp16")
    assert_lively(case.wanted)
    assert case.got.spikes.keys() == case.wanted.spikes.keys()
    same = [case.got.spikes[name] == spikes for name, spikes in case.wanted.spikes.items()]
    assert np.concatenate(same, axis=1).mean() >= 0.999
    assert (case.got.logits.argmax(1) == case.wanted.logits.argmax(1)).all()


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        pytest.param(lambda: quantize(build("spikformer"), 8), "sequence", id="int8"),
        pytest.param(lambda: quantize(odd_channels("spikformer"), 8), "step", id="int8 of odd channels"),
        pytest.param(
            lambda: quantize_neurons(build("spike-driven-transformer"), 4, 8), "step", id="int4 in integer neurons"
        ),
        pytest.param(
            lambda: quantize_neurons(build("qkformer"), 3, 8),
            "sequence",
            id="int3 in integer neurons",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda: quantize(reduced("spike-driven-transformer", "learned", "drop"), 8),
            "sequence",
            id="tokens drop out",
        ),
        pytest.param(lambda: quantize(reduced("spikformer", "difference"), 8), "sequence", id="tokens skip blocks"),
    ],
)
def test_integers_equal_onnx_runtime_bit_for_bit(make: Callable[[], Checkpoint], mode: Mode, tmp_path: Path) -> None:
    case = recorded(make(), tmp_path, mode=mode)
    assert_lively(case.wanted)
    assert_same_bits(case.wanted, case.got)


def test_architectures_have_the_same_kernels(tmp_path: Path) -> None:
    onnx, triple = tmp_path / "model.onnx", load_board("host").triple
    export_onnx(build("spike-driven-transformer"), onnx)
    texts = [compile_gpu(lower_for_cuda(onnx, "fp16", architecture), triple) for architecture in ARCHITECTURES]
    headers = [re.findall(r"^\.target (\w+)$", text, re.MULTILINE) for text in texts]
    assert headers == [[architecture] for architecture in ARCHITECTURES]
    bodies = {re.sub(r"^\.(version|target) .*$", "", text, flags=re.MULTILINE) for text in texts}
    assert len(bodies) == 1
