from __future__ import annotations

from dataclasses import replace

import pytest

from svitkit.report.blocks import Cell, Charts, Columns, Fold, Group, Paragraph, Section, Table
from svitkit.report.sections import make_sections
from svitkit.report.sections.compression import compression
from svitkit.report.sections.environment import environment
from svitkit.report.sections.latency import latency
from svitkit.report.sections.layers import layers
from svitkit.report.sections.load import load
from svitkit.report.sections.overview import overview
from svitkit.report.sections.tradeoffs import tradeoffs
from tests.report.records import MANIFEST, ORIN, SPEC, Artefacts, decisions, record, run, with_load

ARTEFACTS = Artefacts(manifest=MANIFEST, spec=SPEC, decisions=decisions("svitkit,int8"))


def texts(table: Table) -> list[list[str]]:
    return [[cell.text if isinstance(cell, Cell) else cell for cell in row.cells] for row in table.rows]


def only(section: Section | None, kind: type) -> list:
    assert section is not None
    return [block for block in section.blocks if isinstance(block, kind)]


def test_the_overview_has_a_row_a_run_and_greys_the_invalid_with_their_reasons():
    section = overview([run("a"), run("b", record(reasons=("throttled", "drifts")))])
    (table,) = only(section, Table)
    assert [row.muted for row in table.rows] == [False, True]
    assert [row[table.columns.index("verdict")] for row in texts(table)] == ["valid", "INVALID: throttled; drifts"]
    assert [row[table.columns.index("front")] for row in texts(table)] == ["yes", ""]
    assert any(block.warning and "1 of 2 runs is not valid" in block.text for block in only(section, Paragraph))


def test_times_of_an_emulator_are_called_so_wherever_they_stand():
    runs = [run("a"), run("a", record(board="qemu", emulated=True, profile=True))]
    (table,) = only(overview(runs), Table)
    assert [row[table.columns.index("p50 ms")] for row in texts(table)] == ["1", "1 (emulator)"]
    board, emulated = only(tradeoffs(runs), Group)
    assert [board.title, emulated.title] == ["raspberry-pi-4", "qemu (emulated)"]
    assert "emulator" in emulated.blocks[0].charts[0].x.title
    assert "emulator" not in board.blocks[0].charts[0].x.title
    assert not any(chart.lines for chart in emulated.blocks[0].charts if "emulator" in chart.x.title)
    _, emulated = only(latency(runs), Group)
    assert emulated.blocks[0].charts[0].x.title == "time of the emulator, ms"
    assert emulated.blocks[1].caption.startswith("Times of the emulator")
    (fold,) = (fold for fold in only(layers(runs), Fold) if "qemu" in fold.summary)
    assert "times of the emulator" in fold.summary


def test_the_processor_that_ran_stands_beside_every_run():
    memory = replace(record().memory, system_bytes=50 << 20)
    runs = [run("a"), run("a", replace(record(ran_on=ORIN), memory=memory))]
    (table,) = only(overview(runs), Table)
    assert [row[table.columns.index("board")] for row in texts(table)] == ["raspberry-pi-4", "raspberry-pi-4, GPU"]
    on_cpu, on_gpu = (dict(texts(fold.blocks[0])) for fold in only(environment(runs), Fold))
    assert (on_cpu["ran on"], on_gpu["ran on"]) == ("CPU", "GPU Orin (CUDA 12.6)")
    assert on_gpu["memory of the system"] == "51,200 KiB less free, by all programs and drivers"
    assert "memory of the system" not in on_cpu
    said, alone = (only(overview(shown), Paragraph)[0].text for shown in (runs, runs[:1]))
    assert "CPU and GPU of a board count as two boards" in said
    assert "GPU" not in alone


