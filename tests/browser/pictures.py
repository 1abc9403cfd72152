"""The pictures of the README, taken from the built site: python tests/browser/pictures.py."""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path

from descent.book.commands.cli import server
from descent.book.sources.project import find_project
from PIL import Image
from playwright.sync_api import Page, sync_playwright

SHOWN = {"landing": "index.html", "ledger": "ledger.html"}
"""By picture, the page whose first window it shows."""
WINDOW = {"width": 1100, "height": 850}
COLOURS = 200


def main() -> None:
    """Take every picture anew."""
    project = find_project(Path(__file__).parent)
    browser_path = shutil.which("chromium") or sys.exit("there is no chromium on this machine; install one")
    with server(project, "127.0.0.1", 0, quiet=True) as site, sync_playwright() as playwright:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WINDOW, reduced_motion="reduce", color_scheme="light")
        for name, address in SHOWN.items():
            page.goto(f"http://127.0.0.1:{site.server_port}/{address}", wait_until="networkidle")
            path = project.root / ".github" / f"readme-{name}.png"
            path.write_bytes(picture(page))
            print(f"{path.relative_to(project.root)}: {path.stat().st_size // 1024} KiB")
        browser.close()
        site.shutdown()


def picture(page: Page) -> bytes:
    """Return the window in few colours."""
    page.wait_for_timeout(1000)  # until everything is drawn
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    packed = io.BytesIO()
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()


if __name__ == "__main__":
    main()
