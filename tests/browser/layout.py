"""Where things stand on a page, in numbers that another font does not move: python tests/browser/layout.py.

A print of a page at one width holds the columns of the page in pixels; where its title begins; for every kind of block
of the article the places where such blocks begin and end, in per cent of the article's width; and what lies over
something else, outside, or below a hole. Words may change and pictures come and go without moving any of it.
"""

from __future__ import annotations

import json
import threading
from itertools import product
from pathlib import Path

FILE = Path(__file__).with_name("layout.json")
PAGES = ("index", "saddles", "smoothing", "flatness", "synthesis", "ledger", "measure", "status")
WIDTHS = (1280, 390)
NEAR = {"columns": 4.0, "blocks": 1.5, "title": 24.0}
"""Pixels, per cent of the article, pixels: a scroll bar, a rounding, a line of another font."""

PRINT = """() => {
    const kinds = { h1: "h1", h2: "h2", text: "section > p", code: "div.highlight pre", explorer: ".explorer",
        note: ".admonition", wide: ".wide", figure: "figure", table: ".pst-scrollable-table-container" };
    const columns = { side: ".bd-sidebar-primary", article: "article.bd-article", contents: ".bd-sidebar-secondary",
        header: ".bd-header-article", footer: ".prev-next-footer" };
    const shown = (node) => node && node.getClientRects().length && getComputedStyle(node).visibility !== "hidden";
    const article = document.querySelector(columns.article), frame = article.getBoundingClientRect();
    const share = (x) => Math.round((1000 * (x - frame.left)) / frame.width) / 10;
    const top = article.querySelector("h1").getBoundingClientRect().top;
    const found = { title: Math.round(top), columns: {}, blocks: {}, faults: [] };
    for (const [name, selector] of Object.entries(columns)) {
        const node = document.querySelector(selector);
        if (!shown(node)) continue;
        const box = node.getBoundingClientRect();
        if (box.right > 0 && box.left < innerWidth) found.columns[name] = [box.left, box.right].map(Math.round);
    }
    for (const [name, selector] of Object.entries(kinds)) {
        const nodes = [...article.querySelectorAll(selector)].filter(shown).filter((node) => !node.closest("details"));
        const boxes = nodes.map((node) => node.getBoundingClientRect());
        if (!boxes.length) continue;
        const kept = new Set(boxes.map((box) => [share(box.left), share(box.right)].join()));
        found.blocks[name] = [...kept].map((text) => text.split(",").map(Number));
        if (boxes.some((box) => box.right > innerWidth + 1 || box.left < -1)) found.faults.push(`${name} outside`);
    }
    for (const section of [article, ...article.querySelectorAll("section")]) {
        const rows = [...section.children].filter(shown).filter((node) => getComputedStyle(node).float === "none")
            .map((node) => [node.getBoundingClientRect(), node.tagName.toLowerCase()]);
        for (let i = 1; i < rows.length; i += 1) {
            const [above, below] = [rows[i - 1], rows[i]];
            if (below[0].top - above[0].bottom > 160) found.faults.push(`a hole above ${below[1]}`);
            if (below[0].top < above[0].bottom - 3 && below[0].bottom > above[0].top + 3
                && below[0].left < above[0].right && below[0].right > above[0].left) {
                found.faults.push(`${below[1]} over ${above[1]}`);
            }
        }
    }
    return found;
}"""


def moved(kept, found):
    """Return what stands elsewhere than it was kept, in words."""
    said = sorted(set(found["faults"]))
    for name in sorted(kept["columns"].keys() | found["columns"].keys()):
        places = [each["columns"].get(name) for each in (kept, found)]
        if None in places or _far(*places, NEAR["columns"]):
            said.append(f"column {name}: {places[0]} px kept, now {places[1]}")
    for name, now in found["blocks"].items():
        known = kept["blocks"].get(name, now)  # a page may get its first table without being another layout
        said += [
            f"{name}: at {place} % of the article, kept are {known}"
            for place in now
            if all(_far(place, other, NEAR["blocks"]) for other in known)
        ]
    if _far([kept["title"]], [found["title"]], NEAR["title"]):
        said.append(f"title: {kept['title']} px from the top kept, now {found['title']}")
    return said


def _far(place, other, near):
    return any(abs(a - b) > near for a, b in zip(place, other, strict=True))


def main():
    """Take every print anew."""
    from conftest import ARGUMENTS, STANDING, installed
    from descent.book.commands.cli import server
    from descent.book.sources.project import find_project
    from playwright.sync_api import sync_playwright

    project, prints = find_project(Path(__file__).parent), {}
    with server(project, "127.0.0.1", 0, quiet=True) as site, sync_playwright() as playwright:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=installed(), args=ARGUMENTS)
        for name, width in product(PAGES, WIDTHS):
            page = browser.new_page(viewport={"width": width, "height": 900}, reduced_motion="reduce")
            page.goto(f"http://127.0.0.1:{site.server_port}/{name}.html")
            page.evaluate(STANDING)
            prints[f"{name} {width}"] = page.evaluate(PRINT)
            page.close()
        browser.close()
        site.shutdown()
    rows = ",\n".join(f" {json.dumps(name)}: {json.dumps(found)}" for name, found in prints.items())
    FILE.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
