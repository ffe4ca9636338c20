"""Every reader of files and texts that may come from somebody else, with a valid input to start from.

A reader takes content and a scratch directory; it may accept, or raise :class:`svitkit.errors.SvitError`.
"""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from svitkit.boards.answers import read_answer, read_busy, read_places, write_tree
from svitkit.boards.board import CPUS_FILE, load_board, read_board_file, read_cpus
from svitkit.boards.device_facts import read_facts
from svitkit.boards.hosts import Host, find_host, read_hosts
from svitkit.boards.preflight import mismatches
from svitkit.boards.ssh_errors import in_use
from svitkit.data.archives import read_members
from svitkit.data.arrays import load_npz
from svitkit.data.cifar10 import read_batch
from svitkit.data.fashion_mnist import read_idx
from svitkit.data.images import decode_image
from svitkit.data.nmnist import cut_frames, load_nmnist, read_bin
from svitkit.errors import SvitError
from svitkit.manifest import MANIFEST_NAME, check_files, read_manifest
from svitkit.models.checkpoint import SPEC_NAME, WEIGHTS_NAME, load_checkpoint
from svitkit.models.weights import read_safetensors
from svitkit.runtime.bench.clusters import choose_cpus, read_clusters
from svitkit.runtime.bench.device_state import DeviceState, read_device_state, throttled_between, throttling
from svitkit.runtime.bench.fleet_results import read_results
from svitkit.runtime.bench.power_meter import find_meter
from svitkit.runtime.bench.record import read_record
from svitkit.runtime.bench.runner_report import parse_report
from svitkit.runtime.bench.sustained import sustained_sensors
from svitkit.runtime.import_onnx import import_onnx
from svitkit.runtime.pipeline import lower_network
from tests.boards.test_preflight import bundle_for, gpu_bundle_for
from tests.fuzz import libsvit, seeds
from tests.fuzz.mutate import (
    BYTES,
    TEXT,
    Mutation,
    any_of,
    mutate_json,
    mutate_node,
    mutate_onnx,
    mutate_safetensors,
    renumber,
    words,
)

Read = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name: on the command line.
        seeds: makes valid inputs.
        mutate: damages one.
        read: reads it; the second argument is an empty directory of its own.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Mutation
    read: Read


