"""Chromium without a window, driven by Selenium, for tests of pages that we serve ourselves."""

from __future__ import annotations

import base64
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver.remote.webelement import WebElement

PROGRAM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # its sandbox does not run as root, and the pages are ours
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no page needs a network
)
CONTROLS = "a, button, textarea, select, input:not([type=hidden])"
LONG = 10
"""Seconds to wait for a page, on a busy machine."""
COLOURS = 256
"""Colours of a screenshot: with a palette of one byte for a pixel, the file is three times smaller."""


class Chromium(Chrome):
    """A browser with a viewport of a given size."""

    height = 0

    @property
    def text(self) -> str:
        """The text of the page, as it is shown, with each run of white space as one space."""
        return self.text_of("body")

    def text_of(self, selector: str) -> str:
        """Return the text of the first element of a CSS selector, at once: a script of the page may replace it."""
        return " ".join(self.execute_script(f"return document.querySelector('{selector}').innerText").split())

    def show(self, width: int, height: int) -> None:
        """Set the size of the viewport, in CSS pixels."""
        self.height = height
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def one(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector."""
        return self.find_element(By.CSS_SELECTOR, selector)

    def every(self, selector: str) -> list[WebElement]:
        """Return the elements of a CSS selector that are shown."""
        return [element for element in self.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]

    def named(self, name: str) -> WebElement:
        """Return the control with an accessible name."""
        others = []
        for control in self.every(CONTROLS):
            if control.accessible_name == name:
                return control
            others.append(control.accessible_name)
        pytest.fail(f"no control has the name {name!r}; these are there: {others}")

    def click(self, name: str) -> None:
        """Click a control that loads a page, and wait for the page."""
        self.execute_script("window.left = true;")
        self.named(name).click()
        self.until(lambda: self.execute_script("return !window.left;"), f"{name!r} loads no page")

    def wait_for(self, text: str) -> None:
        """Wait until the page has a text."""
        self.until(lambda: text in self.text, f"{text!r} is not on the page")

    def until(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait until a condition is true. Its errors do not end this, because a page may be replaced by the next."""
        wait = WebDriverWait(self, LONG, 0.05, ignored_exceptions=[WebDriverException])
        wait.until(lambda _: condition(), otherwise)

    def press(self, *keys: str, shift: bool = False) -> WebElement:
        """Press keys. Return the element that then has the focus."""
        held = [Keys.SHIFT] * shift
        actions = ActionChains(self)
        for key in held:
            actions.key_down(key)
        actions.send_keys(*keys)
        for key in held:
            actions.key_up(key)
        actions.perform()
        return self.switch_to.active_element

    def wider_than_the_page(self) -> list[str]:
        """Return the elements that reach out of the viewport at its right, as HTML."""
        found: list[str] = self.execute_script(
            "return [...document.querySelectorAll('*')].filter((one) => one.getBoundingClientRect().right > innerWidth)"
            ".map((one) => one.outerHTML.slice(0, 80));"
        )
        scrolls = "return document.documentElement.scrollWidth > innerWidth;"
        return found or ["the page itself"] * bool(self.execute_script(scrolls))

    def without_a_name(self) -> list[str]:
        """Return the controls without an accessible name, as HTML."""
        return [str(one.get_attribute("outerHTML")) for one in self.every(CONTROLS) if not one.accessible_name]

    def shoot(self, name: str) -> None:
        """Save what the viewport shows as a PNG, if the tests are asked for it (``make screenshots``)."""
        if folder := os.environ.get("SCREENSHOTS"):
            from PIL import Image  # noqa: PLC0415 - no other test needs it

            taken = self.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
            image = Image.open(io.BytesIO(base64.b64decode(taken))).convert("RGB")
            Path(folder).mkdir(parents=True, exist_ok=True)
            few = image.quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(Path(folder, f"{name}.png"), optimize=True)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Start Chromium; skip the test if it is not installed, or fail if CI is set."""
    if PROGRAM is None or DRIVER is None:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail("CI is set, so this must not be skipped: Chromium is missing (tools/ensure-chromium)")
        pytest.skip("Chromium or its driver is missing: tools/ensure-chromium installs them")
    options = ChromeOptions()
    options.binary_location = PROGRAM
    # With its own home and its own folder for temporary files, it leaves nothing behind.
    with (
        TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        for argument in (*ARGUMENTS, f"--user-data-dir={folder}/profile"):
            options.add_argument(argument)
        environ = os.environ | {"HOME": folder, "TMPDIR": folder}
        browser = Chromium(options, Service(DRIVER, env=environ))  # a driver that is named is not downloaded
        try:
            yield browser
        finally:
            browser.quit()
