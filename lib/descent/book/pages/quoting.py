"""What prose quotes of tests: the numbers of this book, and where it measures none those of record.

Of record are the published chapters, for a book without images, and paper scale and nights, for tests stated for those.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from descent.book.sources import records, source
from descent.book.sources.project import Project
from descent.claims import DATA_MISSING, Outcome, Record, Verdict, quotes

QUOTE = re.compile(r"\{glue:text\}`([^`]+)`")
GLUED = "application/papermill.record/text/plain"
"""Kind of output in which a notebook keeps a text for its prose."""


def quotable(project: Project, found: Sequence[Record]) -> dict[str, str]:
    """Return what prose may quote, by key.

    What this book did not test for want of images is quoted of the published record, and says so:
    "0.13 [0.12, 0.14], measured with images on 2026-01-31". What is stated for paper scale alone is quoted as it was
    measured there, else in a night: which of the two, and when, the ledger says.
    """
    quoted, kept = quotes(found), records.of_record(project)
    for record in (record for record in found if record.claim.id in kept):
        before, absent = kept[record.claim.id], {o.test.key for o in record.outcomes if o.reason == DATA_MISSING}
        said = _measured(before, absent)
        if record.verdict is Verdict.NOT_TESTED and said:
            said["verdict"] = str(before.verdict)
        dated = f"measured with images on {before.provenance.date}"
        quoted |= {f"{record.claim.id}.{key}": f"{text}, {dated}" for key, text in said.items()}
    return quoted | _elsewhere(found, records.nights(project)) | _elsewhere(found, records.paper_scale(project))


def _elsewhere(found: Iterable[Record], measured: Mapping[str, Record]) -> dict[str, str]:
    """Return what tests that no chapter measures gave at another scale, by key; the verdict where that is all."""
    quoted: dict[str, str] = {}
    for here, there in ((record, measured[record.claim.id]) for record in found if record.claim.id in measured):
        large = {each.test.key for each in here.outcomes if not each.estimates and "cpu" not in each.test.scales}
        said = _measured(there, large)
        if said and len(large) == len(here.outcomes):
            said["verdict"] = str(there.verdict)
        quoted |= {f"{here.claim.id}.{key}": text for key, text in said.items()}
    return quoted


def _measured(record: Record, keys: Container[str]) -> dict[str, str]:
    """Return what a record may be quoted for, of those tests that it has measured, by key."""
    found = [each.quoted for each in record.outcomes if each.estimates and each.test.key in keys]
    return {key: text for one in found for key, text in one.items()}


def requote(notebook: source.Notebook, quoted: Mapping[str, str]) -> None:
    """Let the prose of an executed chapter quote these texts."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name in quoted and GLUED in output.get("data", {}):
            output["data"][GLUED] = repr(quoted[name])


def unmeasured(project: Project, found: Iterable[Record], quoted: Mapping[str, str]) -> list[str]:
    """Return the places where prose asserts a number that nobody has measured."""
    lacking = {
        f"{record.claim.id}.{key}": outcome.reason
        for record in found
        for outcome in record.outcomes
        if _is_absent(outcome)
        for key in outcome.quoted
    }
    return [
        f"{page}.md:{number}: quotes {key}, which was not tested here ({lacking[key]}) and is in no record; "
        "leave the sentence out, or publish a run that has the data with `descent reference`"
        for page, text in project.texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for key in QUOTE.findall(line)
        if key in lacking and quoted[key] == Verdict.NOT_TESTED
    ]


def _is_absent(outcome: Outcome) -> bool:
    """Tell whether a test lacks what no parameter of a run gives: its images, or its scale."""
    return not outcome.estimates and (outcome.reason == DATA_MISSING or "cpu" not in outcome.test.scales)
