"""Eight pages at two widths stand as they stood; a column, block, title or hole elsewhere is named."""

from __future__ import annotations

import json
from itertools import product

import pytest
from layout import FILE, PAGES, PRINT, WIDTHS, moved

pytestmark = [pytest.mark.browser, pytest.mark.slow]
KEPT = json.loads(FILE.read_text(encoding="utf-8"))


def look(tab, name, width, style=""):
    page = tab(width=width, reduced_motion="reduce").open(f"{name}.html")
    if style:
        page.add_style_tag(content=style)
    return page.evaluate(PRINT)


@pytest.mark.parametrize(("name", "width"), list(product(PAGES, WIDTHS)))
def test_a_page_stands_as_it_stood(tab, name, width):
    assert moved(KEPT[f"{name} {width}"], look(tab, name, width)) == [], "if meant: python tests/browser/layout.py"


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        (".bd-sidebar-primary { width: 300px !important; flex-basis: 300px !important }", "column side"),
        ("h2 { margin-left: 40px !important }", "h2: at"),
        ("figure { transform: translateX(30px) }", "figure: at"),
        ("article.bd-article { padding-top: 60px !important }", "title"),
        (".admonition { margin-bottom: 300px !important }", "a hole above"),
        ("section > p { margin-bottom: -30px !important }", "over p"),
        (".explorer { width: 140% !important }", "explorer"),
    ],
)
def test_a_moved_layout_is_named(tab, planted, named):
    said = moved(KEPT["saddles 1280"], look(tab, "saddles", 1280, planted))
    assert any(named in one for one in said), said


def test_another_font_is_no_other_layout(tab):
    style = "* { font-family: serif !important; line-height: 1.8 !important }"
    for width in WIDTHS:
        assert moved(KEPT[f"saddles {width}"], look(tab, "saddles", width, style)) == []
