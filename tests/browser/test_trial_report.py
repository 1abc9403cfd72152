"""The report of a trial in a real browser: it opens from a file, asks for nothing, and fits a narrow screen."""

from __future__ import annotations

import pytest
from descent.trials import load, problems, report
from descent.trials.contest import Plan, compete

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    entries = [load.entry(name) for name in ("lion", "adam")]
    found = compete(problems.problem("rare"), entries, Plan((1e-3, 1e-2, 2), replicas=8, draws=4, steps=8, every=4))
    return report.write(found, tmp_path_factory.mktemp("report"))[0]


def test_a_report_opens_from_a_file_and_asks_for_nothing(chromium, file):
    page, asked, faults = chromium.new_page(viewport={"width": 360, "height": 800}), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri(), wait_until="load")
    assert asked == [file.as_uri()]
    assert not faults
    assert page.locator("h1").inner_text() == "lion on rare"
    assert page.locator("svg[role=img] polyline").count() >= 6
    assert "ends at" in page.locator("svg").first.get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
