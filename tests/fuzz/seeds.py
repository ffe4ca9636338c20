"""Valid inputs that the campaign damages; each is made once."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import pickle
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from svitkit.boards.answers import BEGIN, END
from svitkit.boards.board import BOARDS_FOLDER, CPUS_FILE
from svitkit.export.pipeline import export_onnx
from svitkit.manifest import FileEntry, KernelChoice, Manifest, SparseWeights, to_json
from svitkit.models.checkpoint import SPEC_NAME, WEIGHTS_NAME, Checkpoint, save_checkpoint
from svitkit.runtime.bench.fleet_results import FleetHeader, FleetRun, RunKey
from svitkit.runtime.bench.record import record_json
from tests.boards.test_device_facts import DEVICES
from tests.export.quantized import quantize, quantize_neurons
from tests.export.reduced import reduced, shallow
from tests.fuzz import libsvit
from tests.runtime import bundles, gpu_bundles, node_suite
from tests.runtime.bench.test_record import record
from tests.runtime.sysfs_trees import BOARDS
from tests.runtime.test_sparse import SPARSE_PROGRAM

HOSTS = b"""\
[raspberry-pi-4]
host = "pi@192.168.1.20:2222"
identity = "~/.ssh/boards"
known_hosts = "~/.ssh/known_boards"
directory = "/home/pi/svitkit"
prefix = ["taskset", "-c", "2-3"]
connect_timeout_s = 5.0

[raspberry-pi-5]
host = "root@[fe80::1%eth0]:22"
transfer_timeout_s = 60

[jetson-nano]
host = "nano.local"
port = 2200
"""
MACHINE_CODE = b"\x7fELF"
"""What the manifest says is the bundle's only file."""


def _random(low: int, high: int, shape: int | tuple[int, ...], dtype: type = np.int64) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape, dtype=dtype)


@cache
def onnx_files() -> Sequence[bytes]:
    """Exported networks: float32, integers of two kinds, step mode, fewer tokens."""
    return [
        _exported(shallow("spikformer")),
        _exported(quantize(shallow("spikformer"), 4)),
        _exported(quantize_neurons(shallow("qkformer"), 8, 16), mode="step"),
        _exported(reduced("spike-driven-transformer", "difference")),
    ]


