"""The exit from Jupyter Book: plain Sphinx makes the same pages of the staged ones, with the same text and anchors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from descent.book.commands.build import is_current
from descent.book.sources.project import find_project
from toybook import REPOSITORY

pytestmark = pytest.mark.slow

CONF = """\
import sys

sys.modules["jupyter_book"] = None  # whoever asks for it is refused
globals().update({settings})
"""
"""What would take the place of `_config.yml`: its settings under the names that Sphinx and the extensions have."""

OWN = ("jupyter_book",)


def settings(config, source):
    """Return the settings of a `_config.yml` under Sphinx's names."""
    html, sphinx = config["html"], config["sphinx"]["config"]
    static = source / "_static"
    names = {
        "project": config["title"], "html_title": config["title"], "author": config["author"],
        "copyright": config["copyright"], "exclude_patterns": config["exclude_patterns"],
        "external_toc_path": "_toc.yml", "external_toc_exclude_missing": config["only_build_toc_files"],
        "bibtex_bibfiles": config.get("bibtex_bibfiles", []),
        "html_theme": "sphinx_book_theme", "html_static_path": ["_static"], "html_sourcelink_suffix": "",
        "html_css_files": sorted(path.name for path in static.glob("*.css")),
        "html_js_files": sorted(path.name for path in static.glob("*.js")),
        "html_favicon": html.get("favicon", ""), "html_baseurl": html.get("baseurl", ""),
        "myst_enable_extensions": config["parse"]["myst_enable_extensions"],
        "nb_execution_mode": config["execute"]["execute_notebooks"],
        "nb_output_stderr": config["execute"]["stderr_output"],
        "use_multitoc_numbering": html.get("use_multitoc_numbering", True), "numfig": True,
        "comments_config": {"hypothesis": False, "utterances": False},
    }  # fmt: skip
    return names | sphinx | {"extensions": [name for name in sphinx["extensions"] if name not in OWN]}


def plain(source, target):
    """Build staged pages by Sphinx alone, every warning an error."""
    config = yaml.safe_load((source / "_config.yml").read_text(encoding="utf-8"))
    own = shutil.copytree(source, target / "source")
    (own / "conf.py").write_text(CONF.format(settings=repr(settings(config, own))), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-b", "html"]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    run = subprocess.run([*command, str(own), str(target / "html")], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    return target / "html"


ADDED = ("edition", "vector")
"""Classes of what the book adds to finished pages: the line below a title, the link to a drawing."""


class Page(HTMLParser):
    """The anchors of an article and its words, as far as they are no script and not added to finished pages."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.words, self.depth, self.script, self.added = [], [], 0, False, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.depth += tag == "article"
        self.script = tag in ("script", "style")
        self.added = self.added or (tag if dict(attributes).get("class") in ADDED else "")
        if self.depth:
            self.anchors += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        self.depth -= tag == "article"
        self.script = False
        self.added = "" if tag == self.added else self.added

    def handle_data(self, data):
        if self.depth and not self.script and not self.added:
            self.words += [word for word in data.split() if word != ";"]  # between the links of a figure


def pages(folder):
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in folder.glob("*.html") if path.stem != "404"}


def differences(one, other):
    """Return what the pages of two folders differ in."""
    one, other = pages(one), pages(other)
    found = [f"only once: {name}" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        found += [f"{name}: anchors"] * (one[name].anchors != other[name].anchors)
        found += [f"{name}: words"] * (one[name].words != other[name].words)
    return found


def test_plain_sphinx_makes_the_same_book(tmp_path):
    book = find_project(REPOSITORY)
    if not is_current(book):
        pytest.skip("there is no site built from today's sources; run `make book` first")
    assert differences(book.html, plain(book.build / "source", tmp_path)) == []


def test_a_difference_is_named(built, tmp_path):
    theirs = plain(built.build / "source", tmp_path)
    assert len(pages(built.html)) > 3
    assert differences(built.html, theirs) == []
    page = theirs / "alpha.html"
    text = page.read_text().replace('id="measured"', 'id="gauged"')
    page.write_text(text.replace("A sentence about", "A word about"))
    (theirs / "beta.html").unlink()
    assert differences(built.html, theirs) == ["only once: beta.html", "alpha.html: anchors", "alpha.html: words"]