def by_file(name: str, read: Callable[[Path], object]) -> Read:
    """A reader of a file."""

    def written(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return written


def onnx_file(path: Path) -> None:
    """Reads an ONNX file and translates it, as ``svitkit build`` does before it compiles."""
    lower_network(import_onnx(path), load_board("qemu-cortex-a72"))


def checkpoint_description(content: bytes, folder: Path) -> None:
    """Reads a checkpoint whose description is damaged."""
    (folder / SPEC_NAME).write_bytes(content)
    weights = folder / WEIGHTS_NAME
    if not weights.exists():
        weights.write_bytes(seeds.checkpoint()[1])
    load_checkpoint(folder)


def checkpoint_weights(content: bytes, folder: Path) -> None:
    """Reads a checkpoint whose weights are damaged."""
    (folder / WEIGHTS_NAME).write_bytes(content)
    read_safetensors(folder / WEIGHTS_NAME)
    (folder / SPEC_NAME).write_bytes(seeds.checkpoint()[0])
    load_checkpoint(folder)


def bundle_manifest(path: Path) -> None:
    """Reads a manifest, and compares the files that it names."""
    (path.parent / "model.so").write_bytes(seeds.MACHINE_CODE)
    check_files(path.parent, read_manifest(path.parent))


def boards_file(path: Path) -> None:
    """Reads boards.toml, and every host that it names."""
    for name in read_hosts(path):
        try:
            find_host(name, path)
        except SvitError:
            continue


def ssh_answer(content: bytes, folder: Path) -> None:
    """Reads what a command on a board wrote to stdout and stderr, as whatever it may be."""
    stdout, _, stderr = content.partition(b"\0\0")
    read_answer(stdout, stderr)
    text = content.decode(errors="replace")
    read_places(text)
    write_tree(folder, text)
    busy = read_busy(text.splitlines())
    if busy is not None:
        in_use(Host(host="board"), busy)


def sensors(content: bytes, folder: Path) -> None:
    """Reads what a board shows under /sys, and what its sensors say."""
    write_tree(folder, content.decode(errors="replace"))
    state = read_device_state(folder)
    throttling(state)
    throttled_between(DeviceState(), state)
    choose_cpus(None, read_clusters(folder))
    sustained_sensors(folder)
    meter = find_meter(folder)
    if meter is not None:
        meter.rails([text[:20] for text in content.decode(errors="replace").splitlines()[: len(meter.files)]])


def text_report(content: bytes, folder: Path) -> None:
    """Reads what ``svit-run`` printed, as a transport decodes it."""
    parse_report(content.decode(errors="replace"))


def text_facts(content: bytes, folder: Path) -> None:
    """Reads what a board says of itself, and compares bundles with it."""
    found = read_facts(content.decode(errors="replace"))
    mismatches(found, load_board("raspberry-pi-4"), bundle_for("raspberry-pi-4"))
    mismatches(found, load_board("jetson-orin-nano"), gpu_bundle_for("jetson-orin-nano"), 1)


def compressed_idx(content: bytes, folder: Path) -> None:
    """Reads an IDX file after compressing its content, whose damage no checksum then tells."""
    (folder / "file.gz").write_bytes(gzip.compress(content, 1))
    read_idx(folder / "file.gz")


def recording(path: Path) -> None:
    """Reads a recording of events and cuts it into frames."""
    cut_frames(read_bin(path), 4, "a recording")


def archive(path: Path) -> None:
    """Reads every file of a tar archive."""
    for _ in read_members(path):
        pass


def mutate_npz(rng: random.Random, content: bytes) -> bytes:
    """Damages one array of an ``.npz`` file and writes it again with the right checksums; or damages the file."""
    if rng.random() < 0.3:
        return any_of(BYTES)(rng, content)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        chosen = rng.choice(given.namelist())
        for name in given.namelist():
            array = given.read(name)
            made.writestr(name, any_of([*BYTES, renumber, renumber, words])(rng, array) if name == chosen else array)
    return file.getvalue()


READERS: Sequence[Reader] = tuple(
    reader
    for reader in (
        Reader("onnx", seeds.onnx_files, mutate_onnx, by_file("model.onnx", onnx_file)),
        Reader("onnx-nodes", seeds.onnx_nodes, mutate_node, by_file("model.onnx", onnx_file)),
        Reader("svit.json", seeds.descriptions, mutate_json, checkpoint_description),
        Reader("safetensors", lambda: [seeds.checkpoint()[1]], mutate_safetensors, checkpoint_weights),
        Reader("manifest.json", seeds.manifests, mutate_json, by_file(MANIFEST_NAME, bundle_manifest)),
        Reader("record.json", seeds.records, mutate_json, by_file("record.json", read_record)),
        Reader("results", seeds.results, any_of(TEXT), by_file("results.jsonl", read_results)),
        Reader("sensors", seeds.trees, any_of(TEXT), sensors),
        Reader("boards.toml", seeds.hosts, any_of(TEXT), by_file("boards.toml", boards_file)),
        Reader("board-file", seeds.board_files, any_of(TEXT), by_file("board.toml", read_board_file)),
        Reader(
            "cpus.toml", lambda: [CPUS_FILE.read_bytes()], any_of(TEXT), by_file("cpus.toml", read_cpus.__wrapped__)
        ),
        Reader("program.txt", seeds.programs, any_of(TEXT), libsvit.load),
        Reader("report", seeds.reports, mutate_json, text_report),
        Reader("facts", seeds.facts, any_of(TEXT), text_facts),
        Reader("ssh-answer", seeds.answers, any_of(TEXT), ssh_answer),
        Reader("npz", seeds.images_npz, mutate_npz, by_file("data.npz", load_npz)),
        Reader("events", seeds.events_npz, mutate_npz, by_file("data.npz", lambda path: load_nmnist(path, 4))),
        Reader("recording", seeds.recordings, any_of(BYTES), by_file("0.bin", recording)),
        Reader("idx", seeds.idx_files, any_of(BYTES), compressed_idx),
        Reader("cifar-batch", seeds.cifar_batches, any_of(BYTES), lambda content, _: read_batch(content, "a batch")),
        Reader("image", seeds.images, any_of(BYTES), lambda content, _: decode_image(content, "an image")),
        Reader("tar", seeds.archives, any_of(BYTES), by_file("data.tar", archive)),
    )
    if reader.read is not libsvit.load or libsvit.COMPILER
)
"""All of them; libsvit's only where there is a compiler with sanitizers."""
