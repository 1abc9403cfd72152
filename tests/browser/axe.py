"""What axe-core says of a page, in the views that readers have of it."""

from __future__ import annotations

import contextlib

import pytest

VIEWS = pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
KINDS = ("index", "saddles", "ledger")
"""One page of each kind: what a phone alone shows, the frame of a page, has the same colours on all others."""
COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that ask for colours: all that the theme of a page can change."""

HIDDEN = """() => [...document.querySelectorAll('body :not(style, script, link, svg *)')].filter(
    node => !node.checkVisibility() && node.parentElement.checkVisibility())"""
"""What is hidden, by its outermost nodes: nobody meets it, and axe goes through it node by node."""
ALIKE = """() => {
    const kinds = ':is(h3, p, li, tr, dt, dd, summary, pre span)';
    const seen = new Set(), shown = node => node.checkVisibility();
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
    return [...document.querySelectorAll(`${kinds}:not(:has(${kinds}))`)].filter(shown).filter(alike);
}"""
"""Paragraphs, rows and pieces of code of which every word looks like words before: colours, ground, size and weight."""
TAKEN = """nodes => nodes.map(node => {
    const place = document.createComment('');
    node.replaceWith(place);
    return [place, node];
})"""
BACK = "taken => taken.forEach(([place, node]) => place.replaceWith(node))"
TWICE = """() => {
    const names = [...document.querySelectorAll('[id]')].map(node => node.id);
    return names.filter((name, i) => names.indexOf(name) < i).map(name => `two nodes are named ${name}`);
}"""
"""The names that two nodes have: also of hidden ones, which axe does not see."""
SETTLED = """() => {
    document.getAnimations().filter(one => one.effect.getComputedTiming().endTime < 1 / 0).forEach(one => one.finish());
    const scrolls = node => node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight;
    const nodes = [...document.querySelectorAll('pre, .cell_output > .output')].filter(node => node.checkVisibility());
    return nodes.every(node => node.tabIndex === 0 || !scrolls(node));
}"""
"""Ends what fades in, and says whether what scrolls can be reached by keys: the theme sees to it a while after the
width has changed, and on a busy machine that while is long.
"""


@contextlib.contextmanager
def without_nodes(page, chosen):
    """Take the nodes that a script chooses out of the page for a while: to hide them is not enough for axe."""
    taken = page.evaluate_handle(f"() => ({TAKEN})(({chosen})())")
    try:
        yield
    finally:
        taken.evaluate(BACK)


def colours(page):
    """Return what is wrong with colours, each look of words asked for once: a page has some forty."""
    with without_nodes(page, ALIKE):
        return serious(page, only=COLOURS)


def serious(page, without=(), only=()):
    """Return the violations that keep somebody out, each with its first place: of all rules but some, or of those."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {rule: {"enabled": False} for rule in ("region", *without)}  # that one is never more than moderate
    asked = {"runOnly": {"type": "rule", "values": list(only)}} if only else {"rules": rules}
    options = {"resultTypes": ["violations"], **asked}  # not what is as it should be, which fills megabytes
    with without_nodes(page, HIDDEN):
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
    found += page.evaluate(TWICE)
    found += [] if narrow else colours(page)  # last: what it takes out has the theme look at what scrolls anew
    assert not found, "\n".join(found)  # in words: pytest explains asserts of test files alone
