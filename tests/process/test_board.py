"""The example site in a real browser: failures, another try, two tabs, a server that goes away."""

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.leaks import remove_objects
from tests.process.browser import Browser
from tests.support import ROOT, Site

CARDS = ".task .status"
# The bar of a running task moves on: how long it has run, as the card says.
RAN = '.task [data-fact="ran"]'


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One server for the whole module."""
    namespace = f"board-{uuid4().hex}"
    with Site(
        "example_site.wsgi", workers=2, settings="example_site.settings",
        cwd=ROOT / "examples" / "site", env={"EXAMPLE_NAMESPACE": namespace},
    ) as made:  # fmt: skip
        yield made
    remove_objects(namespace)


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """One browser, with an empty list of tasks."""
    with Browser(f"http://127.0.0.1:{site.port}") as made:
        yield made


def start(browser: Browser, kind: str, size: str = "Short") -> None:
    """Start a task as a visitor does."""
    browser.find(f'[name="kind"][value="{kind}"]').click()
    (label,) = (each for each in browser.all(".sizes .choice") if each.text == size)
    label.click()
    browser.find("button[type=submit]").click()


def test_a_failed_task_runs_again(browser: Browser) -> None:
    """Its error and traceback are there; what runs again is a task of its own."""
    browser.open("/")
    start(browser, "fail")
    browser.wait_for(lambda: browser.texts(CARDS) == ["✕ Failed"], "the failure")
    assert "ValueError: Cannot go on with number" in browser.texts(".outcome")[0]
    browser.find(".again").click()
    browser.wait_for(lambda: browser.texts(CARDS) == ["✕ Failed"] * 2, "the second failure")


def test_two_tabs_share_one_list(browser: Browser) -> None:
    """What one starts and removes, the other shows; neither takes back what the other did."""
    browser.open("/")
    first = browser.driver.current_window_handle
    there = len(browser.texts(CARDS))
    browser.driver.switch_to.new_window("tab")
    browser.open("/")
    start(browser, "pi")
    browser.wait_for(lambda: browser.texts(CARDS)[:1] == ["✓ Successful"], "the result")
    browser.driver.switch_to.window(first)
    browser.wait_for(lambda: len(browser.texts(CARDS)) == there + 1, "the other tab's task")
    start(browser, "pi")
    browser.wait_for(lambda: browser.texts(CARDS)[:2] == ["✓ Successful"] * 2, "both results")
    browser.find("#clear").click()
    (other,) = (each for each in browser.driver.window_handles if each != first)
    browser.driver.switch_to.window(other)
    browser.wait_for(lambda: browser.texts(CARDS) == [], "an empty list")
    browser.driver.close()
    browser.driver.switch_to.window(first)


def test_a_server_that_goes_away(browser: Browser, site: Site) -> None:
    """The page says so, and its clocks stand still; when the server is back it goes on."""
    browser.open("/")
    start(browser, "primes", "Long")
    browser.wait_for(lambda: browser.texts(CARDS) == ["▶ Running"], "a running task")
    pids = [site.pid, *site.worker_pids()]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        browser.wait_for(lambda: "not reachable" in browser.texts("#link")[0], "its absence")
        ran = browser.texts(RAN)
        browser.wait_for(lambda: not browser.all(".chip[data-lit]"), "nothing that moves")
        assert browser.texts(RAN) == ran
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    browser.wait_for(lambda: browser.texts("#link") == ["Live"], "its return")
    browser.find(".cancel").click()
    browser.wait_for(lambda: browser.texts(CARDS) == ["⊘ Cancelled"], "the end")


def test_without_javascript(browser: Browser) -> None:
    """The form leads to a page that renews itself, from which the task is run again."""
    done = 'article[data-status="SUCCESSFUL"]'
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open("/")
        start(browser, "pi")
        browser.wait_for(lambda: browser.all(done), "the result")
        first = browser.driver.current_url
        browser.find("article form button").click()
        browser.wait_for(lambda: browser.driver.current_url != first, "another page")
        browser.wait_for(lambda: browser.all(done), "the second result")
        browser.find("main > p a").click()
        browser.wait_for(lambda: browser.all(".recent a"), "the list of tasks")
    finally:
        browser.tell("Emulation.setScriptExecutionDisabled", value=False)
