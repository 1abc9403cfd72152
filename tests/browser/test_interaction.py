"""Every explorer in a real browser: its golden check, the keyboard, presets, the address, and a planted fault."""

from __future__ import annotations

import json
import re

import pytest
from descent.oracles.explorers import EXPLORERS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


PLACES = {"border": "synthesis", "hero": "index"}
"""The page of an explorer, where it is not the chapter of its name."""

POWERS = {2.0**k for k in range(14)}
"""Sizes of batches."""

LIVE = ("border", "flatness", "hero", "smoothing")


def opened(tab, name, fragment="", **options):
    fresh = tab(**options).without_formulas()  # explorers have none
    page = fresh.open(f"{PLACES.get(name, name)}.html{fragment}")
    root = page.locator(f'.explorer[data-explorer="{name}"]')
    page.wait_for_function(f"document.querySelector('.explorer[data-explorer={name}]').dataset.check")
    root.locator("details").evaluate_all("nodes => nodes.forEach(node => { node.open = true; })")
    return page, root


@pytest.mark.parametrize("name", EXPLORERS)
def test_it_agrees_with_the_library(tab, name):
    _, root = opened(tab, name)
    assert root.get_attribute("data-check") == "right", root.locator(".explorer-check").inner_text()


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_wrong_number_is_noticed(tab, name):
    fresh = tab()

    def spoil(route):
        content = route.fetch().json()
        content["points"][3]["output"][0] += 1e-3
        route.fulfill(body=json.dumps(content), content_type="application/json")

    fresh.page.route(f"**/explorers/{name}.json", spoil)
    page = fresh.open(f"{PLACES.get(name, name)}.html")
    root = page.locator(f'.explorer[data-explorer="{name}"]')
    page.wait_for_function(f"document.querySelector('.explorer[data-explorer={name}]').dataset.check")
    assert root.get_attribute("data-check") == "wrong"
    assert "differs from the library at 1 of" in root.locator(".explorer-check").inner_text()


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_answers_the_keyboard_and_the_address_keeps_the_state(tab, name):
    page, root = opened(tab, name)
    inputs, choices = root.locator("input[type=range]"), root.locator("fieldset")
    assert inputs.count() + choices.count() >= 4
    for control in inputs.all():
        assert page.locator(f'label[for="{control.get_attribute("id")}"]').count() == 1
        before = control.input_value()
        control.focus()
        page.keyboard.press("ArrowLeft" if float(before) >= float(control.get_attribute("max")) else "ArrowRight")
        assert control.input_value() != before
    for choice in choices.all():
        before = chosen(choice)
        choice.locator("input:checked").focus()
        page.keyboard.press("ArrowRight")
        assert chosen(choice) != before
        assert choice.locator("legend").inner_text()
    fragment = page.evaluate("location.hash")
    assert fragment.startswith(f"#{name}:")
    _, again = opened(tab, name, fragment)
    assert state(again) == state(root)


def chosen(choice):
    """Return which button of a row is pressed."""
    return choice.locator("input:checked").get_attribute("value")


def state(root):
    """Return what every control says."""
    said = [control.get_attribute("aria-valuetext") for control in root.locator("input[type=range]").all()]
    return said + [chosen(choice) for choice in root.locator("fieldset").all()]


@pytest.mark.parametrize("name", EXPLORERS)
def test_sliders_stop_at_round_numbers(tab, name):
    page, root = opened(tab, name)
    for control in root.locator("input[type=range]").all():
        control.focus()
        for _ in range(3):
            page.keyboard.press("ArrowLeft")
            digits = re.sub(r"e.*|[^\d]", "", control.get_attribute("aria-valuetext")).strip("0")
            number = float(re.match(r"[\d.e+-]+", control.get_attribute("aria-valuetext"))[0])
            whole = number in POWERS or (20 * number).is_integer()  # a multiple of 0.05
            assert len(digits) <= 3 if number < 1 else len(digits) <= 2 or whole


@pytest.mark.parametrize("name", EXPLORERS)
def test_presets_change_what_is_said(tab, name):
    _, root = opened(tab, name)
    said = set()
    buttons = root.get_by_role("group", name="places worth a visit").locator("button")
    for button in buttons.all():
        button.press("Enter")
        said.add(root.locator(".explorer-summary").inner_text())
    assert len(said) == buttons.count() >= 3
    assert "NaN" not in " ".join(said)


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_bad_address_is_ignored(tab, name):
    _, root = opened(tab, name, f"#{name}:momentum=nonsense,other=3,momentum=99")
    assert root.get_attribute("data-check") == "right"
    control = root.locator(f"#{name}-momentum")
    assert control.input_value() == control.get_attribute("max")


@pytest.mark.parametrize("name", EXPLORERS)
def test_colours_follow_the_theme_and_the_drawing_is_not_empty(tab, name):
    page, root = opened(tab, name)
    if root.locator("button[data-play]").count():
        root.locator("button[data-play]").press("Enter")
    picture = "canvas => canvas.toDataURL()"
    light = root.locator("canvas").evaluate(picture)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    assert root.locator("canvas").evaluate(picture) != light
    alpha = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v)"
    assert root.locator("canvas").evaluate(f"c => ({alpha})(c).length") > 2000


