"""The library as pages: every module with its lines numbered, so that a figure can point at what drew it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from descent.book.sources.project import Project
from descent.book.sources.provenance import modules

STYLES = {"light": "a11y-high-contrast-light", "dark": "a11y-high-contrast-dark"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{module} — source</title><link rel="icon" href="../_static/favicon.svg"><link rel="stylesheet" href="code.css">
<script>document.documentElement.dataset.theme = localStorage.getItem("theme") || "light";</script></head>
<body><main><p><a href="../index.html">What Momentum Does</a> · <a href="index.html">all modules</a></p>
<h1>{module}</h1>
{body}
</main></body></html>
"""
LAYOUT = """body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1, li { overflow-wrap: anywhere; }
pre { font: 13px/1.45 ui-monospace, monospace; overflow-x: auto; padding: .8rem; }
pre span:target { outline: 2px solid; }
pre .linenos { opacity: .75; padding-right: 1em; }
html[data-theme="dark"] { color-scheme: dark; }
html[data-theme="dark"] body { background: #121212; color: #ddd; }
html[data-theme="dark"] a { color: #8ab8ff; }
"""


def write(project: Project, html: Path) -> None:
    """Write one page per module, and their index, into the site's `code` folder."""
    folder = html / "code"
    folder.mkdir(exist_ok=True)
    found = modules(project)
    for module, path in found.items():
        (folder / f"{module}.html").write_text(_page(module, path.read_text(encoding="utf-8")), encoding="utf-8")
    items = "\n".join(f'<li><a href="{module}.html">{module}</a></li>' for module in found)
    index = PAGE.format(module="The library", body=f"<ul>\n{items}\n</ul>")
    (folder / "index.html").write_text(index, encoding="utf-8")
    (folder / "code.css").write_text(LAYOUT + "\n".join(_colours(theme) for theme in STYLES), encoding="utf-8")


def _page(module: str, text: str) -> str:
    shown = HtmlFormatter(linenos="inline", linespans="L", wrapcode=True)
    body = highlight(text, PythonLexer(), shown).replace('id="L-', 'id="L')
    return PAGE.format(module=escape(module), body=body.replace("<pre>", '<pre tabindex="0">'))


def _colours(theme: str) -> str:
    chosen = HtmlFormatter(style=STYLES[theme])
    return str(chosen.get_style_defs(f'html[data-theme="{theme}"] .highlight'))
