"""A chromium over loopback on the built site; skipped, with the reason, where either is missing, and failed in CI."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading

import pytest
from descent.book.commands.build import is_current
from descent.book.commands.cli import server
from descent.book.sources.project import find_project

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--process-per-site",  # the next page finds scripts and styles where the last one has left them
]  # fmt: skip


BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first one there is; one without windows opens a page in half the time."""

STANDING = """async () => {
    await (window.MathJax?.startup?.promise ?? null);
    await document.fonts.ready;
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


class Tab:
    """One page opened in the browser, with everything it complained about and asked for."""

    def __init__(self, page, base, scripts):
        self.page, self.base, self.scripts, self.faults, self.foreign = page, base, scripts, [], []
        page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._request)

    def _request(self, request):
        if request.url.startswith(("http", "ws")) and not request.url.startswith(self.base):
            self.foreign.append(request.url)

    def without_formulas(self):
        """Load no MathJax, which takes longest, where nothing but formulas needs it; the tab."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send("Network.setBlockedURLs", {"urls": ["*/mathjax/*"]})
        return self

    def open(self, name):
        """Open a page and wait until it stands: loaded, formulas drawn, fonts there; half a second of silence is not
        waited for."""
        self.page.goto(self.base + name, wait_until="load")
        if self.scripts:
            self.page.evaluate(STANDING)
        return self.page


def installed():
    """Return the browser of this machine; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def lacking(what):
    """Skip at a keyboard; in CI, where nothing may be lacking, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="session")
def book(repository):
    project = find_project(repository)
    if not is_current(project):
        lacking("there is no site built from today's sources; run `make book` first")
    return project


@pytest.fixture(scope="session")
def chromium():
    path = installed()
    if path is None:
        lacking("there is no chromium on this machine; install one, such as Debian's package `chromium`")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def base(book):
    with server(book, "127.0.0.1", 0, quiet=True) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}/"
        site.shutdown()


SETTING = "localStorage.setItem('mode', '{0}'); localStorage.setItem('theme', '{0}');"
"""The theme, as a reader's last visit has left it."""


@pytest.fixture(scope="session")
def window(chromium, base):
    """Return a function that opens an empty page in the one browser profile of its options.

    A profile of its own for every test would fetch and compile the same scripts each time, a quarter of what opening a
    page costs; a page that stays keeps them.
    """
    profiles = {}

    def opened(**options):
        key = tuple(sorted((name, str(value)) for name, value in options.items()))
        if key not in profiles:
            profiles[key] = chromium.new_context(**options)
            profiles[key].new_page().goto(f"{base}_static/favicon.svg")
        return profiles[key].new_page()

    yield opened
    for profile in profiles.values():
        profile.close()


@pytest.fixture
def tab(window, base):
    """Return a function that makes a tab: theme, width, and whether scripts run.

    All are closed in the end, and what they kept is forgotten.
    """
    made = []

    def make(theme="light", width=1280, scripts=True, **options):
        page = window(java_script_enabled=scripts, **options)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.add_init_script(SETTING.format(theme))
        made.append(page)
        return Tab(page, base, scripts)

    yield make
    for page in made:
        origin, session = base.rstrip("/"), page.context.new_cdp_session(page)
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "local_storage,cookies"})
        page.close()


@contextlib.contextmanager
def tabs(chromium, base):
    """Yield a function that makes a tab in a profile of its own, which has nothing yet; all are closed in the end."""
    with contextlib.ExitStack() as contexts:

        def make(theme="light", width=1280):
            context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
            context.add_init_script(SETTING.format(theme))
            contexts.callback(context.close)
            return Tab(context.new_page(), base, scripts=True)

        yield make


@pytest.fixture(scope="module")
def shown(chromium, base, request):
    """Return the tab of the page that a test names: opened once for all tests that look at it; each file is weighed."""
    with tabs(chromium, base) as make:
        opened, sizes = make(width=1440), {}
        opened.page.on("response", lambda response: sizes.update({response.url: weight(response)}))
        opened.open(f"{request.param}.html")
        opened.name, opened.sizes = request.param, dict(sizes)  # not what a narrower window asks for
        yield opened


@pytest.fixture(scope="module")
def dark(chromium, base, request):
    """Return the tab of the page that a test names, opened once in the dark."""
    with tabs(chromium, base) as make:
        opened = make("dark", 1440)
        opened.open(f"{request.param}.html")
        opened.name = request.param
        yield opened


def weight(response):
    """Return the bytes that a response takes on the way, texts compressed."""
    body = response.body() if response.ok else b""
    return len(body) if response.url.endswith((".png", ".woff2", ".woff")) else len(gzip.compress(body))
