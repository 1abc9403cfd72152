"""Small pieces of HTML that the generated pages share."""

from __future__ import annotations

from collections.abc import Sequence

from descent.claims import Verdict

SIGNS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.INCONCLUSIVE: "?", Verdict.NOT_TESTED: "–"}


def kind(verdict: Verdict) -> str:
    """Return the class by which the style sheet colours a verdict."""
    return verdict.replace(" ", "-")


def badge(verdict: Verdict) -> str:
    """Return a verdict as sign and words; colour only repeats them."""
    return f'<span class="verdict {kind(verdict)}"><span aria-hidden="true">{SIGNS[verdict]}</span> {verdict}</span>'


def table(kind: str, label: str, caption: str, columns: Sequence[str], bodies: str) -> str:
    """Return a table in a box that scrolls where the page is narrow."""
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}">\n<table class="{kind}">\n'
        f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n{bodies}\n</table>\n</div>"
    )


def raw(html: str) -> str:
    """Return HTML as a Markdown directive that passes it through."""
    return f"```{{raw}} html\n{html}\n```"
