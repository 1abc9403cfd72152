"""Whose learning rate a chapter writes: a badge below its title, a word in its captions, and a check of its symbols.

η is heavy ball's in the whole book and η̄ a running average's. A chapter speaks of heavy ball unless it says otherwise
in a comment of its source, <!-- convention: average --> or <!-- convention: both -->.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from descent.book.sources.project import Project

__all__ = ["CONVENTIONS", "Convention", "badge", "convention", "faults", "told"]


@dataclass(frozen=True)
class Convention:
    """A convention as the badge tells it, in HTML, and as a caption does, in Markdown."""

    badge: str
    caption: str


_HEAVY = "<b>η: heavy ball</b>, v ← μv + g, x ← x − ηv; effective step η/(1 − μ)"
_AVERAGE = "<b>η̄: running average</b>, v ← μv + (1 − μ)g, x ← x − η̄v; effective step η̄"

_BEFORE = "<b>η: the rate of a rule with a nonlinear map</b>, m ← μm + (1 − μ)g, x ← x − ηφ(m); the step is measured"

CONVENTIONS = {
    "heavy ball": Convention(_HEAVY, "Rates are heavy ball's, $\\eta$."),
    "average": Convention(_AVERAGE, "Rates are the running average's, $\\bar\\eta$."),
    "normalised": Convention(f"{_BEFORE} · {_HEAVY}", "Rates are each rule's own, $\\eta$."),
    "both": Convention(
        f"two conventions · {_HEAVY} · {_AVERAGE}",
        "Rates are $\\eta$ for plain descent and heavy ball, $\\bar\\eta$ for the running average.",
    ),
}
MARK = re.compile(r"^<!-- convention: (.+) -->\n", re.M)
NOTATION = "notation"
"""The page on which the conventions stand."""

_CAPTION = "    caption: "
_HEAVY_RATE, _AVERAGE_RATE = re.compile(r"(?<!\\bar)\\eta(?![a-zA-Z])"), re.compile(r"\\bar\\eta(?![a-zA-Z])")
_HEAVY_NAMED = re.compile(r"heavy[ -]ball|\bSHB|\bSGD|plain|PyTorch", re.I)
_AVERAGE_NAMED = re.compile(r"(?<!on )averag|NSHB|EMA\b|quasi-hyperbolic", re.I)
_RATES = re.compile(r"\\eta|learning rate|(?:equal|effective|same|large|small(?:er)?|the) step", re.I)


def convention(text: str) -> str:
    """Return the name of the convention that a chapter's source declares, heavy ball without a declaration."""
    found = MARK.search(text)
    return found[1] if found else "heavy ball"


def badge(project: Project, text: str) -> str:
    """Return the line that tells a chapter's convention, in HTML; nothing where it writes no learning rate."""
    if NOTATION not in project.pages or not re.search(r"\\eta(?![a-zA-Z])", text):
        return ""
    said = CONVENTIONS[convention(text)].badge
    return f'<p class="convention"><a href="{NOTATION}.html#conventions">convention</a> {said}</p>'


def told(caption: str, name: str) -> str:
    """Return a caption that says whose rates it speaks of, if it speaks of any and does not say so yet."""
    average, heavy = bool(_AVERAGE_NAMED.search(caption)), bool(re.search(r"heavy[ -]ball|\bSHB", caption, re.I))
    said = {"average": average, "heavy ball": heavy or average, "normalised": True, "both": heavy and average}[name]
    if said or not _RATES.search(caption):
        return caption
    return f"{caption.rstrip()} {CONVENTIONS[name].caption}"


def faults(project: Project) -> list[str]:
    """Return where a chapter declares what is no convention, or writes a rate of the other one without naming it."""
    found = []
    for page in project.notebooks:
        text = project.texts[page]
        name = convention(text)
        if name not in CONVENTIONS:
            found.append(f"{page}.md: <!-- convention: {name} --> is none; write {' or '.join(CONVENTIONS)}")
            continue
        found += [f"{page}.md:{number}: {why}" for number, why in _misplaced(text, name)]
    return found


def _misplaced(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines whose symbol is not that of the rule they speak of, and what to do."""
    for number, written in enumerate(text.splitlines(), start=1):
        line = told(written, name) if written.startswith(_CAPTION) else written
        heavy, average = _HEAVY_NAMED.search(line), _AVERAGE_NAMED.search(line)
        bare = _HEAVY_RATE.search(line)
        if bare and not heavy and (average or name == "average"):
            yield number, r"\eta is heavy ball's rate; write \bar\eta for the average's, or name heavy ball here"
        if _AVERAGE_RATE.search(line) and not average and name == "heavy ball":
            yield number, r"\bar\eta is an average's rate, in a chapter of heavy ball's; name the average here"
