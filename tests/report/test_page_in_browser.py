"""The page in headless Chromium: no console error, and tabs, hover and previews work."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Debian's chromium and the Python package playwright, which drives it",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser: Any, page: Path, width: int, theme: str) -> tuple[Any, list[str]]:
    """Returns the open page, and a list that takes up what goes wrong on it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=width < 500
    )
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "file:")) else wrong.append("net"),
    )
    tab.goto(page.as_uri())
    return tab, wrong


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_it_fits_every_width_and_hostile_names_do_nothing(
    browser: Any, page: Path, width: int, theme: str
):
    tab, wrong = opened(browser, page, width, theme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("window.stolen === undefined")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) > 384
    assert light is (theme == "light")
    assert wrong == []


def test_tabs_hover_previews_and_the_keyboard(browser: Any, page: Path):
    tab, wrong = opened(browser, page, 1280, "light")
    tab.get_by_role("radio", name="over time").check()
    assert tab.locator("#charts .over-time").first.is_visible()
    assert not tab.locator("#charts .over-steps").first.is_visible()
    strip = tab.locator("button[data-loop]").first
    assert strip.locator(".loop").count() == 0
    strip.hover()
    assert strip.locator(".loop").evaluate("loop => loop.decode().then(() => loop.naturalWidth)")
    tab.mouse.move(0, 0)
    assert strip.locator(".loop").count() == 0
    strip.focus()
    tab.keyboard.press("Enter")
    assert strip.get_attribute("aria-pressed") == "true"
    if tab.locator("circle").count():  # where scikit-learn is installed
        tab.locator("circle").last.hover()  # nothing lies above it
        name = tab.locator(".seen span").first.inner_text()
        assert ".mp4" in name
        tab.locator("svg.plane").first.focus()
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert tab.locator(".seen span").first.inner_text() != name
        before = tab.locator("circle").first.get_attribute("class")
        tab.get_by_role("radio", name="cluster").check()
        after = tab.locator("circle").evaluate_all("all => all.map(c => c.getAttribute('class'))")
        clusters = tab.locator("circle").evaluate_all("all => all.map(c => c.dataset.cluster)")
        shown = [f"c{number}" for number in clusters]
        assert before and [each.split()[0] for each in after] == shown
    assert wrong == [] and tab.evaluate("window.stolen === undefined")
