"""A chapter as its page shows it: its source, its finished execution and the records of that, every file read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from descent.book.execute import digest
from descent.book.execute.stamps import Place, Stamp, book_place, read_stamp, table_files
from descent.book.sources import provenance, records, source
from descent.book.sources.project import BookError, Project, sound, title_of
from descent.claims import Record
from descent.results import read_text


@dataclass(frozen=True, eq=False)
class Chapter:
    """The text of a chapter, also as a notebook without outputs, what its execution left, and what that was made from.

    files: names of tables and records; tables: of the tables alone, by the experiment that left them.
    """

    project: Project
    name: str
    text: str
    notebook: source.Notebook
    executed: source.Notebook
    stamp: Stamp
    records: tuple[Record, ...]
    files: tuple[str, ...]
    tables: Mapping[str, Sequence[str]]

    @property
    def title(self) -> str:
        """The title of the page; raise BookError where there is none."""
        found = title_of(self.text)
        if found is None:
            raise BookError(f"{self.name}.md has no title")
        return found

    @cached_property
    def parameters(self) -> dict[str, source.Value]:
        """Names and default values of the parameters."""
        return source.defaults(self.notebook, f"{self.name}.md")

    @cached_property
    def figures(self) -> dict[int, provenance.Trace]:
        """The traces of the figures, by the places of their cells."""
        return provenance.figures(self.project, self.name, self.notebook)

    @cached_property
    def experiments(self) -> dict[str, provenance.Code]:
        """Where the experiments are defined, by their names."""
        return provenance.experiments(self.project, self.name)

    @cached_property
    def homes(self) -> dict[str, provenance.Home]:
        """The homes of the claims."""
        return provenance.homes(self.name, self.text, self.records, self.tables, self.experiments)

    @cached_property
    def moved(self) -> list[str]:
        """The inputs that have moved since the execution."""
        now = digest.inputs_of(self.project, self.name, self.notebook, self.stamp.parameters)
        return digest.moved(self.stamp.inputs, now)

    def page(self) -> source.Notebook:
        """Return today's text with the outputs of the execution, as a notebook that may be changed."""
        return source.with_outputs(self.notebook, self.executed)


def load(project: Project, name: str, place: Place | None = None) -> Chapter:
    """Return a chapter with its execution, the book's own unless it lies at another place.

    Raises: BookError where a file is absent or damaged.
    """
    place = place or book_place(project, name)
    stamp = read_stamp(place)
    if stamp is None:
        raise BookError(f"{name}: its execution left no stamp")
    path = project.source(name)
    text = sound(read_text, path)
    return Chapter(
        project, name, text, source.parse(path, text), source.load(place.notebook), stamp,
        records.read(place.results), tuple(table_files(place.results)), provenance.tables(place.results),
    )  # fmt: skip


def load_all(project: Project) -> tuple[Chapter, ...]:
    """Return all chapters in reading order; raise BookError when claims and records do not match."""
    chapters = tuple(load(project, name) for name in project.notebooks)
    records.require_answers(project, recorded(chapters))
    return chapters


def recorded(chapters: Iterable[Chapter]) -> tuple[Record, ...]:
    """Return the records of several chapters."""
    return tuple(record for chapter in chapters for record in chapter.records)
