"""A report as one HTML file that needs nothing else, and lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from svitkit import __version__
from svitkit.report.blocks import Section
from svitkit.report.chart import draw, shape

TITLE = "svitkit report"


def render_page(sections: Sequence[Section], *, summary: str, remarks: Sequence[str]) -> str:
    """Writes a report as HTML; the same report gives the same text.

    Whatever stands in a record is escaped. The page's own policy forbids scripts, forms, and every resource, from the
    network and from files; the one style sheet is named by its hash.

    Args:
        sections: at least one.
        summary: what the report is about, in a sentence.
        remarks: what could not be used.
    """
    templates = _templates()
    loader = templates.loader
    assert loader is not None
    css, _, _ = loader.get_source(templates, "report.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return templates.get_template("report.html.jinja").render(
        title=TITLE,
        version=__version__,
        css=Markup(css),  # a file of this package
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        sections=sections,
        summary=summary,
        remarks=remarks,
        next_id=count(1).__next__,
    )


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("svitkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"draw": draw, "shape": shape, "kind": lambda block: type(block).__name__}
    return templates
