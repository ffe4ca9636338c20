from __future__ import annotations

import pytest

from svitkit.report.chart import BOTTOM, LEFT, RIGHT, SHAPES, STYLES, TOP, Band, Chart, Line, Mark, draw
from svitkit.report.labels import place_labels
from svitkit.report.scale import Scale

AXIS = Scale(title="x", low=0.0, high=10.0, log=False, ticks=(0.0, 5.0, 10.0))


def chart(**parts: object) -> Chart:
    return Chart(title="title", description="description", x=AXIS, y=AXIS, **parts)


def test_a_mark_lies_where_its_values_are():
    drawing = draw(chart(marks=[Mark(x=0.0, y=10.0, style=0), Mark(x=10.0, y=0.0, style=1)]))
    marks = [path for path in drawing.paths if path.css.startswith("mark")]
    assert [(path.x, path.y) for path in marks] == [(LEFT, TOP), (RIGHT, BOTTOM)]
    assert [path.data for path in marks] == list(SHAPES[:2])


def test_methods_differ_in_shape_as_long_as_there_are_shapes():
    assert len(set(SHAPES)) == len(SHAPES) == STYLES


def test_an_invalid_mark_is_crossed_out_and_has_no_colour():
    drawing = draw(chart(marks=[Mark(x=5.0, y=5.0, style=3, muted=True, x_range=(4.0, 6.0))]))
    own = [path.css for path in drawing.paths if "muted" in path.css]
    assert own == ["error muted", "mark muted", "error muted"]
    assert not any("s3" in path.css for path in drawing.paths)


def test_error_bars_reach_from_end_to_end():
    drawing = draw(chart(marks=[Mark(x=5.0, y=5.0, style=0, x_range=(0.0, 10.0), y_range=(0.0, 10.0))]))
    (bars,) = (path.data for path in drawing.paths if path.css.startswith("error"))
    assert bars.startswith(f"M{LEFT},119.0H{RIGHT}")
    assert f",{BOTTOM}V{TOP}" in bars


def test_lines_and_bands_go_through_their_points():
    drawing = draw(
        chart(
            lines=[Line(points=[(0.0, 0.0), (10.0, 10.0)], dashed=True)],
            bands=[Band(points=[(0.0, 0.0, 10.0), (10.0, 0.0, 10.0)], style=2)],
        )
    )
    band, line = (path for path in drawing.paths if path.css.startswith(("line", "band")))
    assert line.data == f"M{LEFT},{BOTTOM}L{RIGHT},{TOP}"
    assert band.data == f"M{LEFT},{TOP}L{RIGHT},{TOP}L{RIGHT},{BOTTOM}L{LEFT},{BOTTOM}Z"
    assert "dashed" in line.css


def test_every_tick_is_written():
    texts = [text.text for text in draw(chart()).texts]
    assert texts == ["0", "5", "10"] * 2


def test_names_of_points_close_together_cover_neither_points_nor_each_other():
    points = [(100.0, 100.0), (104.0, 103.0), (98.0, 95.0)]
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    places = place_labels([(x, y, "a-long-name") for x, y in points], boxes, (0.0, 0.0, 400.0, 300.0))
    taken = boxes + [place.box for place in places]
    for number, box in enumerate(taken[3:], start=3):
        for other in taken[:number]:
            apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            assert apart, (box, other)


@pytest.mark.parametrize("corner", [(2.0, 2.0), (398.0, 2.0), (2.0, 298.0), (398.0, 298.0)])
def test_a_name_stays_in_the_frame(corner):
    (place,) = place_labels([(*corner, "a-name")], [], (0.0, 0.0, 400.0, 300.0))
    assert place.box[0] >= 0
    assert place.box[2] <= 400
    assert place.box[1] >= -1
    assert place.box[3] <= 304
