"""Reference notebooks: what a chapter printed when last looked at; nbval compares what it prints now.

A chapter is executed once, by the pipeline. For the comparison its outputs are replayed: nbval runs each
checked cell of the reference with a source that emits what the execution left, and its own rules decide, with numbers
as `descent.book.execute.numerics` takes them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descent.book.commands.compare import published, published_file
from descent.book.execute import digest
from descent.book.execute.chapter import Chapter
from descent.book.site.publish import text_only
from descent.book.sources import source
from descent.book.sources.project import BookError
from descent.claims import compare_records, parted_tests
from descent.results import write_atomic

CHECKED = "nbval-check-output"
CARD = "experiment-card"


@dataclass(frozen=True)
class Replay:
    """A notebook for nbval, and the cells it leaves out because an image set is absent."""

    notebook: Path
    compared: int
    left_out: dict[str, int]


def renew(chapter: Chapter) -> list[Path]:
    """Store the execution of a chapter as its reference, text outputs only, and its records as those of record.

    Raises: BookError when an output shows a path of this machine.
    """
    project, name = chapter.project, chapter.name
    text = source.dump(without_cards(text_only(chapter.page())))
    for path in {str(project.root.resolve()), str(Path.home())}:
        if path in text:
            raise BookError(f"{name}: an output shows the path {path}; print nothing that differs between machines")
    target = project.references / f"{name}.ipynb"
    write_atomic(target, text)
    made, kept = project.results(name) / "records.json", published_file(project, name)
    if not kept.is_file() or _hashes(made) != _hashes(kept):  # the seconds alone are no reason to publish again
        write_atomic(kept, made.read_text(encoding="utf-8"))
    return [target, kept]


def _hashes(file: Path) -> list[str]:
    """Return the hashes of the records in a file; they leave out how long and on which day."""
    return [record["sha256"] for record in json.loads(file.read_text(encoding="utf-8"))["records"]]


def replay(chapter: Chapter, folder: Path) -> Replay:
    """Write into `folder` the notebook that lets nbval compare the execution of a chapter with its reference.

    Rows of claims whose chaotic runs other arithmetic has driven apart stand in neither.
    Raises: BookError when the reference is absent, unexecuted, empty, or belongs to other code.
    """
    reference = _reference(chapter)
    absent = [name for name in source.data_sets(reference) if digest.data_set(chapter.project, name) == digest.ABSENT]
    outputs = folder / f"{chapter.name}.outputs.json"
    compared: list[Any] = []
    emitted: list[Any] = []
    left_out = dict.fromkeys(absent, 0)
    lines = compare_records(published(chapter.project, chapter.name), chapter.records)
    parted = {key.partition(".")[0] for key in parted_tests(lines)}
    for cell, now in zip(_code(reference), _code(text_only(chapter.page())), strict=True):
        tags = cell.metadata.get("tags", [])
        missing = [name for name in absent if source.NEEDS + name in tags]
        for name in missing:
            left_out[name] += 1
        if CHECKED in tags and not missing:
            cell.source = f"from descent.book.commands.reference import emit\nemit({str(outputs)!r}, {len(emitted)})"
            cell.outputs = without_rows(cell.outputs, parted)
            compared.append(cell)
            emitted.append(without_rows(now.outputs, parted))
    write_atomic(outputs, json.dumps(emitted))
    reference.cells = compared
    target = folder / f"{chapter.name}.ipynb"
    write_atomic(target, source.dump(reference))
    return Replay(target, len(compared), left_out)


def without_rows(outputs: list[Any], claims: Iterable[str]) -> list[Any]:
    """Return outputs without the rows of these claims, in tables of text and of HTML."""
    names = "|".join(map(re.escape, sorted(claims)))
    if not names:
        return outputs
    row = re.compile(rf"(?m)^ *(?:{names}) .*\n?|<tr>\s*<th>(?:{names})</th>(?s:.*?)</tr>\s*")
    for output in outputs:
        for holder in (output, output.get("data", {})):
            holder |= {kind: row.sub("", text) for kind, text in holder.items() if isinstance(text, str)}
    return outputs


def without_cards(notebook: source.Notebook) -> source.Notebook:
    """Return a notebook without the cards of its experiments: they hold seconds, and code that lies in the library."""
    for cell in _code(notebook):
        kept = [output for output in cell.outputs if CARD not in str(output.get("data", {}).get("text/html", ""))]
        if len(kept) < len(cell.outputs):
            cell.outputs = kept
    return notebook


def emit(outputs: str, index: int) -> None:
    """Show once more what a cell has shown."""
    from IPython.display import publish_display_data

    for output in json.loads(Path(outputs).read_text(encoding="utf-8"))[index]:
        if output["output_type"] == "stream":
            print(output["text"], end="", file=getattr(sys, output["name"]), flush=True)
        else:
            publish_display_data(output["data"], output["metadata"])  # type: ignore[no-untyped-call]  # IPython


def _reference(chapter: Chapter) -> source.Notebook:
    name, path = chapter.name, chapter.project.references / f"{chapter.name}.ipynb"
    if not path.is_file():
        raise BookError(f"{name} has no reference notebook; make one with `descent reference {name}`")
    notebook = source.load(path)
    if any(cell.execution_count is None for cell in _code(notebook) if cell.source.strip()):
        raise BookError(f"{path.name} was never executed, so comparing with it proves nothing; run `descent reference`")
    if not any(CHECKED in cell.metadata.get("tags", []) and cell.outputs for cell in _code(notebook)):
        raise BookError(f"{path.name} has no output tagged {CHECKED}, so comparing with it proves nothing")
    if source.executable(notebook) != source.executable(chapter.notebook):
        raise BookError(f"the code of {name}.md is no longer that of its reference; run `descent reference {name}`")
    return notebook


def _code(notebook: source.Notebook) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
