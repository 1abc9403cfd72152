"""Intervals in prose, few enough to be read: one in a paragraph, the next some way below, all others on hovering."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from descent.book.pages.quoting import QUOTE

WORDS_APART = 150
"""Words between two intervals that are written out: a screen holds twice as many, so that it shows two."""
INTERVAL = re.compile(r"(?P<value>−?\d[\d.,]*(?:e[−+]?\d+)?) \[(?P<low>−?[^\s,\]]+), (?P<high>−?[^\s,\]]+)\]")


@dataclass
class Sparing:
    """How far above a place the last interval of its page stands, in words; a figure or code counts as many."""

    words: int = WORDS_APART

    def past(self, words: int = WORDS_APART) -> None:
        """Note what lies between two texts."""
        self.words += words

    def text(self, text: str, quoted: Mapping[str, str]) -> str:
        """Return a text whose quotes are as the reader shall see them: with the interval, or with it on hovering."""
        parts = re.split(r"(\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) ))", text)
        return "".join(self._paragraph(part, quoted) for part in parts)

    def _paragraph(self, text: str, quoted: Mapping[str, str]) -> str:
        said: list[str] = []
        last, written = 0, False
        for found in QUOTE.finditer(text):
            before = text[last : found.start()]
            self.words += len(before.split())
            full = quoted.get(found[1], "")
            wide = INTERVAL.search(full)
            keep = wide is None or (not written and self.words >= WORDS_APART)
            said += [before, found[0] if keep else hovering(full)]
            if wide and keep:
                written, self.words = True, 0
            last = found.end()
        self.words += len(text[last:].split())
        return "".join([*said, text[last:]])


def hovering(full: str) -> str:
    """Return a quoted number as short as it may be, its interval on hovering."""
    short = INTERVAL.sub(lambda found: _short(*found.groups()), full)
    return f'<abbr title="{escape(full)}">{escape(short)}</abbr>'


def _short(value: str, low: str, high: str) -> str:
    """Return a number with two digits, or with as many more as it takes to stay inside its interval.

    One that was written with fewer digits stays as it is: a nought behind them would be made up.
    """
    number, least, most = (float(text.replace("−", "-").replace(",", "")) for text in (value, low, high))
    digits = (f"{number:#.{count}g}".rstrip(".") for count in range(2, 9))
    inside = (text for text in digits if least <= float(text) <= most and "e" not in text and len(text) <= len(value))
    return next(inside, value).replace("-", "−")
