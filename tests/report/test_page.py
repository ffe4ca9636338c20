from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest

from svitkit.report.flat import flat_rows, render_csv
from svitkit.report.markdown import escape, render_markdown
from svitkit.report.page import render_page
from svitkit.report.runs import Runs
from svitkit.report.sections import make_sections
from svitkit.report.write import summarize, write_report
from tests.report.records import MANIFEST, SPEC, Artefacts, decisions, record, run

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
ARTEFACTS = Artefacts(manifest=MANIFEST, spec=SPEC, decisions=decisions(HOSTILE))


def hostile_runs() -> list:
    return [
        run(HOSTILE, record(profile=True, reasons=(HOSTILE,), device=HOSTILE, board=HOSTILE), ARTEFACTS),
        run("plain"),
        run("plain", record(board="qemu-cortex-a53", emulated=True)),
    ]


def page(runs: list | None = None) -> str:
    found = runs or hostile_runs()
    return render_page(make_sections(found), summary=summarize(found), remarks=(f"remark {HOSTILE}",))


class Reader(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed by its own end."""

    VOID = ("meta", "path", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_what_stands_in_a_record_never_becomes_an_element_or_an_attribute():
    reader = read(page())
    assert not {"script", "img", "iframe", "link", "object"} & set(reader.tags)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on") or name == "style"]
    assert HOSTILE not in page()
    assert "&lt;script&gt;alert(" in page()


def test_the_page_names_no_place_outside_itself():
    found = [(name, value) for _, name, value in read(page()).attributes if name in ("href", "src", "action")]
    assert found
    assert all(name == "href" and (value or "").startswith("#") for name, value in found)
    assert "url(" not in page()
    assert "@import" not in page()


def test_every_link_and_every_reference_has_its_target_and_ids_are_unique():
    attributes = read(page()).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [part for _, name, value in attributes if name == "aria-labelledby" for part in (value or "").split()]
    linked = [(value or "").removeprefix("#") for _, name, value in attributes if name == "href"]
    assert set(named + linked) <= set(ids)


def test_the_policy_forbids_everything_but_the_one_style_sheet():
    (policy,) = (value for _, name, value in read(page()).attributes if name == "content" and "default-src" in value)
    (css,) = re.findall(r"<style>(.*?)</style>", page(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_the_same_runs_make_the_same_page():
    assert page() == page()


def test_every_table_has_a_caption_and_headings_with_their_scope():
    reader = read(page())
    assert reader.tags.count("table") == reader.tags.count("caption") > 0
    scopes = [value for tag, name, value in reader.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == reader.tags.count("th")
    assert set(scopes) == {"col", "row"}


def test_markdown_keeps_text_of_records_in_its_cell():
    found = hostile_runs()
    text = render_markdown(make_sections(found), title="svitkit report", summary=summarize(found), remarks=())
    tags = re.findall(r"<.*?>", text)
    assert set(tags) == {"<details>", "</details>", "<summary>", "</summary>"}
    widths: dict[str, set[int]] = {}
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = [len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()]
            widths[block[:40]] = set(rows)
    assert widths
    assert all(len(counts) == 1 for counts in widths.values())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a|b", r"a\|b"), ("a\nb", "a b"), ("<b>&", "&lt;b&gt;&amp;"), ("`x` [y](z)", r"\`x\` \[y\](z)")],
)
def test_markup_of_markdown_is_escaped(text, escaped):
    assert escape(text) == escaped


def test_the_flat_table_reads_back_with_a_row_a_run_and_empty_cells_for_what_was_not_measured():
    rows = list(csv.DictReader(io.StringIO(render_csv(flat_rows([run("a"), run("b", record(accuracy=None))])))))
    assert [(row["method"], row["accuracy_percent"], row["p50_ms"]) for row in rows] == [
        ("a", "95.0", "1.0"),
        ("b", "", "1.0"),
    ]
    assert rows[0]["p99_ms"] == ""
    assert rows[0]["vm_hwm_bytes"] == str(4096 * 1024)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_text_of_a_record_is_a_formula_in_a_spreadsheet(name):
    (row,) = csv.DictReader(io.StringIO(render_csv(flat_rows([run(name)]))))
    assert row["method"] == f"'{name}"


def test_only_the_files_that_were_asked_for_are_written(tmp_path):
    write_report(Runs(runs=(run(),)), tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    write_report(Runs(runs=(run(),)), tmp_path / "r.html", markdown=tmp_path / "r.md", csv=tmp_path / "r.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.html", "r.md"]


def test_the_summary_counts_runs_methods_and_boards():
    assert summarize([run("a"), run("b"), run("a", record(board="qemu", emulated=True))]) == (
        "3 runs of 2 methods on 2 boards, measured 2026-01-02; qemu emulated."
    )
    assert summarize([run("a")]) == "1 run of 1 method on 1 board, measured 2026-01-02."
