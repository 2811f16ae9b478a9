"""A real browser without a window: Chromium, driven by Selenium; the same from Debian as in CI."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import pytest
from axe_selenium_python import Axe
from selenium import webdriver
from selenium.common import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.support import HELD, SHORT_TIMEOUT, descendants_of, wait_for

NEEDED: Final = os.environ.get("CI") or os.environ.get("DTL_TESTS_NEED_BROWSER")
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One window of a browser of the tests' own.

    Attributes:
        driver: What Selenium gives; without types, as most of its functions are.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self.driver: Any = None
        self._driver_pid = 0
        self._profile = tempfile.mkdtemp(prefix="dtl-browser-")

    def __enter__(self) -> Self:
        options = webdriver.ChromeOptions()
        options.binary_location, driver = _programs()
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--window-size=1280,900",
            f"--user-data-dir={self._profile}",
        ):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = Service(driver)
        self.driver = webdriver.Chrome(options=options, service=service)
        process: Any = service.process
        self._driver_pid = process.pid
        HELD.append(self._held)
        return self

    def __exit__(self, *exc_info: object) -> None:
        pids = self._held()
        self.driver.quit()
        HELD.remove(self._held)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        shutil.rmtree(self._profile, ignore_errors=True)

    def _held(self, among: Iterable[int] | None = None) -> list[int]:
        return [self._driver_pid, *descendants_of(self._driver_pid, among)]

    def open(self, path: str) -> None:
        """Go to an address of the site."""
        self.driver.get(f"{self._address}{path}")

    def find(self, selector: str) -> Any:
        """Return the first element that fits, once there is one: a page may still be coming."""
        (first, *_) = self.wait_for(lambda: self.all(selector), selector)
        return first

    def all(self, selector: str) -> list[Any]:
        """Return all elements that fit."""
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str = "body") -> list[str]:
        """Return what can be read in each element that fits, also while another page comes."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText)",
            selector,
        )
        return found

    def text(self) -> str:
        """Return what can be read on the page."""
        return "".join(self.texts())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        ActionChains(self.driver).send_keys(key).perform()

    def focused(self, attribute: str) -> Any:
        """Return an attribute of what has the focus."""
        return self.run("return document.activeElement.getAttribute(arguments[0])", attribute)

    def wait_for(self, condition: Callable[[], Any], message: str) -> Any:
        """Wait for something on the page, which may meanwhile give way to another."""

        def look() -> Any:
            try:
                return condition()
            except WebDriverException:  # what the condition looks at is gone
                return None

        return wait_for(look, SHORT_TIMEOUT, message=message)

    def be(self, *, dark: bool = False, width: int = 1280) -> None:
        """Prefer light or dark, in a window of that width; below 700 pixels: on a phone."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        self.tell("Emulation.setDeviceMetricsOverride", **size)

    def violations(self, within: str = "#content") -> list[str]:
        """Return what axe says against a part of the page."""
        axe = Axe(self.driver)
        axe.inject()
        found: Iterable[dict[str, Any]] = axe.run(context=within)["violations"]
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found
            for node in each["nodes"]
        ]

    def console(self) -> list[str]:
        """Return what the console has since the last call, but for missing icons."""
        logs: list[dict[str, Any]] = self.driver.get_log("browser")
        return [each["message"] for each in logs if "favicon.ico" not in each["message"]]

    def source(self) -> str:
        """Return the page's HTML, also where no script may run."""
        return str(self.driver.page_source)

    def tell(self, command: str, **parameters: Any) -> None:
        """Give the browser an order of its DevTools."""
        self.driver.execute_cdp_cmd(command, parameters)


def _programs() -> tuple[str, str]:
    browsers = [found for name in _BROWSERS if (found := shutil.which(name))]
    driver = shutil.which("chromedriver")
    if browsers and driver:
        return browsers[0], driver
    if NEEDED:
        pytest.fail("there is no Chromium with chromedriver; .ci/run installs them")
    pytest.skip("there is no Chromium; as root `apt-get install chromium chromium-driver`")
