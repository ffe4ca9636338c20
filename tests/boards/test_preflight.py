import dataclasses

import pytest

from svitkit.boards.board import Board, complete_board, load_board
from svitkit.boards.device_facts import MUSL, DeviceFacts
from svitkit.boards.machine import read_machine
from svitkit.boards.preflight import check_bundle, mismatches, missing_features
from svitkit.errors import ConfigError
from svitkit.manifest import GpuPlan, Manifest, ModelMetadata, Normalization, TensorSpec


def bundle_for(name: str, **changes: object) -> Manifest:
    board = load_board(name)
    model = ModelMetadata(
        family="spikformer",
        mode="sequence",
        timesteps=4,
        static_input=True,
        input=TensorSpec(name="input", shape=(1, 1, 16, 16)),
        output=TensorSpec(name="logits", shape=(1, 10)),
        lif_layers=(),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        class_names=tuple("0123456789"),
        parameter_bytes=4,
        original_parameter_bytes=8,
        checkpoint_sha256="0" * 64,
        plan_sha256=None,
        producer="svitkit",
    )
    manifest = Manifest(
        model=model,
        board=name,
        triple=board.triple,
        target=dict(board.tvm_target()),
        required_features=board.required_features,
        glibc_floor=board.glibc,
        tvm_version="0.27.0",
        kernels=(),
        weights_bytes=0,
        state_bytes=0,
        workspace_bytes=0,
        golden_count=1,
        golden_tolerance=1e-3,
        files={},
    )
    return dataclasses.replace(manifest, **changes)


def gpu_plan(board: Board) -> GpuPlan:
    """What a bundle for the GPU of a board says of it."""
    assert board.gpu is not None
    return GpuPlan(
        api=board.gpu.api,
        architecture=board.gpu.architecture,
        allows_cpu=board.gpu.allows_cpu,
        precision="fp16",
        launches=40,
        prepared=3,
        bytes_moved=1 << 20,
    )


def gpu_bundle_for(name: str, **changes: object) -> Manifest:
    """A bundle for the GPU of a board: for none of this machine, which has one or has not."""
    return bundle_for(name, gpu=gpu_plan(load_board(name)), **changes)


def test_a_single_file_runs_where_the_c_library_is_musl_or_old() -> None:
    board = load_board("raspberry-pi-4")
    facts = DeviceFacts(architecture="aarch64", libc=MUSL, cpu_features=board.required_features, hashes=True)
    single = bundle_for("raspberry-pi-4", glibc_floor=None)
    assert mismatches(facts, board, single) == []
    assert mismatches(dataclasses.replace(facts, libc="2.5"), board, single) == []
    assert "musl" in mismatches(facts, board, bundle_for("raspberry-pi-4"))[0]


def test_a_cortex_a76_bundle_is_refused_on_a_cortex_a72_with_the_features_and_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        check_bundle(bundle_for("qemu-cortex-a76"), load_board("qemu-cortex-a72"))
    assert str(caught.value) == (
        "the bundle was built for qemu-cortex-a76 and may use CPU features that qemu-cortex-a72 lacks: "
        "aes, asimddp, asimdhp, asimdrdm, atomics, dcpop, fphp, lrcpc, pmull, sha1, sha2. "
        "There it would die of an illegal instruction. "
        "Build it again for this board: svitkit build model.onnx --board qemu-cortex-a72 -o BUNDLE"
    )


@pytest.mark.parametrize(
    ("built_for", "board"),
    [
        ("host", "host"),
        ("qemu-cortex-a72", "qemu-cortex-a72"),
        ("qemu-cortex-a53", "qemu-cortex-a76"),
        ("qemu-cortex-a72", "raspberry-pi-4"),
        ("raspberry-pi-4", "raspberry-pi-5"),
        ("jetson-xavier-nx", "jetson-orin-nano"),
        ("raspberry-pi-5", "rock-5b"),
    ],
)
def test_a_bundle_is_accepted_where_its_features_are(built_for: str, board: str) -> None:
    check_bundle(bundle_for(built_for), load_board(board))


@pytest.mark.parametrize(
    ("built_for", "board", "lacks"),
    [("raspberry-pi-5", "jetson-xavier-nx", "asimddp, lrcpc"), ("jetson-xavier-nx", "jetson-nano", "atomics")],
)
def test_a_bundle_is_refused_where_a_feature_is_missing(built_for: str, board: str, lacks: str) -> None:
    with pytest.raises(ConfigError, match=lacks):
        check_bundle(bundle_for(built_for), load_board(board))


def test_a_bundle_for_another_architecture_is_refused() -> None:
    mips = bundle_for("host", triple="mips64-linux-gnu")
    with pytest.raises(ConfigError, match=r"built for host \(mips64-linux-gnu\), but host runs"):
        check_bundle(mips, load_board("host"))


def test_the_host_is_compared_by_the_flags_of_its_real_cpu() -> None:
    host = load_board("host")
    machine = read_machine()
    lost = host.required_features[-1]
    poorer = dataclasses.replace(machine, cpu_features=tuple(f for f in machine.cpu_features if f != lost))
    real = dataclasses.replace(complete_board("host", host.facts, machine), cpu_features=poorer.cpu_features)
    with pytest.raises(ConfigError, match=f"host lacks: {lost}"):
        check_bundle(bundle_for("host"), real)


def test_a_bundle_that_needs_a_newer_glibc_than_the_board_has_is_refused() -> None:
    newer = bundle_for("jetson-nano", glibc_floor="2.31")
    with pytest.raises(ConfigError, match=r"needs glibc 2\.31 or newer, but jetson-nano has 2\.27"):
        check_bundle(newer, load_board("jetson-nano"))
    check_bundle(newer, load_board("raspberry-pi-4"))


def test_glibc_versions_are_compared_as_numbers() -> None:
    check_bundle(bundle_for("jetson-nano", glibc_floor="2.9"), load_board("jetson-nano"))


def test_a_glibc_floor_that_is_no_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="'new' is no glibc version"):
        check_bundle(bundle_for("host", glibc_floor="new"), load_board("host"))


def test_missing_features_are_sorted_and_unique() -> None:
    assert missing_features(["b", "a", "b", "c"], ["c"]) == ["a", "b"]
