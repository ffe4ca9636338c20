from __future__ import annotations

from dataclasses import replace

from rich.table import Table

from svitkit.cli.fleet_view import view_fleet
from svitkit.runtime.bench.fleet_results import FleetRun, RunKey
from tests.runtime.bench.test_record import gpu_record, record


def test_runs_on_the_gpu_of_a_board_are_marked_and_name_the_processor() -> None:
    keys = [RunKey(bundle=name, bundle_sha256="ab" * 32, board="raspberry-pi-4") for name in ("cpu", "gpu")]
    records = [replace(made, bundle_sha256="ab" * 32) for made in (record(), gpu_record())]
    runs = [FleetRun(run=key, outcome="measured", record=made) for key, made in zip(keys, records, strict=True)]
    result, (shown, *_) = view_fleet(runs, {}, against=False)
    assert [run["processor"] for run in result["runs"]] == ["CPU", "GPU Orin (CUDA 12.6)"]
    assert isinstance(shown, Table)
    assert list(shown.columns[1].cells) == ["raspberry-pi-4", "raspberry-pi-4, GPU"]
