"""Several methods under one budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from svitkit.compress.chain import SHARES, method_chain, run_chain
from svitkit.compress.pipeline import compress_model
from svitkit.compress.report import PruneReport
from svitkit.data import Dataset
from svitkit.errors import ConfigError
from svitkit.manifest import from_json
from svitkit.models.checkpoint import Checkpoint, load_checkpoint
from tests.compress.networks import firing_checkpoint

BOTH = "svitkit,aq4svit-greedy"
QUICK: dict[str, Any] = {
    "limit": 24,
    "settings": {
        "rates": (0.5,),
        "rounds": 0,
        "fill_tries": 0,
        "calibration_images": 24,
        "gate_images": 8,
        "audit": 0,
        "widths": (8, 2),
    },
}


@pytest.fixture(scope="module")
def network(digits: Dataset) -> Checkpoint:
    return firing_checkpoint("spikformer", digits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("svitkit,aq4svit", "Did you mean 'aq4svit-beam'|Did you mean 'aq4svit-greedy'"),
        ("int8,svitkit", "Put it last"),
        ("svitkit,svitkit", "stands twice"),
        ("svitkit,", "unknown method ''"),
        ("lottery,svitkit", "Put 'lottery' behind it"),
        ("int8,lottery", "Put it last"),
        ("token-skip,svitkit", "behind the methods that prune"),
        ("token-skip,lottery", "behind the methods that prune"),
        ("token-select,primesvt", "behind the methods that prune"),
        ("token-skip,token-select", "tokens are reduced once"),
        ("int8,token-skip", "Put it last"),
        ("token-skip,token-skip", "stands twice"),
        ("tokenskip", "Did you mean 'token-skip'"),
    ],
)
def test_methods_that_do_not_go_together_are_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        method_chain(text)


@pytest.mark.parametrize(
    "text", ["svitkit,token-skip", "lottery,token-skip,int8", "token-select,int4", "primesvt,token-skip,aq4svit-greedy"]
)
def test_tokens_are_reduced_behind_pruning_and_before_integers(text: str) -> None:
    assert method_chain(text) == tuple(text.split(","))


def test_the_result_is_pruned_and_of_few_bits_and_each_share_is_told(
    network: Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    result = compress_model(network, digits, tmp_path / "both", method=BOTH, max_drop=100.0, **QUICK)
    report, loaded = result.report, load_checkpoint(tmp_path / "both")
    assert loaded.spec.plan is not None
    assert loaded.spec.quantization is not None
    assert [step.method for step in report.steps] == BOTH.split(",")
    assert sum(step.share for step in report.steps) == pytest.approx(report.memory_saving)
    assert report.parameter_bytes_after == loaded.parameter_bytes()
    assert report.groups
    assert report.layers
    assert report == from_json((tmp_path / "both" / "report.json").read_text(), PruneReport, source="report.json")
    assert not (tmp_path / "both.steps").exists()


def test_a_stopped_run_goes_on(network: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "network":
            raise KeyboardInterrupt

    told = {"method": BOTH, "max_drop": 100.0, **QUICK}
    with pytest.raises(KeyboardInterrupt):
        compress_model(network, digits, tmp_path / "c", progress=stop, **told)
    assert (tmp_path / "c.steps" / "0" / "0-svitkit" / "report.json").exists()
    with pytest.raises(ConfigError, match="--resume"):
        compress_model(network, digits, tmp_path / "c", **told)
    again = compress_model(network, digits, tmp_path / "c", resume=True, **told)
    assert again.report == compress_model(network, digits, tmp_path / "d", **told).report


def test_settings_go_to_the_methods_that_know_them(network: Checkpoint, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'ratse'"):
        compress_model(network, digits, tmp_path / "x", method=BOTH, limit=8, settings={"ratse": (0.5,)})


class Imaginary:
    """Methods by formula: pruning spends what it may, and integers need what is left."""

    def __init__(self, report: PruneReport, *, needs: float) -> None:
        self.report, self.needs = report, needs
        self.budgets: list[float] = []

    def __call__(self, network: Any, folder: Path, method: str, *, max_drop: float, **told: Any) -> Any:
        folder.mkdir(parents=True)
        prunes = method == "svitkit"
        if prunes:
            self.budgets.append(max_drop)
            size, after = int(1000 - 100 * max_drop), 90.0 - max_drop
            layers = self.report.layers
        else:
            few = max_drop >= self.needs
            size, after = int(network * (0.1 if few else 0.5)), 90.0 - (self.budgets[-1] + min(max_drop, self.needs))
            layers = tuple(replace(layer, bits=2 if few else 8) for layer in self.report.layers)
        before = 90.0 if prunes else 90.0 - self.budgets[-1]
        report = replace(
            self.report,
            method=method,
            layers=() if prunes else layers,
            before=replace(self.report.before, validation=before),
            after=replace(self.report.after, validation=after),
            original_parameter_bytes=1000,
            parameter_bytes_before=1000 if prunes else network,
            parameter_bytes_after=size,
            memory_saving=1 - size / 1000,
        )
        return size, report


@pytest.fixture(scope="module")
def report(network: Checkpoint, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> PruneReport:
    out = tmp_path_factory.mktemp("real") / "r"
    settings = {"calibration_images": 24, "gate_images": 8, "audit": 0, "widths": (8, 2)}
    return compress_model(
        network, digits, out, method="aq4svit-greedy", max_drop=100.0, limit=24, settings=settings
    ).report


@pytest.mark.parametrize(("needs", "attempts"), [(0.0, 1), (1.0, 2), (1.4, 3), (5.0, 3)])
def test_pruning_gets_less_where_integers_need_more(
    needs: float, attempts: int, report: PruneReport, tmp_path: Path
) -> None:
    imaginary = Imaginary(report, needs=needs)
    size, joined = run_chain(
        1000,  # type: ignore[arg-type]
        tmp_path / "out",
        ("svitkit", "aq4svit-greedy"),
        imaginary,
        max_drop=2.0,
        min_saving=0.5,
        settings={},
        resume=False,
    )
    assert imaginary.budgets == [2.0 * share for share in SHARES[:attempts]]
    assert joined.before.validation - joined.after.validation <= 2.0
    assert size == joined.parameter_bytes_after
    assert joined.satisfied == (joined.memory_saving >= 0.5)
    if needs < 2:
        assert joined.memory_saving > 0.9
