"""The example site: its own tests pass, and its cancel button stops what runs in the pool."""

import http.cookiejar
import json
import os
import re
import subprocess
import sys
import urllib.request
from typing import Any

from tests.support import LONG_TIMEOUT, ROOT, Site, wait_for

SITE = ROOT / "examples" / "site"
# Of a task that must not end before it is cancelled: 40 s of a core.
FOR_LONG = {"kind": "primes", "size": "400"}


def test_its_own_tests_pass() -> None:
    """As a visitor of the repository would run them."""
    done = subprocess.run(
        [sys.executable, "manage.py", "test"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "example_site.settings"},
        cwd=SITE, capture_output=True, text=True, timeout=LONG_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Ran 21 tests" in done.stderr


def test_the_page_misses_its_server_in_time() -> None:
    """What its script waits for, and a tick, are less than the five seconds that are promised."""
    script = (SITE / "board" / "static" / "board" / "main.js").read_text()
    times = {name: int(ms) for name, ms in re.findall(r"const (\w+)_MS = (\d+);", script)}
    assert times["LOST"] + times["TICK"] < 5000
    assert "the page says so within five seconds" in (ROOT / "examples" / "README.md").read_text()


class Browser:
    """As much of one as the page's script needs: cookies, and the token in its header."""

    def __init__(self, site: Site) -> None:
        self._address = f"http://127.0.0.1:{site.port}"
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._cookies)
        )
        self._open("/")

    def get(self, path: str) -> Any:
        """The JSON at an address."""
        return json.loads(self._open(path))

    def post(self, path: str, fields: dict[str, str]) -> Any:
        """The JSON that a request of the script is answered with."""
        (token,) = (cookie.value for cookie in self._cookies)
        headers = {"X-CSRFToken": str(token), "Content-Type": "application/json"}
        return json.loads(self._open(path, json.dumps(fields).encode(), headers))

    def _open(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        request = urllib.request.Request(self._address + path, body, headers or {})
        with self._opener.open(request) as response:
            content: bytes = response.read()
            return content


def test_a_running_task_is_cancelled(namespace: str) -> None:
    """Whichever web worker gets the request, one that waits likewise; and then it runs again."""
    with Site(
        "example_site.wsgi", workers=2, settings="example_site.settings", cwd=SITE,
        env={"EXAMPLE_NAMESPACE": namespace},
    ) as site:  # fmt: skip
        browser = Browser(site)
        running = f"/jobs/{browser.post('/jobs/', FOR_LONG)['id']}/"
        waiting = f"/jobs/{browser.post('/jobs/', {**FOR_LONG, 'delay_s': '600'})['id']}/"
        wait_for(lambda: browser.get(running)["status"] == "RUNNING", LONG_TIMEOUT)
        for job in (running, waiting):
            assert browser.post(f"{job}cancel/", {})["cancelled"] is True
            _wait_until_failed(browser, job)
            assert browser.get(job)["error"]["type"] == "TaskCancelled"
            assert browser.post(f"{job}cancel/", {})["cancelled"] is False
        again = f"/jobs/{browser.post(f'{running}again/', {})['id']}/"
        wait_for(lambda: browser.get(again)["status"] == "RUNNING", LONG_TIMEOUT)
        assert browser.post(f"{again}cancel/", {})["cancelled"] is True
        _wait_until_failed(browser, again)


def _wait_until_failed(browser: Browser, job: str) -> None:
    wait_for(lambda: browser.get(job)["status"] == "FAILED")
