"""The figures of a finished page: a drawing per theme, opened by a tap, and a file to take along."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from descent import figures
from descent.book.site import drawings
from matplotlib import rcParams
from matplotlib.colors import to_rgb

FIGURE = (
    '<figure class="align-default" id="fig-a"><img alt="It falls." class="dark-light" src="_images/a.svg" />'
    "<figcaption>A figure.</figcaption></figure>\n"
)
STRIP = '<details class="strip"><summary>data · code</summary><p>data <a href="x.csv">x.csv</a></p></details>'
DARK_GROUND = "#121212"
TEXTS = ("axes.label", "axes.title", "xtick.label", "ytick.label", "legend.font", "legend.title_font", "font.size")


@pytest.fixture
def folder(tmp_path):
    figures.use_style()
    figure, (axis,) = figures.panels(height=2.0)
    figures.line(axis, [0, 1], [0, 1], figures.ARMS["plain"], label="plain")
    axis.set_xlabel("steps")
    axis.legend()
    (tmp_path / "_images").mkdir()
    figure.savefig(tmp_path / "_images" / "a.svg", metadata={"Date": None})
    return tmp_path


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_figure_is_drawn_for_both_themes_and_linked(folder):
    page = drawings.shown(FIGURE + STRIP, folder)
    assert re.findall(r'<a class="enlarge (on-\w+)" href="([^"]+)"', page) == [
        ("on-light", "_images/a.svg"),
        ("on-dark", "_images/a.dark.svg"),
    ]
    assert page.count('alt="It falls."') == 2
    assert page.count('loading="lazy"') == page.count('width="672" height="192"') == 2
    assert '<p><a class="vector" href="_images/a.svg" download="fig-a.svg">' in page
    light, dark = ((folder / "_images" / f"a{kind}.svg").read_text() for kind in ("", ".dark"))
    plain = figures.ARMS["plain"].color
    assert plain in light
    assert plain not in dark
    assert figures.DARK[plain] in dark
    assert figures.GROUND not in dark


def test_a_copy_outside_a_figure_follows_the_theme_too(folder):
    page = drawings.shown('<p><img alt="It falls." class="dark-light" src="_images/a.svg" /></p>', folder)
    assert re.findall(r'<a class="enlarge (on-\w+)"', page) == ["on-light", "on-dark"]


def test_a_strip_belongs_to_the_figure_before_it(folder):
    page = drawings.shown(FIGURE + FIGURE.replace("fig-a", "fig-b") + STRIP, folder)
    assert page.count("download=") == 1
    assert 'download="fig-b.svg"' in page


def test_what_is_no_drawing_is_left_alone(folder):
    page = FIGURE.replace(".svg", ".png") + STRIP
    assert drawings.shown(page, folder) == page


def test_drawings_are_the_same_twice(folder):
    first = (folder / "_images" / "a.svg").read_bytes()
    figure, (axis,) = figures.panels(height=2.0)
    figures.line(axis, [0, 1], [0, 1], figures.ARMS["plain"], label="plain")
    axis.set_xlabel("steps")
    axis.legend()
    figure.savefig(folder / "again.svg", metadata={"Date": None})
    assert (folder / "again.svg").read_bytes() == first


@pytest.mark.parametrize("color", figures.DARK)
def test_every_colour_can_be_read_on_its_page(color):
    assert contrast(color, figures.GROUND) >= 4.5
    assert contrast(figures.DARK[color], DARK_GROUND) >= 4.5


def test_no_arm_has_the_colour_of_another_nor_of_what_is_no_arm():
    momenta = [figures.momentum_look(m).color for m in (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)]
    arms = {figures.ARMS[name].color for name in ("plain", "momentum", "average", "plain, matched step")}
    assert len(set(momenta)) == len(momenta)
    assert arms & set(momenta) == {figures.momentum_look(0.0).color, figures.momentum_look(0.9).color}
    assert not {look.color for look in figures.SERIES} & ({*momenta} | arms)
    assert figures.momentum_look(0.3).color != figures.ARMS["plain"].color


def test_no_text_is_drawn_below_nine_points():
    figures.use_style()
    sizes = {name: size for name, size in rcParams.items() if "size" in name and name.startswith(TEXTS)}
    assert {name for name in sizes if sizes[name] < 9} == set()
    sources = [path.read_text(encoding="utf-8") for path in Path(figures.__file__).parent.rglob("*.py")]
    typed = [float(size) for text in sources for size in re.findall(r"(?:fontsize|labelsize)=([\d.]+)", text)]
    assert [size for size in typed if size < 9] == []
    assert figures.TEXT >= 9
