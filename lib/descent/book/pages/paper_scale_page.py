"""The page of paper scale: what exists, what it would take, what has been measured, and its tables."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from descent.book.pages.html import raw, table
from descent.book.sources.project import BookError, Project
from descent.book.sources.records import known_seconds
from descent.claims import Record, spell
from descent.results import Table, load_table

if TYPE_CHECKING:
    from descent.experiments.lab import Experiment

COLUMNS = ("experiment", "speaks to", "minutes on one core", "measured", "its tests", "tables")


def scale_table(project: Project, titles: Mapping[str, str], large: Mapping[str, Record]) -> str:
    """Return every experiment that has a paper-scale configuration, by chapter.

    large: what was measured at that scale, by claim.
    """
    from descent.experiments.lab import Lab  # only here, since it takes seconds to import
    from descent.runs import campaign, forecast

    bodies, done, count = [], 0, 0
    for chapter, title in titles.items():
        tasks = campaign.tasks(f"descent.experiments.{chapter}", Lab(), "gpu")
        minutes = forecast.expected(tasks, known_seconds(project, chapter))
        found, claims = published(project, chapter), campaign.claims_of(f"descent.experiments.{chapter}")
        rows = [
            _row(
                chapter,
                task.experiment,
                claims.get(task.name, ()),
                minutes[task.name],
                found.get(task.name, ()),
                list(large.values()),
            )
            for task in tasks
        ]
        link = f'<a href="{chapter}.html">{escape(title)}</a>'
        head = f'<tr><th colspan="{len(COLUMNS)}" scope="rowgroup">{link}</th></tr>'
        bodies.append("<tbody>\n" + "\n".join([head, *rows]) + "\n</tbody>")
        done, count = done + sum(task.name in found for task in tasks), count + len(tasks)
    caption = f"{done} of {count} experiments measured at paper scale."
    return raw(table("scales", "Paper scale", caption, COLUMNS, "\n".join(bodies)))


def published(project: Project, chapter: str) -> dict[str, list[Table]]:
    """Return the tables measured at paper scale by experiment; raise BookError for one that was damaged."""
    found: dict[str, list[Table]] = {}
    for path in sorted(project.paper_scale(chapter).glob("*.csv")):
        try:
            made = load_table(path)
        except ValueError as fault:
            raise BookError(f"{path.relative_to(project.root)}: {fault}") from None
        found.setdefault(made.experiment, []).append(made)
    return found


def _row(
    chapter: str,
    item: Experiment[Any, Any],
    claims: Sequence[str],
    seconds: float,
    tables: Sequence[Table],
    large: Sequence[Record],
) -> str:
    about = (importlib.import_module(item.estimates.__module__).__doc__ or "").partition("\n")[0]
    outcomes = [
        each
        for record in large
        if record.chapter == chapter
        for each in record.outcomes
        if each.experiment == item.name and each.estimates
    ]
    verdicts = Counter(each.verdict for each in outcomes)
    links = (f'<a href="downloads/{chapter}/gpu/{each.name}.csv" download>{each.name}</a>' for each in tables)
    only = "" if "cpu" in item.scales else "<br><small>at paper scale alone</small>"
    cells = (
        ", ".join(f'<a href="ledger.html#{claim}">{claim}</a>' for claim in claims),
        "unknown" if math.isnan(seconds) else f"{seconds / 60:.1f}" if seconds < 6000 else f"{seconds / 60:,.0f}",
        _measured(tables, max((each.seconds for each in outcomes), default=None)),
        spell(verdicts) if verdicts else "–",
        ", ".join(links) or "–",
    )
    name = f'<th scope="row"><code>{item.name}</code>{only}<br><small>{escape(about)}</small></th>'
    return f"<tr>{name}" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _measured(tables: Sequence[Table], seconds: float | None) -> str:
    if not tables:
        return "not yet"
    made = tables[0].provenance
    return f"{made.date}, {escape(made.device_class)}" + (f", {seconds:.0f} s" if seconds is not None else "")
