"""Bundles for GPUs: memory that is never overwritten, a manifest that counts what the program says, whole networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from svitkit.boards.board import load_board
from svitkit.boards.gpu import Gpu
from svitkit.files import sha256
from svitkit.manifest import FileEntry, GpuPlan, read_manifest, write_manifest
from svitkit.runtime.build import build_bundle
from svitkit.runtime.memory import GPU_ALIGNMENT, plan_memory
from svitkit.runtime.program import Call, Expansion, GpuTarget, MemoryPlan, Program
from svitkit.runtime.view import ITEM_BYTES, PACKED, Buffer
from tests.export.conftest import build
from tests.export.quantized import quantize
from tests.runtime.family_networks import Network
from tests.runtime.recordings import Recording, assert_agree, by_onnx_runtime, in_graph_order
from tests.runtime.test_gpu_runner import build_double, by_double, report, svit_run
from tests.runtime.test_integer_parity import Case, case


def random_program(seed: int) -> Program:
    """A chain of calls that read up to three earlier buffers; some are made once, some weights are expanded."""
    rng = np.random.default_rng(seed)
    buffers = [Buffer(f"b{index}", "uint8", (int(size),)) for index, size in enumerate(rng.integers(1, 3000, 40))]
    calls = []
    for index, (before, made) in enumerate(pairwise(buffers)):
        earlier = [buffers[int(each)] for each in rng.integers(0, index + 1, 2)]
        calls.append(Call(f"k_{index}", "layer", (before, *earlier, made), prepares=index in (5, 20)))
    program = Program(buffers[0], buffers[-1], gpu=GpuTarget(api="opencl"), calls=calls)
    bitmap, values = (Buffer(name, "uint8", (9,), space="weights") for name in ("bitmap", "values"))
    program.weights = {bitmap: bytes(9), values: bytes(9)}
    program.expansions = [Expansion("layer", buffers[8], bitmap, values, 0)]
    return program


def overwritten(program: Program, plan: MemoryPlan, held: Buffer, first: int, last: int) -> list[str]:
    """Buffers that calls ``first`` to ``last`` touch where another one lies."""
    start, end = plan.offsets[held], plan.offsets[held] + held.size_bytes
    touched = {buffer for call in program.calls[first : last + 1] for buffer in call.buffers} - {held}
    return [
        buffer.name
        for buffer in touched
        if buffer.space == held.space
        and plan.offsets[buffer] < end
        and start < plan.offsets[buffer] + buffer.size_bytes
    ]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_overwrites_what_is_still_read_and_what_was_prepared_stays(seed: int) -> None:
    program = random_program(seed)
    plan = plan_memory(program)
    assert all(offset % GPU_ALIGNMENT == 0 for offset in plan.offsets.values())
    last = len(program.calls) - 1
    for number, call in enumerate(program.calls):
        made = call.buffers[-1]
        reads = [index for index, each in enumerate(program.calls) if made in each.buffers[:-1]]
        assert not overwritten(program, plan, made, number, max(reads, default=number))
    kept = [call.buffers[-1] for call in program.calls if call.prepares]
    for buffer in (*kept, program.expansions[0].out, program.input, program.output):
        assert not overwritten(program, plan, buffer, 0, last)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A network whose weights of 4 bits are unpacked on the GPU."""
    return case(quantize(build("spikformer"), 4), tmp_path_factory.mktemp("narrow") / "model.onnx", count=2)


def read_program(bundle: Path) -> list[list[str]]:
    return [line.split() for line in (bundle / "program.txt").read_text().splitlines()]


def tensor_bytes(words: list[str]) -> int:
    """Size of a tensor by its line; rows of packed spikes are whole words there."""
    elements = int(np.prod([int(extent) for extent in words[7:]]))
    return elements // 8 if words[3] == PACKED else elements * ITEM_BYTES[words[3]]


def test_the_manifest_counts_what_the_program_says(narrow: Case, tmp_path: Path) -> None:
    manifest = build_bundle(narrow.onnx, load_board("pocl"), tmp_path / "b", golden=narrow.inputs, device="gpu")
    lines = read_program(tmp_path / "b")
    sizes = {words[1]: tensor_bytes(words) for words in lines if words[0] == "tensor"}
    launches = [words for words in lines if words[0] == "launch"]
    prepared = [words for words in lines if words[0] == "prepare"]
    assert prepared
    assert manifest.gpu == GpuPlan(
        api="opencl",
        architecture=None,
        allows_cpu=True,
        precision="fp32",
        trial=None,
        launches=len(launches),
        prepared=len(prepared),
        bytes_moved=sum(sizes[number] for words in launches for number in set(words[10:])),
    )
    assert all(int(words[5]) % GPU_ALIGNMENT == 0 for words in lines if words[0] == "tensor")
    places = {
        words[2]: (int(words[5]), int(words[5]) + sizes[words[1]]) for words in lines if words[4:5] == ["workspace"]
    }
    unpacked = {name: place for name, place in places.items() if name.endswith(".unpacked")}
    assert len(unpacked) == len(prepared)
    for name, (start, end) in unpacked.items():
        assert [other for other, place in places.items() if place[0] < end and start < place[1]] == [name]


def test_a_whole_network_runs_through_cudas_driver(
    pocl: str, family_network: Callable[[str], Network], tmp_path: Path
) -> None:
    network = family_network("spikformer")
    images = network.images[:20, None]
    gpu = Gpu(api="cuda", name="a double", architecture="sm_87")
    boards = {"cuda": replace(load_board("host"), gpu=gpu), "opencl": load_board("pocl")}
    for api, board in boards.items():
        build_bundle(network.onnx, board, tmp_path / api, golden=images[:2], device="gpu")
    bundle = tmp_path / "cuda"
    programs = {api: [words for words in read_program(tmp_path / api) if words[0] != "device"] for api in boards}
    assert programs["cuda"] == programs["opencl"]
    play_opencl_as_ptx(bundle, (tmp_path / "opencl" / "kernels.cl").read_text())
    (tmp_path / "x.bin").write_bytes(images.astype(np.float32).tobytes())
    files = ["--input", tmp_path / "x.bin", "--count", len(images), "--output", tmp_path / "y.bin"]
    environment = by_double(build_double(tmp_path), tmp_path / "counts")
    plain = ["--spikes", tmp_path / "s.bin", "--require-device", "gpu", "--warmup", 0, "--repeat", 1]
    made = report(svit_run(bundle, *files, *plain, environment=environment))
    assert made["device"]["driver"].endswith("replays a graph")
    logits = np.fromfile(tmp_path / "y.bin", np.float32).reshape(len(images), -1)
    spikes = in_graph_order(bundle, np.fromfile(tmp_path / "s.bin", np.uint8).reshape(len(images), -1))
    assert_agree(by_onnx_runtime(network.onnx, images), Recording(logits, spikes))


def play_opencl_as_ptx(bundle: Path, kernels: str) -> None:
    """Gives a bundle for CUDA the text that the driver's double compiles."""
    path, manifest = bundle / "kernels.ptx", read_manifest(bundle)
    assert path.read_text().startswith("//")
    path.write_text(kernels)
    entry = FileEntry(sha256=sha256(path), size=path.stat().st_size)
    write_manifest(bundle, replace(manifest, files={**manifest.files, path.name: entry}))