@pytest.mark.parametrize("name", EXPLORERS)
def test_without_scripts_a_picture_and_a_sentence_stand_in(tab, name):
    page = tab(scripts=False).open(f"{PLACES.get(name, name)}.html")
    root = page.locator(f'.explorer[data-explorer="{name}"]')
    assert "A live drawing stands here" in root.inner_text()
    assert root.locator("img").evaluate("image => image.naturalWidth") > 500


FRAMES = """() => new Promise(done => {
  let count = 0
  const begun = performance.now()
  const next = now => now - begun > 1000 ? done(count) : (count += 1, requestAnimationFrame(next))
  requestAnimationFrame(next)
})"""


@pytest.mark.parametrize("name", LIVE)
def test_a_cloud_moves_fast_enough_and_stops_when_told(tab, name):
    page, root = opened(tab, name)
    here = page.evaluate(FRAMES)  # what this machine shows when nothing is drawn
    root.scroll_into_view_if_needed()
    wanted = min(30, here // 2)
    quick = f"document.querySelector('.explorer[data-explorer={name}]').dataset.fps >= {wanted}"
    page.wait_for_function(quick, timeout=30000)  # counted every second; a busy machine may need a few of them
    root.locator("button[data-play]").press("Enter")
    page.wait_for_timeout(100)
    picture = root.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    page.wait_for_timeout(300)
    assert root.locator("canvas").evaluate("canvas => canvas.toDataURL()") == picture


@pytest.mark.parametrize("name", LIVE)
def test_nothing_moves_for_who_asks_for_less_motion(tab, name):
    page, root = opened(tab, name, reduced_motion="reduce")
    root.scroll_into_view_if_needed()
    picture = root.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    page.wait_for_timeout(500)
    assert root.locator("canvas").evaluate("canvas => canvas.toDataURL()") == picture
    assert root.locator("button[data-play]").inner_text() == "play"


NOTEBOOK = """async (name) => {
    const { render } = await import(`./_static/explorers/${name}.mjs`);
    const [kept, listeners] = [{ state: { momentum: 1e9, unknown: 1 } }, new Set()];
    const model = {
        get: (key) => kept[key],
        set: (key, value) => { kept[key] = value; },
        save_changes: () => { kept.saved = true; },
        on: (event, changed) => listeners.add(changed),
        off: (event, changed) => listeners.delete(changed),
    };
    const el = document.createElement("div");
    document.querySelector("article").prepend(el);
    const hash = location.hash;
    const clear = render({ model, el });
    const slider = el.querySelector("input[id$='-momentum']");
    const first = slider.value === slider.max;
    [...el.querySelector("[aria-label='places worth a visit']").children].at(-1).click();
    const pressed = { ...kept.state };
    kept.state = { ...pressed, momentum: 0 };
    listeners.forEach((changed) => changed());
    const told = +slider.value;
    clear();
    return { first, saved: kept.saved, pressed, told, same: location.hash === hash, left: listeners.size,
        height: el.querySelector("canvas").height, words: el.querySelector(".explorer-summary").textContent };
}"""


@pytest.mark.parametrize("name", EXPLORERS)
def test_it_runs_in_a_notebook_too(tab, name):
    """As anywidget calls it: an element, and a model that keeps the state in place of the address."""
    found = tab().open("measure.html").evaluate(NOTEBOOK, name)
    assert found["first"]  # what the model held, within the control's range
    assert found["saved"]
    assert "unknown" not in found["pressed"]
    assert found["pressed"]["momentum"] <= 1
    assert found["told"] == 0
    assert found["same"]
    assert found["left"] == 0
    assert found["height"] > 100
    assert len(found["words"]) > 20


def test_a_longer_step_turns_the_sign(tab):
    _, root = opened(tab, "border")
    said = {}
    for step in ("0.2", "0.3"):
        root.get_by_role("button", name=f"e = {step}").press("Enter")
        said[step] = root.locator(".explorer-summary").inner_text()
    ends = "heavy ball ends at sharpness {} and plain SGD ends at sharpness {}: momentum ends {}"
    assert ends.format(7.9, 8.57, "flatter") in said["0.2"]
    assert ends.format(7.24, 2.67, "sharper") in said["0.3"]


def test_a_point_is_dragged_by_the_mouse_as_its_sliders_would_move_it(tab):
    page, root = opened(tab, "border", reduced_motion="reduce")
    canvas = root.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box, wide = canvas.bounding_box(), root.evaluate("root => root.clientWidth")
    left, right, top, bottom = wide / 2 + 52, wide - 18, 24, 360  # of the plane of u and v, as it is drawn

    def place(u, v):
        x, y = left + (u - 0.4) / 3 * (right - left), bottom - (v + 0.7) / 2.6 * (bottom - top)
        return box["x"] + x * box["width"] / wide, box["y"] + y

    page.mouse.move(*place(3.0, 0.05))
    page.mouse.down()
    page.mouse.move(*place(2.0, 0.25), steps=3)
    page.mouse.up()
    page.mouse.move(*place(1.0, 1.0))  # let go: nothing follows
    found = [float(root.locator(f"#border-{name}").get_attribute("aria-valuetext")) for name in ("u", "v")]
    assert found == pytest.approx([2.0, 0.25], abs=0.05)