def test_the_front_is_a_staircase_through_those_that_nothing_beats():
    runs = [
        run("fast", record(accuracy=90.0, samples_ms=(1.0,) * 5)),
        run("good", record(accuracy=95.0, samples_ms=(2.0,) * 5)),
        run("beaten", record(accuracy=80.0, samples_ms=(1.5,) * 5)),
        run("broken", record(accuracy=99.0, samples_ms=(0.5,) * 5, reasons=("too hot",))),
    ]
    (group,) = only(tradeoffs(runs), Group)
    chart = group.blocks[0].charts[0]
    assert list(chart.lines[0].points) == [(1.0, 90.0), (2.0, 90.0), (2.0, 95.0)]
    assert [(mark.label, mark.filled, mark.muted) for mark in chart.marks] == [
        ("fast", True, False),
        ("good", True, False),
        ("beaten", False, False),
        ("broken (invalid)", False, True),
    ]


def test_a_run_without_accuracy_is_named_beside_the_charts():
    (group,) = only(tradeoffs([run("a"), run("b", record(accuracy=None))]), Group)
    assert "b on raspberry-pi-4" in group.blocks[-1].text
    assert len(group.blocks[0].charts[0].marks) == 1
    assert len(group.blocks[0].charts[2].marks) == 2


def test_one_run_without_any_figure_leaves_no_chart():
    (group,) = only(tradeoffs([run("a", record(accuracy=None, samples_ms=(1.0,)))]), Group)
    assert [type(block) for block in group.blocks] == [Paragraph]


def test_samples_are_drawn_over_time_only_where_they_drift():
    steady, moving = record(samples_ms=(1.0,) * 200), record(samples_ms=(1.0,) * 100 + (1.1,) * 100)
    (group,) = only(latency([run("steady", steady), run("moving", moving)]), Group)
    titles = [chart.title for chart in group.blocks[0].charts]
    assert titles[1:] == ["Samples over time, moving on raspberry-pi-4"]
    assert "+10.0%" in group.blocks[0].charts[1].description


def test_the_distribution_shows_the_percentiles_of_the_record_and_leaves_out_the_slowest():
    samples = (*(1.0 + 0.001 * number for number in range(198)), 50.0, 60.0)
    (group,) = only(latency([run("a", record(samples_ms=samples))]), Group)
    chart = group.blocks[0].charts[0]
    assert [mark.y for mark in chart.marks] == [50.0, 90.0, 95.0]  # 200 samples support no p99
    assert chart.x.high < 2
    places = [y for _, y in chart.lines[0].points]
    assert places == sorted(places)
    assert places[-1] == 99.0


def test_layers_stand_beside_their_spikes_and_the_reason_of_their_kernel():
    (fold,) = only(layers([run("a", record(profile=True), ARTEFACTS)]), Fold)
    first, _ = texts(fold.blocks[0])
    assert first == ["stem.lif", "event_conv_0", "300.0", "50.0 %", "12.5 %", "7.0 %", "", "7% of inputs active"]


def test_without_profiles_the_spikes_are_shown_and_without_spikes_nothing():
    (fold,) = only(layers([run()]), Fold)
    assert texts(fold.blocks[0]) == [["stem.lif", "12.5 %"]]
    assert layers([run("a", replace(record(), firing_rates=None))]) is None


def test_decisions_of_networks_stand_side_by_side_once_for_all_boards():
    other = Artefacts(manifest=MANIFEST, spec=replace(SPEC, plan=None, tokens=()))
    runs = [run("a", None, ARTEFACTS), run("a", record(board="host"), ARTEFACTS), run("b", None, other)]
    section = compression(runs)
    outcomes, *_ = only(section, Table)
    assert [row[0] for row in texts(outcomes)] == ["a", "b"]
    assert texts(outcomes)[0][1:6] == ["512", "75.0 %", "99.00 -> 98.50", "98.00 -> 97.00", "1x4 1x8"]
    (columns,) = only(section, Columns)
    channels, bits, tokens = columns.blocks
    assert texts(channels) == [["mlp", "2 of 8"]]
    assert channels.rows[0].cells[1].heat == 0.75
    assert [row.cells[1].heat for row in bits.rows] == pytest.approx([0.4, 0.6])
    assert bits.columns == ("part", "a", "b")
    assert texts(bits) == [["stem", "8", "8"], ["head", "4", "4"]]
    assert texts(tokens) == [["blocks.0", "4 of 16, activity"]]


