from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from svitkit.compress.plot import draw_sweep
from svitkit.compress.primesvt import PrimeSVTConfig
from svitkit.compress.report import Accuracy, GroupReport, PruneReport, SweepPoint


def group(name: str, order: int | None, *accuracies: float, ratio: float = 0.0, target: bool = True) -> GroupReport:
    sweep = tuple(
        SweepPoint(ratio=0.2 * at, channels=10 - 2 * at, accuracy=value, saving=0.1 * at, score=0.1, robust=value > 87)
        for at, value in enumerate(accuracies, start=1)
    )
    return GroupReport(
        name=name,
        channels_before=10,
        channels_after=round(10 * (1 - ratio)),
        blocks=1,
        size_bytes=4096 // (order or 1),
        filter_bytes=1024,
        order=order,
        target=target,
        ratio=ratio,
        score=0.1,
        sweep=sweep,
        decision="not prunable" if order is None else "pruned" if ratio else "kept",
        why="",
    )


REPORT = PruneReport(
    method="primesvt",
    satisfied=True,
    why="",
    settings=PrimeSVTConfig(),
    bn_recalibration=0,
    finetune_epochs=0,
    seed=0,
    limit=None,
    before=Accuracy(validation=90.0, test=90.0),
    after=Accuracy(validation=89.0, test=89.0),
    original_parameter_bytes=8192,
    parameter_bytes_before=8192,
    parameter_bytes_after=4096,
    memory_saving=0.5,
    groups=(
        group("second", 2, 89.0, 70.0, target=False),
        group("fixed", None),
        group("first", 1, 89.5, 89.0, ratio=0.4),
    ),
)


def test_the_picture_names_every_swept_group_in_order_with_what_was_decided(tmp_path: Path) -> None:
    draw_sweep(tmp_path / "sweep.svg", REPORT)
    drawn = (tmp_path / "sweep.svg").read_text()
    places = [drawn.index(f">{text}<") for text in ("first", "second", "40% removed", "no target")]
    assert places == sorted(places)
    assert ">fixed<" not in drawn


def test_the_same_report_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    first, second, other = (tmp_path / f"{name}.svg" for name in "abc")
    draw_sweep(first, REPORT)
    draw_sweep(second, REPORT)
    draw_sweep(other, replace(REPORT, groups=REPORT.groups[:1]))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_more_groups_than_colours_are_drawn_in_grey(tmp_path: Path) -> None:
    many = tuple(group(f"group{at:02}", at, 89.0, 80.0) for at in range(1, 31))
    draw_sweep(tmp_path / "sweep.svg", replace(REPORT, groups=many))
    drawn = (tmp_path / "sweep.svg").read_text()
    assert all(f">{entry.name}<" in drawn for entry in many)
    assert "#c4c4c4" in drawn
