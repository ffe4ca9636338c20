import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from svitkit.errors import ConfigError
from svitkit.runtime.bench.device_state import DeviceState
from svitkit.runtime.bench.latency import summarize_latency
from svitkit.runtime.bench.profile import Profile
from svitkit.runtime.bench.record import (
    Accuracy,
    BenchRecord,
    Golden,
    Memory,
    read_record,
    record_json,
    write_record,
)
from svitkit.runtime.bench.record_table import render_record
from svitkit.runtime.bench.runner_report import LayerTime, RunnerDevice

SAMPLES = (2_000_000, 1_000_000, 3_000_000, 2_500_000, 1_500_000)


def record() -> BenchRecord:
    return BenchRecord(
        board="raspberry-pi-4",
        built_for="raspberry-pi-4",
        device="Raspberry Pi 4 Model B Rev 1.4",
        emulated=False,
        started_at="2026-01-02T03:04:05+00:00",
        versions={"svitkit": "0.1.0", "tvm": "0.27.0", "kernel": "6.12.0"},
        family="spikformer",
        mode="sequence",
        timesteps=4,
        target={"kind": "llvm", "mcpu": "cortex-a72", "mattr": ["-aes"]},
        bundle_sha256="ab" * 32,
        bundle_bytes=4096,
        cpu_features=("fp", "asimd"),
        threads=2,
        warmup=5,
        attempts=1,
        load_ns=7_000_000,
        first_ns=4_000_000,
        samples_ns=SAMPLES,
        latency_ms=summarize_latency(SAMPLES, emulated=False),
        memory=Memory(
            emulated=False, weights_bytes=2048, state_bytes=1024, workspace_bytes=512, vm_hwm_bytes=5_242_880
        ),
        golden=Golden(match=True, count=8, max_abs_diff=0.0001220703125, tolerance=0.001, argmax_mismatches=0),
        accuracy=Accuracy(percent=97.5, count=360, dataset="digits"),
        firing_rates={"head.lif": 0.125},
        before=DeviceState(governor="ondemand", temperatures_celsius={"cpu-thermal": 48.5}),
        after=DeviceState(governor="ondemand", requested_mhz=(1500.0, 1500.0)),
        valid=True,
        reasons=(),
    )


GOLDEN_BYTES = """{
  "format_version": 1,
  "board": "raspberry-pi-4",
  "built_for": "raspberry-pi-4",
  "device": "Raspberry Pi 4 Model B Rev 1.4",
  "emulated": false,
  "started_at": "2026-01-02T03:04:05+00:00",
  "versions": {
    "svitkit": "0.1.0",
    "tvm": "0.27.0",
    "kernel": "6.12.0"
  },
  "family": "spikformer",
  "mode": "sequence",
  "timesteps": 4,
  "target": {
    "kind": "llvm",
    "mcpu": "cortex-a72",
    "mattr": [
      "-aes"
    ]
  },
  "bundle_sha256": "abababababababababababababababababababababababababababababababab",
  "bundle_bytes": 4096,
  "cpu_features": [
    "fp",
    "asimd"
  ],
  "threads": 2,
  "warmup": 5,
  "attempts": 1,
  "load_ns": 7000000,
  "first_ns": 4000000,
  "samples_ns": [
    2000000,
    1000000,
    3000000,
    2500000,
    1500000
  ],
  "latency_ms": {
    "emulated": false,
    "count": 5,
    "min": 1.0,
    "mean": 2.0,
    "max": 3.0,
    "p50": 2.0
  },
  "memory": {
    "emulated": false,
    "weights_bytes": 2048,
    "state_bytes": 1024,
    "workspace_bytes": 512,
    "vm_hwm_bytes": 5242880
  },
  "golden": {
    "match": true,
    "count": 8,
    "max_abs_diff": 0.0001220703125,
    "tolerance": 0.001,
    "argmax_mismatches": 0
  },
  "accuracy": {
    "percent": 97.5,
    "count": 360,
    "dataset": "digits",
    "split": "test"
  },
  "firing_rates": {
    "head.lif": 0.125
  },
  "before": {
    "governor": "ondemand",
    "temperatures_celsius": {
      "cpu-thermal": 48.5
    }
  },
  "after": {
    "governor": "ondemand",
    "requested_mhz": [
      1500.0,
      1500.0
    ]
  },
  "valid": true,
  "reasons": []
}
"""


PROFILE = Profile(
    emulated=False,
    p50_ns=1900,
    overhead_ns=22.5,
    layers=(LayerTime(layer="head.lif", kernel="lif_0", p50_ns=1500, total_ns=3100, calls=2),),
)
PROFILE_BYTES = """  "profile": {
    "emulated": false,
    "p50_ns": 1900,
    "overhead_ns": 22.5,
    "layers": [
      {
        "layer": "head.lif",
        "kernel": "lif_0",
        "p50_ns": 1500,
        "total_ns": 3100,
        "calls": 2
      }
    ]
  },
"""
BEFORE_PROFILE = """  "before": {
"""


