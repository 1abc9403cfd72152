"""What axe-core says of a page, in the views that readers have of it."""

from __future__ import annotations

import pytest

VIEWS = pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
KINDS = ("index", "saddles", "ledger")
"""One page of each kind: what a phone alone shows, the frame of a page, has the same colours on all others."""
COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that ask for colours: all that the theme of a page can change."""


def serious(page, without=(), only=()):
    """Return the violations that keep somebody out, each with its first place: of all rules but some, or of those."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {rule: {"enabled": False} for rule in ("region", *without)}  # that one is never more than moderate
    asked = {"runOnly": {"type": "rule", "values": list(only)}} if only else {"rules": rules}
    options = {"resultTypes": ["violations"], **asked}  # not what is as it should be, which fills megabytes
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


def check(shown, theme, width):
    """Refuse an open page in which something serious is wrong, seen so."""
    page = shown.page
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    page.eval_on_selector_all("article details", "all => all.slice(0, 3).forEach(node => { node.open = true; })")
    page.wait_for_timeout(600)  # what opens fades in
    seen = width == 360 and shown.name not in KINDS  # the colours of the text, which take longest, in a wide window
    assert serious(page, COLOURS[:1] if seen else [], COLOURS if theme == "dark" else []) == []
