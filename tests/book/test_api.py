"""The page of the library's public names is made from the source, and leads to it."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from descent.book.commands import build
from descent.book.pages import api, docstrings, usage
from descent.book.pages.vocabulary import VOCABULARY
from descent.book.sources import provenance
from descent.book.sources.project import find_project
from toybook import REPOSITORY, edit

SOURCE = '''"""What it is for. More about it.

A second paragraph.
"""
from dataclasses import dataclass
from elsewhere.place import borrowed, hidden
__all__ = ["LEVEL", "Pair", "borrowed", "share"]
LEVEL = 0.95
"""How sure an interval is."""
PRIVATE = 1

@dataclass(frozen=True)
class Pair:
    """Two numbers, a*b | c."""

    kind: ClassVar[str] = "x"
    first: float
    second: float = 2.0

    @property
    def sum(self) -> float:
        """Add."""

def share(batch: int, *sizes: int, population: int | None = None, **rest: int) -> float:
    """Return p = 1/B, e.g. `0.25` at four. Nothing else.

    batch, population: how many. sizes (n,) of others.
    Raises: ValueError where it is 0.

    >>> share(4)
    0.25
    """

def unlisted(): ...
'''


@pytest.fixture(scope="module")
def book():
    return find_project(REPOSITORY)


@pytest.fixture(scope="module")
def page(book):
    return api.library(book)


def test_names_come_with_arguments_sentence_and_line():
    found = {entry.code.name: entry for entry in api.entries("toy.m", ast.parse(SOURCE))}
    assert list(found) == ["toy.m.LEVEL", "toy.m.Pair", "toy.m.share"]
    assert [entry.takes for entry in found.values()] == [
        " = 0.95",
        "(first, second=2.0)",
        "(batch, *sizes, population=None, **rest)",
    ]
    assert [entry.sentence for entry in found.values()] == [
        "How sure an interval is.",
        "Two numbers, a*b | c. With `sum`.",
        "Return p = 1/B, e.g. `0.25` at four.",
    ]
    for entry in found.values():
        line = SOURCE.splitlines()[entry.code.line - 1]
        assert re.match(rf"(class |def )?{entry.code.name.rpartition('.')[2]}\b", line)


def test_a_docstring_is_taken_apart():
    text = SOURCE.replace("second: float = 2.0", "second: float = 2.0  # the other")
    pair, share = (entry.parts for entry in api.entries("toy.m", ast.parse(text), text)[1:])
    assert [(one.name, one.kind, one.default, one.says) for one in pair.parameters] == [
        ("first", "float", "", "the first of two"),
        ("second", "float", "2.0", "the other"),
    ]
    assert {one.name: one.says for one in share.parameters} == {
        "batch": "how many",
        "population": "how many",
        "sizes": "",
        "rest": "",
    }
    assert [one.shape for one in share.parameters] == ["", "(n,)", "", ""]
    assert share.returns == "float"
    assert share.raises == "ValueError where it is 0."
    assert share.example == ">>> share(4)\n0.25"
    assert share.more.startswith("Nothing else.")


def test_a_name_opens_to_parameters_returns_refusals_and_an_example(page):
    entry = page.partition('<code class="named">stationary_variance</code>')[2].partition("</details>")[0]
    assert "<dt>Parameters</dt><dd><ul><li><code>curvature</code> : <code>ArrayLike</code>" in entry
    assert "<dt>Returns</dt><dd><code>Array</code> — E x² at the optimum" in entry
    assert '<code class="example">&gt;&gt;&gt; stationary_variance(' in entry


def shown(book):
    """Yield every name of the page."""
    for module, path in provenance.modules(book).items():
        if "." in module and api._floor(module):
            text = path.read_text()
            yield from api.entries(module, ast.parse(text), text)


def wordless(entry):
    """Return the parameters of a name of which no more than name, type and shape is told."""
    return [f"{entry.code.name}: {one.name}" for one in entry.parts.parameters if not one.says]


def test_every_name_says_something_and_every_function_has_an_example(book):
    examples = usage.uses(book)
    silent, bare = [], []
    for entry in shown(book):
        silent += [entry.code.name] * (not entry.sentence)
        has = entry.parts.example or entry.code.name in examples or not entry.takes.startswith("(")
        bare += [entry.code.name] * (not has)
    assert silent == []
    assert bare == []


def test_every_parameter_is_told_in_words(book):
    found = [one for entry in shown(book) for one in wordless(entry)]
    assert found == [], "say it in the docstring, `name: words`, behind the field, or, for many, in VOCABULARY"


def test_a_parameter_without_words_is_found():
    text = SOURCE.replace("second: float", "other: float")
    pair, share = api.entries("toy.m", ast.parse(text), text)[1:]
    assert wordless(pair) == ["toy.m.Pair: other"]
    assert wordless(share) == ["toy.m.share: sizes", "toy.m.share: rest"]


def test_the_vocabulary_holds_no_word_that_nothing_takes(book):
    parameters = [one for entry in shown(book) for one in entry.parts.parameters]
    taken = {one.name for one in parameters if one.says == VOCABULARY.get(one.name)}
    assert set(VOCABULARY) - taken == set()
    assert list(VOCABULARY) == sorted(VOCABULARY)


def test_notes_do_not_repeat_what_stands_with_a_parameter():
    text = "def f(a, b: int, c): ..."
    doc = "Return x. It is told, once; a: the one. Of two. `b` (n,), c: others, e.g. 2.\n\nc is told; b: anew."
    made = docstrings.parts(ast.parse(text).body[0], doc, [])
    assert {one.name: one.says for one in made.parameters} == {
        "a": "the one",
        "b": "others, e.g. 2",
        "c": "others, e.g. 2",
    }
    assert made.more == "It is told, once. Of two. c is told."


def test_what_an_instance_fills_in_itself_is_no_parameter():
    fields = "    x: int\n    memo: dict = field(default_factory=dict, init=False)\n    many: ClassVar[int] = 3\n"
    (entry,) = api.entries("m", ast.parse(f"class Box:\n{fields}"))
    assert [one.name for one in entry.parts.parameters] == ["x"]
    assert entry.takes == "(x)"


def test_a_field_shows_its_default_and_not_how_it_is_made():
    fields = (
        "    x: int = field(repr=False)\n    y: int = field(default=2, kw_only=True)\n    z: int = size(3)\n"
        "    u: dict = field(default_factory=dict)\n    v: list = field(default_factory=lambda: [1, 2])\n"
    )
    (entry,) = api.entries("m", ast.parse(f"class Box:\n{fields}"))
    assert entry.takes == "(x, y=2, z=size(3), u=dict(), v=[1, 2])"
    assert [one.default for one in entry.parts.parameters] == ["", "2", "size(3)", "dict()", "[1, 2]"]


@pytest.mark.parametrize("text", ["(R, n)", "(n,)", "(…)", "(T + 1, …, n)", "(draws, replicas)"])
def test_a_shape_is_told_from_other_brackets(text):
    (one,) = docstrings.parts(ast.parse("def f(a): ...").body[0], f"Return a {text}.", []).parameters
    assert (one.shape, one.says) == (text, "")
    for other in ("(or below)", "(a number)", "(16, 32)", "(see `x`)"):
        (one,) = docstrings.parts(ast.parse("def f(a): ...").body[0], f"Return a {other}.", []).parameters
        assert one.shape == ""


def test_an_example_is_a_statement_of_a_chapter_where_one_uses_the_name(project):
    measured = "from descent.stats import mean as middle\nvalue = law.value(lr)\nmiddle([value])"
    edit(project.source("alpha"), "value = law.value(lr)", measured)
    use = usage.uses(find_project(project.root))["descent.stats.mean"]
    assert use == usage.Use("middle([value])", "alpha.md")


def test_without_a_list_the_public_functions_and_classes_are_shown():
    text = SOURCE.replace("__all__", "names")
    assert [entry.code.name for entry in api.entries("m", ast.parse(text))] == ["m.Pair", "m.share", "m.unlisted"]


def test_signs_stand_for_themselves_and_code_stays_code():
    assert api.prose("a*b_c | $x$ <y> `z*` [1]") == r"a\*b\_c \| \$x\$ \<y\> `z*` \[1\]"


def test_the_page_shows_every_public_name_of_the_library(page):
    assert f"## {api.REST}" not in page, "a new module: say in FLOORS where it stands, or in ABOVE that it is private"
    for module in ("descent.engine.rules", "descent.theory.linear", "descent.measure.gram", "descent.measure.report"):
        section = page.partition(f"### `{module}`\n")[2].partition("\n### ")[0]
        for name in import_module(module).__all__:
            assert f"`{name}`" in section or f"<code>{name}</code>" in section, f"{module}.{name}"
    assert "### `descent.book" not in page
    assert "### `descent.experiments" not in page
    headings = re.findall(r"^## (.+)$", page, re.M)
    assert headings == list(api.FLOORS)


def test_every_line_leads_to_a_definition(book, page):
    sources = {module: path.read_text().splitlines() for module, path in provenance.modules(book).items()}
    found = re.findall(r'<a href="code/([\w.]+)\.html#L(\d+)"><code>(\w+)</code></a>', page)
    assert len(found) > 300
    for module, line, name in found:
        assert re.match(rf"(class |def )?{name}\b", sources[module][int(line) - 1]), f"{module}.{name}"


def test_a_site_that_asks_for_it_carries_it(project, log):
    edit(project.source("index"), "A toy book\n", "A toy book\n\n<!-- api -->\n")
    build.build(project, log)
    page = (project.html / "index.html").read_text()
    assert re.search(
        r'<summary><code class="named">value</code>.*<a href="code/toy.law.html#L1"><code>value</code></a>', page, re.S
    )
    assert 'id="L1"' in (project.html / "code" / "toy.law.html").read_text()