def test_the_bytes_of_a_profile_are_fixed_and_it_comes_back_from_disk(tmp_path: Path) -> None:
    made = dataclasses.replace(record(), profile=PROFILE)
    assert record_json(made) == GOLDEN_BYTES.replace(BEFORE_PROFILE, PROFILE_BYTES + BEFORE_PROFILE)
    write_record(tmp_path / "record.json", made)
    assert read_record(tmp_path / "record.json") == made


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (('"calls": 2', '"calls": 2, "call": 2'), "profile.layers.0.call"),
        (('"overhead_ns": 22.5,', ""), "profile.overhead_ns: Field required"),
        (('"total_ns": 3100', '"total_ns": 3100.5'), "profile.layers.0.total_ns"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_key_at_fault(tmp_path: Path, mend: tuple[str, str], message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(record_json(dataclasses.replace(record(), profile=PROFILE)).replace(*mend))
    with pytest.raises(ConfigError, match=message):
        read_record(path)


def memory(**changes: object) -> Memory:
    return dataclasses.replace(record().memory, floor_bytes=5_000_000, weights_resident_bytes=4096, **changes)


def test_what_is_unexplained_of_the_peak_is_a_share_with_its_sign() -> None:
    assert memory().unexplained == 1 - (5_000_000 + 2048 + 1024 + 512) / 5_242_880
    assert memory(vm_hwm_bytes=5_003_584).unexplained == 0.0
    assert memory(vm_hwm_bytes=4_000_000).unexplained < 0
    assert memory(emulated=True).unexplained is None
    assert memory(vm_hwm_bytes=None).unexplained is None
    assert record().memory.unexplained is None


def rendered(shown: BenchRecord) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render_record(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_the_peak_as_a_sum_unless_it_is_an_emulators() -> None:
    text = rendered(dataclasses.replace(record(), memory=memory()))
    assert "weights 2 + states 1 + workspace 0 + runtime floor 4,883 = 4,886 KiB; 4.6% unexplained" in text
    assert "2 KiB, mapped, 100% of them resident" in text
    emulated = rendered(dataclasses.replace(record(), memory=memory(emulated=True)))
    assert "unexplained" not in emulated
    assert "resident" not in emulated


def test_the_bytes_of_a_record_are_fixed_and_absent_sensors_have_no_key() -> None:
    assert record_json(record()) == GOLDEN_BYTES


def test_a_record_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", record())
    assert read_record(tmp_path / "record.json") == record()


ORIN = RunnerDevice(api="cuda", type="gpu", name="Orin", driver="CUDA 12.6")


def gpu_record(**changes: object) -> BenchRecord:
    """The record of a network that a GPU ran."""
    memory = dataclasses.replace(record().memory, system_bytes=52_428_800)
    return dataclasses.replace(record(), threads=1, **{"ran_on": ORIN, "memory": memory} | changes)


def test_the_bytes_of_a_gpus_record_are_fixed_and_it_comes_back_from_disk(tmp_path: Path) -> None:
    device = '  "device": "Raspberry Pi 4 Model B Rev 1.4",\n'
    ran_on = (
        '  "ran_on": {\n    "api": "cuda",\n    "type": "gpu",\n    "name": "Orin",\n    "driver": "CUDA 12.6"\n  },\n'
    )
    peak = '"vm_hwm_bytes": 5242880'
    wanted = GOLDEN_BYTES.replace(device, device + ran_on).replace('"threads": 2', '"threads": 1')
    wanted = wanted.replace(peak, f'{peak},\n    "system_bytes": 52428800')
    assert record_json(gpu_record()) == wanted
    write_record(tmp_path / "record.json", gpu_record())
    assert read_record(tmp_path / "record.json") == gpu_record()


def test_the_table_names_the_gpu_that_ran_and_the_memory_of_the_whole_system() -> None:
    text = rendered(gpu_record())
    assert "ran on                 │ GPU Orin (CUDA 12.6)" in text
    assert "memory of the system   │ 51,200 KiB less free, by all programs and drivers" in text
    assert "ran on" not in rendered(record())
    assert "memory of the system" not in rendered(record())


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (('"warmup": 5,', '"warmup": 5, "warm_up": 5,'), "warm_up"),
        (('"warmup": 5,', ""), "warmup: Field required"),
        (('"load_ns": 7000000', '"load_ns": "7000000"'), "load_ns: Input should be a valid integer"),
        (('"format_version": 1', '"format_version": 2'), "format_version"),
        (('"split": "test"', '"split": "train"'), "accuracy.split"),
        (('"reasons": []\n}', '"reasons": []'), "Invalid JSON"),
    ],
)
def test_a_wrong_record_is_refused_with_the_key_at_fault(tmp_path: Path, mend: tuple[str, str], message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(GOLDEN_BYTES.replace(*mend))
    with pytest.raises(ConfigError, match=message):
        read_record(path)


def test_a_missing_record_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*svitkit bench"):
        read_record(tmp_path / "record.json")


def test_the_table_shows_what_was_measured_and_nothing_else() -> None:
    text = rendered(record())
    assert "97.50 % (360 test images of digits)" in text
    assert "p50 2.000, min 1.000, max 3.000 ms, 5 samples" in text
    assert "5,120 KiB" in text
    assert "valid run" in text
    for absent in ("p90", "PSS", "private", "hottest", "emulator", "None"):
        assert absent not in text


def test_the_times_and_memory_of_an_emulated_run_are_marked_in_the_table() -> None:
    emulated = dataclasses.replace(
        record(),
        emulated=True,
        latency_ms=summarize_latency(SAMPLES, emulated=True),
        memory=dataclasses.replace(record().memory, emulated=True),
    )
    lines = [line for line in rendered(emulated).splitlines() if "emulator, not a board" in line]
    assert len(lines) == 3
    assert json.loads(record_json(emulated))["latency_ms"]["emulated"] is True


def test_the_table_of_an_invalid_run_gives_the_reasons() -> None:
    text = rendered(dataclasses.replace(record(), valid=False, reasons=("unstable: it jumps", "throttled: hot")))
    assert "INVALID run: unstable: it jumps; throttled: hot" in text
