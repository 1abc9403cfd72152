"""What axe-core says of a page, in the views that readers have of it."""

from __future__ import annotations

import contextlib

import pytest

VIEWS = pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
KINDS = ("index", "saddles", "ledger")
"""One page of each kind: what a phone alone shows, the frame of a page, has the same colours on all others."""
COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that ask for colours: all that the theme of a page can change."""

LOOKS = """() => {
    const kinds = ':is(p, li, tr, dt, dd, pre)', seen = new Set(), shown = node => node.checkVisibility();
    const ground = node => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour !== 'rgba(0, 0, 0, 0)' || !node.parentElement ? colour : ground(node.parentElement);
    };
    const look = node => {
        const own = getComputedStyle(node), around = getComputedStyle(node.parentElement);
        const told = ['color', 'backgroundImage', 'opacity', 'fontSize', 'fontWeight', 'textDecorationLine'];
        return [ground(node), around.color, ...told.map(name => own[name])].join();
    };
    const worded = node => [...node.childNodes].some(one => one.nodeType === 3 && one.data.trim());
    const alike = block => {
        const looks = [block, ...block.querySelectorAll('*')].filter(node => worded(node) && shown(node)).map(look);
        const known = looks.length > 0 && looks.every(one => seen.has(one));
        looks.forEach(one => seen.add(one));
        return known;
    };
    const hidden = node => !shown(node) && shown(node.parentElement);
    const taken = [...document.querySelectorAll('article :not(style, script, link, svg *)')].filter(hidden);
    taken.push(...[...document.querySelectorAll(`${kinds}:not(:has(${kinds}))`)].filter(shown).filter(alike));
    return taken.map(node => {
        const place = document.createComment('');
        node.replaceWith(place);
        return [place, node];
    });
}"""
"""Takes out what is hidden, and the paragraphs and rows of which every word looks like words before: colours, ground,
size and weight. Returns what `BACK` puts back. To hide them is not enough: axe goes through what is hidden, too.
"""
SETTLED = """() => {
    document.getAnimations().filter(one => one.effect.getComputedTiming().endTime < 1 / 0).forEach(one => one.finish());
    const wide = node => node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight;
    const nodes = [...document.querySelectorAll('pre, .cell_output > .output')];
    return nodes.every(node => node.tabIndex === 0 || !wide(node));
}"""
"""Ends what fades in, and says whether what scrolls can be reached by keys: the theme sees to it a while after the
width has changed, and on a busy machine that while is long.
"""
BACK = "taken => taken.forEach(([place, block]) => place.replaceWith(block))"


def colours(page):
    """Return what is wrong with colours, each look of words asked for once: a page has some forty."""
    taken = page.evaluate_handle(LOOKS)
    found = serious(page, only=COLOURS)
    taken.evaluate(BACK)
    return found


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
    from playwright.sync_api import TimeoutError

    page = shown.page
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    page.eval_on_selector_all("article details", "all => all.slice(0, 3).forEach(node => { node.open = true; })")
    with contextlib.suppress(TimeoutError):  # axe says what cannot be reached
        page.wait_for_function(SETTLED, polling=100, timeout=20_000)
    narrow = width == 360 and shown.name not in KINDS  # the colours of the text, which take longest, in a wide window
    found = [] if theme == "dark" else serious(page, COLOURS[:1] if narrow else COLOURS)
    found += [] if narrow else colours(page)  # last: what it takes out has the theme look at what scrolls anew
    assert not found, "\n".join(found)  # in words: pytest explains asserts of test files alone