def test_one_method_that_decided_otherwise_for_another_board_is_another_network():
    other = Artefacts(manifest=MANIFEST, spec=replace(SPEC, plan=None))
    section = compression([run("a", None, ARTEFACTS), run("a", record(board="host"), other)])
    assert [row[0] for row in texts(only(section, Table)[0])] == ["a", "a on host"]


def test_reasons_of_every_decision_unfold():
    (fold,) = only(compression([run("a", None, ARTEFACTS)]), Fold)
    groups, integers, sparse = fold.blocks
    assert texts(groups) == [["mlp", "8 -> 2", "75.0 %", "4", "pruned: the budget allows it"]]
    assert texts(integers) == [["stem", "8", "4,096", "4", "protected"]]
    assert texts(sparse) == [["head", "2", "8"]]


def test_networks_without_a_checkpoint_are_named_and_alone_make_no_section():
    assert compression([run("a")]) is None
    section = compression([run("a", None, ARTEFACTS), run("b")])
    assert [block.text for block in only(section, Paragraph)] == ["No checkpoint was found beside the records of b."]


def test_sustained_load_frames_and_energy_have_a_table_each():
    section = load([run("a", with_load(record())), run("b")])
    assert only(section, Charts)[0].charts[0].lines[0].points[-1] == (5.0, 1.5)
    sustained, streams, energy = (dict(zip(t.columns, texts(t)[0], strict=True)) for t in only(section, Table))
    assert (sustained["change"], sustained["hottest, °C"]) == ("+50.0%", "55")
    assert (streams["late"], streams["max, ms"]) == ("3", "20")
    assert (energy["mJ above idle"], energy["± (99 %)"], energy["covers"]) == ("30", "1.5", "rails VDD_IN")
    assert all(len(table.rows) == 1 for table in only(section, Table))


def test_energy_below_its_error_is_no_figure_and_times_of_an_emulator_are_called_so():
    found = with_load(record(board="qemu", emulated=True))
    assert found.energy is not None
    section = load([run("a", replace(found, energy=replace(found.energy, resolved=False)))])
    sustained, streams, energy = (texts(table)[0] for table in only(section, Table))
    assert energy[1] == "not distinguishable from idle"
    assert sustained[3] == "1 (emulator)"
    assert streams[-1] == "20 (emulator)"


def test_the_environment_has_what_was_seen_and_nothing_that_was_not():
    board, emulator = only(environment([run(), run("a", record(board="qemu", emulated=True))]), Fold)
    facts = dict(texts(board.blocks[0]))
    assert facts["governor before"] == "performance"
    assert facts["temperatures before"] == "cpu 48.5 (degrees Celsius)"
    assert facts["bundle"].endswith("ab" * 32)
    assert facts["target"] == "kind=llvm mattr=+aes"
    assert "governor after" not in facts
    assert not any("governor" in fact for fact in dict(texts(emulator.blocks[0])))


def test_sections_without_anything_to_say_are_left_out():
    bare = replace(record(), firing_rates=None)
    assert [section.anchor for section in make_sections([run("a", bare)])] == [
        "runs",
        "tradeoffs",
        "latency",
        "environment",
    ]


def test_the_curve_of_an_invalid_run_has_no_colour_and_its_key_says_why():
    (group,) = only(latency([run("a"), run("b", record(reasons=("throttled",)))]), Group)
    charts = group.blocks[0]
    assert [line.style for line in charts.charts[0].lines] == [0, None]
    assert [(key.text, key.muted) for key in charts.legend] == [("a", False), ("b (invalid)", True)]


def test_many_samples_take_no_more_room_than_few():
    (group,) = only(latency([run("a", record(samples_ms=tuple(1 + number % 7 for number in range(5000))))]), Group)
    charts = [block for block in group.blocks if isinstance(block, Charts)]
    assert all(len(line.points) <= 160 for chart in charts[0].charts for line in chart.lines)
