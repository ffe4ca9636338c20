"""Reports in a real browser: what it says about errors, requests, accessibility, room and colours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from svitkit.report.runs import Runs
from svitkit.report.write import write_report
from svitkit.runtime.bench.record import BenchRecord
from tests.report.records import MANIFEST, SPEC, Artefacts, decisions, record, run, with_load

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
GRAPHICS_CONTRAST, TEXT_CONTRAST = 3.0, 4.5  # WCAG 2.2, AA: 1.4.11 and 1.4.3

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (scripts/install_chromium)")

Page = playwright.Page
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # root's Chromium has no sandbox
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything: two boards and an emulator, nine methods, drift, profiles, and an intruder."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    artefacts = Artefacts(manifest=MANIFEST, spec=SPEC, decisions=decisions("svitkit"))
    runs = [run(f"method-{number}", _measured(number), artefacts if number < 2 else None) for number in range(9)]
    runs += [run("method-0", with_load(record(board="jetson-orin-nano")))]
    runs += [run("method-0", record(board="rock-5b", samples_ms=(1.0,) * 100 + (1.1,) * 100))]
    runs += [run("method-0", record(board="qemu-cortex-a53", emulated=True, profile=True))]
    runs += [run(HOSTILE, record(reasons=(HOSTILE, "the CPU was throttled"), device=HOSTILE, profile=True))]
    write_report(Runs(runs=tuple(runs), remarks=(f"remark {HOSTILE}",)), path)
    return path


def _measured(number: int) -> BenchRecord:
    return record(
        accuracy=90.0 + number,
        peak_kib=2000 + 300 * number,
        samples_ms=(0.1 * 2**number,) * 70,
        profile=not number,
    )


@pytest.fixture
def open_page(browser: playwright.Browser, report: Path) -> Iterator[Open]:
    """Opens the report, and fails in the end if the page asked for anything or complained."""
    contexts, said = [], []

    def start(viewport: dict[str, int] = DESKTOP, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: said.append(f"request: {request.url}"))
        page.goto(report.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert said == [f"request: {report.as_uri()}"] * len(contexts)


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


def test_the_page_asks_for_nothing_and_runs_nothing_that_a_record_says(open_page: Open):
    page = open_page()
    assert page.evaluate("window.broken") is None
    assert page.locator("script, img, iframe, link").count() == 0
    assert page.get_by_text("window.broken = 1").count() > 0


def test_the_policy_of_the_page_stops_what_would_get_in(browser: playwright.Browser, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    stopped = page.evaluate(
        """() => new Promise(resolve => {
            const stopped = [];
            document.addEventListener('securitypolicyviolation', event => {
                stopped.push(event.effectiveDirective);
                if (stopped.length === 3) resolve(stopped);
            });
            const add = (name, change) => {
                const element = document.createElement(name);
                change(element);
                document.body.append(element);
            };
            add('script', element => element.textContent = 'window.broken = 1');
            add('img', element => element.src = 'picture.png');
            add('style', element => element.textContent = 'body { display: none }');
        })"""
    )
    assert sorted(stopped) == ["img-src", "script-src-elem", "style-src-elem"]
    assert page.evaluate("window.broken") is None
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_against_the_page(scheme: str, open_page: Open):
    page = open_page(scheme=scheme)
    unfold(page)
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["impact"], each["nodes"][0]["html"][:200]) for each in found] == []


def test_landmarks_headings_charts_and_tables_have_their_names(open_page: Open):
    page = open_page()
    tree = page.locator("body").aria_snapshot()
    for landmark in ("banner", 'navigation "Sections"', "main", "contentinfo", 'region "Runs"'):
        assert f"- {landmark}:" in tree
    assert 'img "Accuracy over latency, raspberry-pi-4"' in tree
    assert 'table "Every run"' in tree
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_an_invalid_run_says_so_in_words_and_shape_not_by_its_colour_alone(open_page: Open):
    row = open_page().locator("tr.muted").first
    assert "INVALID" in row.inner_text()
    assert "the CPU was throttled" in row.inner_text()
    chart = row.page.locator("figure svg").first
    assert "(invalid)" in chart.text_content()
    assert chart.locator("path.error.muted").count() >= 1


@pytest.mark.parametrize(
    "viewport", [PHONE, {"width": 320, "height": 640}, DESKTOP], ids=["phone", "narrow", "desktop"]
)
def test_the_page_is_never_wider_than_the_screen(viewport: dict[str, int], open_page: Open):
    page = open_page(viewport)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('p, h1, h2, h3, figure, summary, .scroll')]"
        ".map(each => each.getBoundingClientRect().right))"
    )
    assert widest <= viewport["width"]


def test_text_in_charts_is_large_enough_on_a_phone_and_stays_in_the_picture(open_page: Open):
    page = open_page(PHONE)
    assert (
        page.evaluate(
            "Math.min(...[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect().height))"
        )
        >= 11
    )
    outside = page.evaluate(
        """[...document.querySelectorAll('figure text')].filter(text => {
            const own = text.getBoundingClientRect(), all = text.closest('svg').getBoundingClientRect();
            return own.left < all.left || own.right > all.right || own.top < all.top || own.bottom > all.bottom;
        }).map(text => text.textContent)"""
    )
    assert outside == []


def test_sentences_in_tables_are_no_towers_of_words_on_a_phone(open_page: Open):
    page = open_page(PHONE)
    unfold(page)
    shapes = page.locator("td.prose").evaluate_all("all => all.map(each => [each.offsetWidth, each.offsetHeight])")
    assert shapes
    assert all(width >= 200 for width, _ in shapes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_can_be_told_from_their_background(scheme: str, open_page: Open):
    page = open_page(scheme=scheme)
    panel = rgb(page.evaluate("getComputedStyle(document.querySelector('figure svg')).backgroundColor"))
    colours = {
        kind: page.evaluate(
            "([css, property]) => [...new Set([...document.querySelectorAll('figure ' + css)]"
            ".map(each => getComputedStyle(each)[property]))]",
            [css, painted],
        )
        for kind, css, painted in (("text", "text", "fill"), ("mark", ".mark", "stroke"), ("line", ".line", "stroke"))
    }
    assert len(colours["mark"]) == 9  # eight methods, and grey
    assert all(contrast(rgb(colour), panel) >= TEXT_CONTRAST for colour in colours["text"])
    assert all(
        contrast(rgb(colour), panel) >= GRAPHICS_CONTRAST for kind in ("mark", "line") for colour in colours[kind]
    )


def test_the_dark_page_is_dark_and_the_light_one_light(open_page: Open):
    light, dark = (
        luminance(rgb(open_page(scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")))
        for scheme in ("light", "dark")
    )
    assert light > 0.9
    assert dark < 0.05


def test_details_open_by_keyboard(open_page: Open):
    page = open_page()
    fold = page.locator("details").last
    fold.locator("summary").focus()
    assert not fold.locator("table").is_visible()
    page.keyboard.press("Enter")
    assert fold.locator("table").is_visible()


def test_the_page_prints_what_is_folded(browser: playwright.Browser, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.locator("details:not([open]) table").first.evaluate("each => each.checkVisibility()")
    page.close()


@pytest.mark.parametrize(("name", "viewport", "scheme"), [("desktop", DESKTOP, "light"), ("phone", PHONE, "dark")])
def test_a_picture_of_the_page_can_be_taken(
    name: str, viewport: dict[str, int], scheme: str, open_page: Open, tmp_path
):
    from PIL import Image

    path = tmp_path / f"{name}.png"
    open_page(viewport, scheme).screenshot(path=path, full_page=True)
    with Image.open(path) as picture:
        assert picture.width == viewport["width"]
        assert picture.height > viewport["height"]
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 20


def rgb(text: str) -> tuple[float, ...]:
    """Reads ``rgb(r, g, b)``."""
    return tuple(float(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3])


def luminance(colour: tuple[float, ...]) -> float:
    """WCAG's relative luminance of sRGB."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG's ratio of two colours, 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