def _exported(checkpoint: Checkpoint, **options: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(checkpoint, path, **options)
        return path.read_bytes()


@cache
def onnx_nodes() -> Sequence[bytes]:
    """ONNX's own tests of one operator each, of those that pass."""
    passing = [name for name, what in node_suite.read_list().items() if what == node_suite.PASS]
    made = []
    for case in (node_suite.cases()[name] for name in passing):
        inputs = [node_suite.tensor(value) for value in case.data_sets[0][0]]
        made.append(node_suite.as_exported(case, inputs, 0).SerializeToString())
    return made


@cache
def checkpoint() -> tuple[bytes, bytes]:
    """Description and weights of a quantized network with fewer tokens."""
    small = quantize(reduced("spikformer", "activity"), 4)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        save_checkpoint(path, small.model, small.spec, quantized=small.quantized)
        return (path / SPEC_NAME).read_bytes(), (path / WEIGHTS_NAME).read_bytes()


def descriptions() -> Sequence[bytes]:
    """The description that belongs to the weights of :func:`checkpoint`, and one with a plan."""
    plan = {
        "groups": [
            {
                "group": {
                    "name": "blocks.0.mlp",
                    "channels": 64,
                    "blocks": 1,
                    "members": [{"tensor": "head.weight", "dim": 1, "offsets": [0], "inner": 1}],
                    "attributes": ["blocks.0.attn.num_heads"],
                },
                "kept": [0, 1, 2],
            }
        ],
        "before": None,
    }
    whole = json.loads(checkpoint()[0])
    return [checkpoint()[0], json.dumps({**whole, "plan": plan}).encode()]


@cache
def manifests() -> Sequence[bytes]:
    """The manifest of a bundle."""
    manifest = Manifest(
        model=bundles.metadata(4),
        board="qemu-cortex-a72",
        triple=bundles.ARM,
        target={"kind": "llvm", "mcpu": "cortex-a72", "mattr": ["+neon"]},
        required_features=("asimd", "crc32"),
        glibc_floor="2.27",
        tvm_version="0.27.0",
        kernels=(KernelChoice(layer="fire", kernel="event_lif", reason="rare", input_density=0.1, predicted_ns=9.5),),
        sparse=(SparseWeights(layer="stem", stored_bytes=10, expanded_bytes=32),),
        weights_bytes=32,
        state_bytes=32,
        workspace_bytes=320,
        golden_count=1,
        golden_tolerance=0.001,
        files={"model.so": FileEntry(sha256=hashlib.sha256(MACHINE_CODE).hexdigest(), size=len(MACHINE_CODE))},
    )
    return [to_json(manifest, Manifest).encode()]


def records() -> Sequence[bytes]:
    """A record."""
    return [record_json(record()).encode()]


def results() -> Sequence[bytes]:
    """The results of a rack of boards: a run that was measured, one that failed, one that did not fit."""
    header = FleetHeader(options={"limit": 10, "threads": None, "min_time_s": 1.0})
    key = RunKey(bundle="net", bundle_sha256="ab" * 32, board="raspberry-pi-4", place="left")
    runs = (
        FleetRun(run=key, outcome="measured", record=record()),
        FleetRun(run=key, outcome="failed", error="it does not answer"),
        FleetRun(run=key, outcome="skipped", error="it does not fit"),
    )
    lines = (TypeAdapter(type(line)).dump_json(line, exclude_none=True) + b"\n" for line in (header, *runs))
    return [b"".join(lines)]


def trees() -> Sequence[bytes]:
    """What boards show under /sys, as one line a file."""
    return ["".join(f"{path}\t{text}\n" for path, text in tree.items()).encode() for tree in BOARDS.values()]


def hosts() -> Sequence[bytes]:
    """A file of hosts."""
    return [HOSTS]


def board_files() -> Sequence[bytes]:
    """Every board's file."""
    return [path.read_bytes() for path in sorted(BOARDS_FOLDER.glob("*.toml")) if path != CPUS_FILE]


def programs() -> Sequence[bytes]:
    """The tiny network's program, with and without facts, whose weights are stored without zeros, and for a GPU.

    The last is refused for want of a driver, after it was read whole: kernels on a GPU check no bounds.
    """
    libsvit.build()
    facts = "steps 2\nframe 1 1 2 4 255 0.5 0.25\nclass even\nclass odd\ngolden 3 0.001\nend\n"
    whole = bundles.PROGRAM.removesuffix("end\n") + facts
    gpu = gpu_bundles.PROGRAM.replace("opencl any kernels.cl", "cuda 999 kernels.ptx")
    return [bundles.PROGRAM.encode(), whole.encode(), SPARSE_PROGRAM.encode(), gpu.encode()]


def reports() -> Sequence[bytes]:
    """What ``svit-run`` prints."""
    layer = {"layer": "stem", "kernel": "scale", "p50_ns": 100, "total_ns": 1000, "calls": 10}
    numbers = dict.fromkeys(("load_ns", "first_ns", "warmup", "weights_bytes", "state_bytes", "workspace_bytes"), 4096)
    memory = dict.fromkeys(("vm_hwm_bytes", "pss_bytes", "private_bytes", "floor_bytes"), 8192)
    report = {**numbers, **memory, "samples_ns": [1, 2, 3], "cpu_features": ["fp"], "threads": 1, "profile": [layer]}
    device = {"api": "opencl", "type": "cpu", "name": "pthread", "driver": "OpenCL 3.0 PoCL"}
    on_gpu = {"device": device, "system_memory_bytes": 4096}
    readings = [{"at_ns": 5, "values": ["48000", None]}] * 2
    phases = {
        "sustained": {"windows": [{"start_ns": 0, "count": 9, "p50_ns": 1, "max_ns": 2}], "readings": readings},
        "stream": {"period_ns": 10, "latencies_ns": [3, 4]},
        "energy": {"active_ns": 1, "idle_ns": 2, "end_ns": 3, "inferences": 7, "readings": readings},
    }
    return [json.dumps(report | each).encode() for each in ({}, {**phases, **on_gpu, "warmup": 3, "is_steady": True})]


def facts() -> Sequence[bytes]:
    """What boards say of themselves."""
    return [text.encode() for text in DEVICES.values()]


def answers() -> Sequence[bytes]:
    """What a command on a board wrote: stdout, two zero bytes, stderr."""
    digest = "ab" * 32
    answers = (
        "content\n",
        f"missing\t{digest}\t1024\nfree_kib\t123456\nplaced\t/home/pi/run/bundle\n",
        "busy\tpi@desk pid 7\t1767322000\t42\nforced\n",
        "sys/class/thermal/thermal_zone0/temp\t48000\nsys/class/thermal/thermal_zone0/type\tcpu\nproc/cpuinfo\tx\n",
    )
    return [f"noise\n{BEGIN}{text}\0\0{BEGIN}words{END}0".encode() for text in answers]


@cache
def images_npz() -> Sequence[bytes]:
    """Images as an ``.npz`` file, stored and compressed."""
    arrays = {}
    for part in ("train", "test"):
        arrays[f"{part}_x"] = _random(0, 256, (20, 1, 8, 8), np.uint8)
        arrays[f"{part}_y"] = np.arange(20) % 2
    return [_saved(np.savez, arrays), _saved(np.savez_compressed, arrays)]


@cache
def events_npz() -> Sequence[bytes]:
    """Recordings of events as an ``.npz`` file."""
    arrays = {}
    for part in ("train", "test"):
        for field, limit in (("x", 34), ("y_pix", 34), ("p", 2), ("t", 1000)):
            arrays[f"{part}_{field}"] = _random(0, limit, 40)
        arrays[f"{part}_offsets"] = np.arange(0, 41, 2)
        arrays[f"{part}_label"] = np.arange(20) % 10
    return [_saved(np.savez, arrays)]


def _saved(save: Callable[..., None], arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def idx_files() -> Sequence[bytes]:
    """The content of an IDX file, which is compressed before it is read."""
    return [b"\0\0\x08\x03" + np.array([5, 4, 4], ">u4").tobytes() + bytes(range(80))]


def cifar_batches() -> Sequence[bytes]:
    """A batch of CIFAR-10."""
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def recordings() -> Sequence[bytes]:
    """A recording of N-MNIST."""
    return [bytes(_random(0, 34, 200, np.uint8))]


@cache
def images() -> Sequence[bytes]:
    """Small images."""
    made = []
    for mode, kind in (("L", "PNG"), ("RGB", "PNG"), ("RGB", "JPEG"), ("P", "PNG")):
        file = io.BytesIO()
        Image.fromarray(_random(0, 256, (8, 8), np.uint8)).convert(mode).save(file, kind)
        made.append(file.getvalue())
    return made


@cache
def archives() -> Sequence[bytes]:
    """A tar archive, plain and compressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("folder/a", "b"):
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(bytes(600)))
    return [file.getvalue(), gzip.compress(file.getvalue(), mtime=0), lzma.compress(file.getvalue())]
