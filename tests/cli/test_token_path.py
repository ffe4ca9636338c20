"""From the program's options to a network of fewer tokens."""

from __future__ import annotations

import json
from pathlib import Path

from svitkit.models.checkpoint import load_checkpoint
from tests.cli.conftest import Run

FEW = ("--limit", "16", "--set", "steps=2", "--set", "probe_images=8", "--set", "criteria=grid")


def test_a_saving_of_operations_out_of_reach_ends_with_3_and_the_best_found(svitkit: Run, tmp_path: Path) -> None:
    told = ("--method", "token-skip", "--max-drop", "100", "--min-saving", "0.9", "--json")
    done = svitkit("compress", "digits-spikformer", "-o", "small", *told, *FEW)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["satisfied"] is False
    saved = 1 - report["tokens"]["operations_after"] / report["tokens"]["operations_before"]
    assert 0.1 < saved < 0.9
    kept = [(block["block"], block["kept"]) for block in report["tokens"]["blocks"]]
    assert kept == [(each.block, each.kept) for each in load_checkpoint(tmp_path / "small").spec.tokens]
    assert kept
