"""Words the notation page defines say on hovering what they mean, where a chapter uses them first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from descent.book.sources.project import Project

PAGE = "notation"
STATEMENT = re.compile(r'(class="statement">)([^<]*)')
DEFINED = re.compile(r"^(\w[^\n|]*)\n: (.+)$", re.M)
# What must stay as it is: fences, formulas, code and roles, links, HTML, headings, labels.
KEPT = re.compile(
    r"^(?:`{3,}|:{3,}|~{3,}).*?^(?:`{3,}|:{3,}|~{3,})\s*$|\$\$.*?\$\$|\$[^$\n]+\$|\{[\w:-]+\}`[^`]*`|`[^`\n]*`"
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|^#[^\n]*$|^\([\w-]+\)=$",
    re.S | re.M,
)


def glossary(project: Project) -> dict[str, str]:
    """Return the terms of the notation page with their definitions; none without such a page."""
    text = project.texts.get(PAGE, "")
    return {term.strip(): meaning.strip() for term, meaning in DEFINED.findall(text)}


def explained(text: str, terms: Mapping[str, str], seen: set[str]) -> str:
    """Mark the first use of every term that is not in `seen`, and add it there."""
    parts, last = [], 0
    for kept in KEPT.finditer(text):
        parts += [_marked(text[last : kept.start()], terms, seen), kept[0]]
        last = kept.end()
    return "".join([*parts, _marked(text[last:], terms, seen)])


def spelt(html: str, project: Project) -> str:
    """Let every claim's sentence say on hovering what its acronyms mean, each where it comes first."""
    acronyms = {term: meaning for term, meaning in glossary(project).items() if term.isupper()}
    return STATEMENT.sub(lambda found: found[1] + explained(found[2], acronyms, set()), html)


def _marked(prose: str, terms: Mapping[str, str], seen: set[str]) -> str:
    for term, meaning in terms.items():
        if term in seen:
            continue
        match = re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", prose, 0 if term.isupper() else re.I)
        if match and "<abbr" not in prose[max(0, match.start() - 200) : match.start()].rpartition("</abbr>")[2]:
            seen.add(term)
            title = escape(re.sub(r"[$`\\]", "", meaning))
            prose = f'{prose[: match.start()]}<abbr title="{title}">{match[0]}</abbr>{prose[match.end() :]}'
    return prose
