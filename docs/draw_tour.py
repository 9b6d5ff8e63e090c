"""Draws the pictures of docs/tour.md: the page of `vidssl report` in headless Chromium.

    python docs/draw_tour.py vidssl-demo

The workspace is that of `vidssl demo`. Debian's chromium and the Python package playwright draw.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import cv2
from playwright.sync_api import Page, sync_playwright

from vidssl.stages import report
from vidssl.workspace.workspace import Workspace

IMAGES = Path(__file__).with_name("images")
WIDTH, HEIGHT, QUALITY = 1180, 640, 80
SHOWN = {  # name of the picture: part of the page, and its theme
    "verdict": ("verdict", "light"),
    "curves": ("learning", "dark"),
    "strips": ("retrieval", "light"),
    "maps": ("maps", "dark"),
    "confusion": ("confusion", "light"),
}


def draw(page: Path, chromium: str) -> None:
    """Writes the pictures of a page."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            size = {"width": WIDTH, "height": HEIGHT}
            tab = browser.new_context(viewport=size, color_scheme=theme).new_page()
            tab.goto(page.resolve().as_uri())
            for name, (part, wanted) in SHOWN.items():
                if wanted == theme:
                    write(tab, part, IMAGES / f"report-{name}.jpg")
        browser.close()


def write(tab: Page, part: str, path: Path) -> None:
    """Writes what a window shows at the head of a part, without the bar of links."""
    tab.evaluate("document.querySelector('nav').style.display = 'none'")
    tab.evaluate("part => document.getElementById(part).scrollIntoView()", part)
    tab.evaluate(  # pictures are decoded when they come into view
        "Promise.all(Array.from(document.images)"
        ".filter(i => !i.hidden && Math.abs(i.getBoundingClientRect().top) < 2 * innerHeight)"
        ".map(i => i.decode()))"
    )
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        tab.screenshot(path=file.name)
        cv2.imwrite(str(path), cv2.imread(file.name), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def main() -> None:
    """Reports the workspace that was named, and draws its page."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium to draw with: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        report.run(Workspace(sys.argv[1]), report.ReportOptions(page))
        draw(page, chromium)


if __name__ == "__main__":
    main()
