"""The generated parts of the landing and status pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from descent.book.digest import ABSENT
from descent.book.html import SIGNS, badge, raw, table
from descent.book.stamps import Stamp
from descent.claims import Record, Verdict, tally

STATUS = (
    "chapter",
    "executed",
    "seconds",
    "peak memory",
    "python",
    "torch",
    "parameters",
    "missing inputs",
    "digest",
)


def summary(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Return the verdict counts per chapter and the claims by verdict, for the landing page."""
    lines = [
        "| chapter | " + " | ".join(f"{SIGNS[v]} {v}" for v in Verdict) + " |",
        "|---|" + "---|" * len(Verdict),
    ]
    for chapter, title in titles.items():
        count = tally(record for record in records if record.chapter == chapter)
        if any(count.values()):
            lines.append(f"| [{title}]({chapter}.md) | " + " | ".join(str(count[v]) for v in Verdict) + " |")
    lists = [_listed(verdict, [record for record in records if record.verdict is verdict]) for verdict in Verdict]
    return "\n".join(lines) + "\n\n" + "\n\n".join(filter(None, lists))


def status_table(stamps: Mapping[str, Stamp], titles: Mapping[str, str]) -> str:
    """Return when, with what and at what cost each chapter was executed."""
    rows = "\n".join(_status_row(name, stamp, titles[name]) for name, stamp in stamps.items())
    caption = "One process per chapter, one thread each."
    return raw(table("status", "Executions", caption, STATUS, f"<tbody>\n{rows}\n</tbody>"))


def _status_row(name: str, stamp: Stamp, title: str) -> str:
    missing = [key for key, value in stamp.inputs.items() if value == ABSENT]
    cells = (
        stamp.finished, f"{stamp.seconds:.0f}", f"{stamp.peak_mib} MiB", stamp.inputs["environment (python)"],
        stamp.inputs["environment (torch)"], _given(stamp), ", ".join(missing) or "none",
    )  # fmt: skip
    return (
        f'<tr><th scope="row"><a href="{name}.html">{escape(title)}</a></th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f"<td><code>{stamp.digest}</code></td></tr>"
    )


def _given(stamp: Stamp) -> str:
    return ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"


def _listed(verdict: Verdict, records: Sequence[Record]) -> str:
    links = ", ".join(f"[{record.claim.id}](claim:{record.claim.id})" for record in records)
    return f"{badge(verdict)}: {links}" if records else ""
