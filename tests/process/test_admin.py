"""The admin in a real browser, on a site with a pool of its own and a strict policy for scripts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.process.browser import Browser
from tests.process.client import Client, serving
from tests.support import ROOT

TASKS_AT = "/admin/django_tasks_local_admin/task/"
LIST = f"{TASKS_AT}list/"
SETTINGS = "tests.site.admin_settings"
FIRST = "return document.querySelector('.lt-tasks tbody a').pathname"
NASTY = "<img src=x onerror=alert(1)>\x1b[2J\u202e"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database and the tasks' gates are."""
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """The site, with an operator, tasks that have failed and one that runs."""
    env = {"DJANGO_SETTINGS_MODULE": SETTINGS, "DTL_DB": str(folder / "db.sqlite3")}
    for words in (["migrate", "-v0"], ["createsuperuser", "--noinput", "-v0"]):
        operator = {"USERNAME": "operator", "PASSWORD": "secret", "EMAIL": "o@example.com"}
        more = {f"DJANGO_SUPERUSER_{name}": value for name, value in operator.items()}
        command = [sys.executable, "-m", "django", *words]
        subprocess.run(command, env=os.environ | env | more, cwd=ROOT, check=True)
    app = "tests.site.admin_wsgi:application"
    with serving(env=env, app=app, workers=1, threads=4) as made:
        made.error(made.enqueue("add", 1, NASTY))
        made.run("add", 1, 2)
        made.enqueue("report_and_hold", str(folder / "gate"))
        yield made
        (folder / "gate").touch()


@pytest.fixture(scope="module")
def browser(client: Client) -> Iterator[Browser]:
    """A browser in which the operator is logged in."""
    with Browser(f"http://127.0.0.1:{client.site.port}") as made:
        made.open(TASKS_AT)
        made.find("[name=username]").send_keys("operator")
        made.find("[name=password]").send_keys("secret", Keys.ENTER)
        made.wait_for(lambda: made.all("#lt-failures"), "the overview")
        yield made


@pytest.fixture(autouse=True)
def at_a_desk(browser: Browser) -> Iterator[None]:
    """Each test begins in light, on a wide screen, and leaves a console without errors."""
    browser.be()
    browser.console()
    yield
    assert browser.console() == []


def test_from_the_index_to_a_failure(browser: Browser) -> None:
    """Four clicks for one who kept no id: the tasks, the failed ones, the last, its traceback."""
    browser.open("/admin/")
    browser.find(".model-task a").click()
    browser.wait_for(lambda: browser.all(".lt-failed a"), "the overview")
    browser.find(".lt-failed a").click()
    browser.wait_for(lambda: browser.texts(".lt-tasks .lt-state") == ["Failed"], "the list")
    browser.find(".lt-tasks tbody a").click()
    browser.wait_for(
        lambda: "unsupported operand type" in "".join(browser.texts("pre")), "the traceback"
    )
    assert browser.all("img[src=x]") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "phone"])
def test_nothing_is_in_the_way(browser: Browser, dark: bool, width: int) -> None:
    """Axe finds nothing on any page, in either scheme; no page is wider than a phone."""
    browser.be(dark=dark, width=width)
    browser.open(f"{LIST}?status=failed")
    failed = browser.run(FIRST)
    browser.open(f"{LIST}?status=running")
    running = browser.run(FIRST)
    for page in (TASKS_AT, LIST, failed, running):
        browser.open(page)
        assert browser.violations() == [], page
        assert browser.run("return document.documentElement.scrollWidth") <= width, page
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 18, 18)" if dark else "rgb(255, 255, 255)")


def test_by_keyboard_alone(browser: Browser, client: Client) -> None:
    """Select a task, ask for it to be cancelled, say yes; what has the focus can be seen."""
    waiting = client.enqueue("add", 1, 2, using={"run_after_s": 3600})
    browser.open(f"{LIST}?status=waiting")
    browser.run("document.getElementById(arguments[0]).focus()", f"row-{waiting}")
    browser.press(Keys.SPACE)
    while browser.focused("value") != "cancel":
        browser.press(Keys.TAB)
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.ENTER)
    browser.wait_for(lambda: "Cancel 1 task?" in browser.text(), "the question")
    while browser.focused("name") != "confirmed":
        browser.press(Keys.TAB)
    assert browser.violations() == []
    browser.press(Keys.ENTER)
    browser.wait_for(lambda: "Cancelled: tests.site.tasks.add" in browser.text(), "the message")
    assert browser.violations() == []
    assert client.status(waiting) == "FAILED"


def starts(browser: Browser) -> list[float]:
    """When the page has asked for its live parts, in ms since it was opened."""
    found: list[float] = browser.run(
        "return performance.getEntriesByType('resource')"
        ".filter(each => each.initiatorType == 'fetch').map(each => each.startTime)"
    )
    return found


def asked(browser: Browser) -> int:
    """How often it has."""
    return len(starts(browser))


def test_it_is_live(browser: Browser, client: Client) -> None:
    """What comes is shown; boxes stay ticked; off means off, and that is remembered."""
    browser.open(LIST)
    every = Select(browser.find("#lt-every"))
    assert every.first_selected_option.text == "every 5 seconds"
    every.select_by_value("1")
    ticked = browser.run(
        "const box = document.querySelector('.lt-tasks input[name=id]');"
        "box.focus(); box.click(); return box.id"
    )
    new = client.enqueue("add", 40, 2)
    client.value(new)
    browser.wait_for(lambda: browser.all(f"#row-{new}"), "the new task")
    assert browser.run("return document.getElementById(arguments[0]).checked", ticked)
    assert browser.focused("id") == ticked
    Select(browser.find("#lt-every")).select_by_value("0")
    browser.open(LIST)
    assert Select(browser.find("#lt-every")).first_selected_option.text == "off"
    assert asked(browser) == 0


def test_a_page_that_cannot_be_seen_is_not_renewed(browser: Browser) -> None:
    """While another tab is in front, it asks for nothing; it does as soon as it is seen again."""
    browser.open(TASKS_AT)
    Select(browser.find("#lt-every")).select_by_value("1")
    browser.run(
        "window.moments = [];"
        "document.addEventListener("  # captures, so that it comes first
        "  'visibilitychange', () => moments.push(performance.now()), true);"
    )
    driver, first = browser.driver, browser.driver.current_window_handle
    driver.switch_to.new_window("tab")
    browser.open(TASKS_AT)
    browser.wait_for(lambda: asked(browser) >= 2, "two renewals here")
    driver.close()
    driver.switch_to.window(first)
    browser.wait_for(lambda: len(browser.run("return moments")) == 2, "the first tab in front")
    hidden_at, seen_at = browser.run("return moments")
    browser.wait_for(lambda: max(starts(browser), default=0) >= seen_at, "a renewal at once")
    assert not [each for each in starts(browser) if hidden_at < each < seen_at]


def test_a_server_that_does_not_answer(browser: Browser) -> None:
    """The page says so, and as of when it is; and no longer once it is answered."""
    browser.open(LIST)
    Select(browser.find("#lt-every")).select_by_value("1")
    browser.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.wait_for(lambda: "No answer. This is as of" in browser.text(), "the note")
    assert browser.violations() == []
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline | {"offline": False})
    browser.wait_for(lambda: "No answer" not in browser.text(), "its end")
    Select(browser.find("#lt-every")).select_by_value("0")
    browser.console()  # has the failed requests
