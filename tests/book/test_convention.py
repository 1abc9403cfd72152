"""Whose learning rate a chapter writes: its badge, its captions, and what the build refuses."""

from __future__ import annotations

import pytest
from descent.book.pages import convention
from descent.book.sources.project import find_project
from toybook import REPOSITORY, edit, make

AVERAGE = "<!-- convention: average -->\n"


@pytest.fixture
def project(tmp_path):
    return make(tmp_path)


@pytest.fixture
def book(project):
    def write(line, mark=""):
        edit(project.source("alpha"), "A sentence about", f"{mark}\n{line}\n\nA sentence about")
        return find_project(project.root)

    return write


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        (r"$\lambda=\eta/(1-\mu)$ is not the effective step.", AVERAGE),
        (r"The running average takes $\eta$ per step.", ""),
        (r"The running average takes $\eta$ per step.", "<!-- convention: both -->\n"),
        (r"The step is $\bar\eta$.", ""),
    ],
)
def test_a_rate_of_the_other_convention_is_refused_with_its_place(book, line, mark):
    project = book(line, mark)
    (fault,) = convention.faults(project)
    number = project.texts["alpha"].splitlines().index(line) + 1
    assert fault.startswith(f"alpha.md:{number}: ")
    assert r"\bar\eta" in fault


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        (r"The step is $\eta/(1-\mu)$.", ""),
        (r"Heavy ball at $\eta$ is the running average at $\bar\eta$.", ""),
        (r"The step is $\bar\eta$, heavy ball's is $\eta/(1-\mu)$.", AVERAGE),
        (r"It is $\eta^\star$ on average.", ""),
        (r"Here $\zeta$ and $\etale$ are something else.", AVERAGE),
    ],
)
def test_rates_in_their_convention_pass(book, line, mark):
    assert convention.faults(book(line, mark)) == []


def test_what_is_no_convention_is_refused(book):
    (fault,) = convention.faults(book("", "<!-- convention: dampened -->\n"))
    assert fault == "alpha.md: <!-- convention: dampened --> is none; write heavy ball or average or normalised or both"


def test_the_chapters_of_the_book_keep_to_theirs():
    project = find_project(REPOSITORY)
    assert convention.faults(project) == []
    said = {page: convention.convention(project.texts[page]) for page in project.notebooks}
    assert said["margins"] == "average"
    assert said["smoothing"] == "both"
    assert set(said.values()) == set(convention.CONVENTIONS)
    assert all(name in convention.badge(project, project.texts["saddles"]) for name in ("heavy ball", "#conventions"))


def test_a_page_without_rates_or_without_conventions_to_point_to_has_no_badge(project):
    assert convention.badge(project, r"$\eta$") == ""  # the toy book has no page of notation
    assert convention.badge(find_project(REPOSITORY), r"$\beta$") == ""


@pytest.mark.parametrize(
    ("caption", "name", "whose"),
    [
        ("Error against the learning rate.", "average", r"the running average's, $\bar\eta$."),
        (r"On the line $\eta a=2$.", "heavy ball", r"heavy ball's, $\eta$."),
        ("At the same effective step.", "both", r"$\bar\eta$ for the running average."),
        (r"Degree $\eta\sigma$; crosses, the average.", "both", r"$\bar\eta$ for the running average."),
    ],
)
def test_a_caption_that_speaks_of_rates_says_whose(caption, name, whose):
    assert convention.told(caption, name) == f"{caption} {convention.CONVENTIONS[name].caption}"
    assert convention.told(caption, name).endswith(whose)


@pytest.mark.parametrize("caption", ["Equal learning rate, heavy ball.", "Spectrum of the noise."])
def test_a_caption_that_says_so_or_speaks_of_none_is_left_alone(caption):
    assert convention.told(caption, "heavy ball") == caption
