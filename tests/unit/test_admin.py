"""Tasks in the admin: what its pages show, that they leave no trace, and that they are harmless."""

import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core.management import call_command
from django.tasks import task_backends
from django.test import Client, override_settings
from django.utils import timezone

from django_tasks_local import wait_finished
from django_tasks_local.backends import thread
from django_tasks_local.contrib.admin.aliases import ShownAlias
from django_tasks_local.contrib.admin.apps import check_admin
from django_tasks_local.inspection.looks import Numbers
from django_tasks_local.naming import copy_task, encode_task
from django_tasks_local.pool import connections as sites
from django_tasks_local.ring import Due, Ring, ring_exists
from tests.admin_project import ALL, TASKS_AT, admin_installed, client_of, text_of, user
from tests.settings import TASKS
from tests.tasks import add
from tests.unit.test_commands_list import ERROR, NASTY, PROCESS, Nasty, failed, job, put, succeeded

LIST = f"{TASKS_AT}list/"
META = b"tests.tasks:nothing"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The admin, and its tables."""
    with admin_installed(tmp_path_factory.mktemp("admin") / "db.sqlite3"):
        yield


@pytest.fixture
def client() -> Client:
    """A browser of an operator who may do everything; other tests have left no task in threads."""
    for alias in ("default", "thread"):
        backend: Any = task_backends[alias]
        backend.close()
    return client_of(user(*ALL))


def page(client: Client, url: str, status: int = 200) -> str:
    """What is answered."""
    answer = client.get(url)
    assert answer.status_code == status, answer.headers
    return answer.content.decode()


def ids(html: str) -> list[str]:
    """The ids of the tasks in a list, in its order."""
    return re.findall(r'name="id" value="([^"]+)"', html)


def change(result_id: str) -> str:
    """Where a task is shown."""
    return f"{TASKS_AT}{result_id}/change/"


def test_the_failures_of_last_night(site_ring: Callable[[], Ring], client: Client) -> None:
    """Without an id: the index of the admin, the number of failures, their list, one of them."""
    ring = site_ring()
    first, second = failed(ring, ERROR), failed(ring, ("shop.errors.Sold", "shop.errors.Sold: out"))
    succeeded(ring)
    put(ring)
    assert f'href="{TASKS_AT}"' in page(client, "/admin/")
    overview = page(client, TASKS_AT)
    numbers = re.findall(r"<strong>(\d+)</strong> (\w+)</a>", overview)
    assert numbers[-5:] == [
        ("2", "Failed"), ("0", "Running"), ("1", "Waiting"), ("0", "Deferred"), ("1", "Successful"),
    ]  # fmt: skip
    failures = f"{LIST}?status=failed&amp;alias=process"
    assert f'href="{failures}"' in overview
    rows = page(client, failures.replace("&amp;", "&"))
    assert ids(rows) == [second, first]
    assert "Sold: out" in rows
    detail = page(client, change(first))
    assert "ValueError: no 13" in detail
    assert "Traceback (most recent call last):\n  x\nValueError: no 13</pre>" in detail


def test_an_error_of_many_megabytes(site_ring: Callable[[], Ring], client: Client) -> None:
    """Its page shows where it came from and how it ends."""
    text = f"ValueError: no {'13 ' * 2**20}"
    detail = page(client, change(failed(site_ring(), (ERROR[0], f"Traceback\n  x\n{text}\n"))))
    assert len(detail) < 100_000
    assert "Traceback\n  x\nValueError: no 13" in detail
    assert "\n  [...]\n" in detail


def test_looking_leaves_no_trace(site_ring: Callable[[], Ring], client: Client) -> None:
    """No word of the ring changes, the order of use included, and nothing attaches or is opened."""
    ring = site_ring()
    old = failed(ring, ERROR)
    succeeded(ring)
    put(ring)
    opened = dict(thread._pools)
    before, attached = bytes(ring.segment.bytes), len(sites._sites)
    for url in (TASKS_AT, LIST, f"{LIST}?status=waiting", f"{LIST}?q=nothing", change(old)):
        page(client, url)
    assert bytes(ring.segment.bytes) == before
    assert (len(sites._sites), thread._pools) == (attached, opened)


def test_the_list(site_ring: Callable[[], Ring], client: Client) -> None:
    """By status, alias, queue, import path and a part of it; what waits comes as it will run."""
    ring = site_ring()
    lost, done = failed(ring, ERROR), succeeded(ring)
    later = put(ring, f"{__name__}:job".encode(), priority=-5)
    report = put(ring, encode_task(copy_task(job, queue_name="reports")), priority=5)
    running = put(ring, priority=100)
    assert ring.claim() is not None
    found = {
        query: ids(page(client, f"{LIST}?{query}"))
        for query in (
            "", "status=failed", "status=running", "status=waiting", "status=successful",
            "alias=process", "alias=thread", "queue=reports", "task=tests.tasks.nothing", "p=2",
            "q=TEST_COMMANDS_LIST.J", "q=no.such", "status=x&p=x", "p=99999999999999",
        )
    }  # fmt: skip
    everything = [running, report, later, done, lost]
    assert found == {
        "": everything,
        "status=failed": [lost],
        "status=running": [running],
        "status=waiting": [report, later],
        "status=successful": [done],
        "alias=process": everything,
        "alias=thread": [],
        "queue=reports": [report],
        "task=tests.tasks.nothing": [running, done, lost],
        "p=2": [],
        "q=TEST_COMMANDS_LIST.J": [report],
        "q=no.such": [],
        "status=x&p=x": everything,
        "p=99999999999999": everything,
    }
    html = page(client, LIST)
    assert re.findall(r"<option>(tests[^<]+)</option>", html) == sorted(
        {"tests.tasks.nothing", f"{__name__}.job", "tests.unit.test_commands_list.job"}
    )
    for name, number in {"Failed": 1, "Running": 1, "Waiting": 2, "Successful": 1}.items():
        assert f"{name} {number}" in text_of(html)


def test_pages_and_ids(site_ring: Callable[[], Ring], client: Client) -> None:
    """A long list has pages; an id leads to its task, and one that is unknown is said to be so."""
    ring = site_ring()
    waiting = [put(ring) for _ in range(60)]
    first = page(client, f"{LIST}?status=waiting")
    assert ids(first) == waiting[:50]
    assert 'href="?status=waiting&amp;p=2"' in first
    assert ids(page(client, f"{LIST}?status=waiting&p=2")) == waiting[50:]
    answer = client.get(LIST, {"q": f" {waiting[7].upper()} "})
    assert (answer.status_code, answer["Location"]) == (302, change(waiting[7]))
    unknown = "00000000-0000-8000-8000-000000000000"
    assert "There is no task with this id" in page(client, f"{LIST}?q={unknown}")
    for text in (unknown, "x%3Cb%3E"):
        missing = page(client, change(text), 404)
        assert "No alias has this task" in missing
        assert "<b>" not in missing


def test_nothing_is_harmful(site_ring: Callable[[], Ring], client: Client) -> None:
    """Control characters and HTML in names, messages, tracebacks, keys and values are shown."""
    ring, html = site_ring(), "<script>alert(1)</script><b title='x\">"
    nasty = f"{html}{NASTY}"
    text = f"Traceback:\n  {nasty}\nValueError: {nasty}\n"
    meta = f"shop{nasty[:-1]}:job".encode()
    metadata = json.dumps({nasty[:-1]: nasty[:-1]}).encode()
    result_id = put(ring, meta, ((nasty,), {nasty: Nasty()}), metadata=metadata)
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 2, f"<b>{NASTY[:-1]}")
    answers = [page(client, TASKS_AT)]
    ring.finish(claim, successful=False, outcome=ring.encode(("builtins.ValueError", text)))
    with override_settings(TASKS=with_options(ADMIN_ARGUMENTS=True)):
        answers += [page(client, url) for url in (TASKS_AT, LIST, change(result_id))]
    question = {"action": "retry", "id": result_id}
    answers.append(client.post(f"{TASKS_AT}act/", question).content.decode())
    client.post(f"{TASKS_AT}act/", question | {"confirmed": "yes"})
    answers += [page(client, TASKS_AT), page(client, "/admin/")]
    for answer in answers:
        assert {each for each in answer if not each.isprintable()} <= {"\n", "\xa0"}
        assert "<script>alert" not in answer
        assert "<b" not in re.sub(r"<(body|br|button)\b", "", answer)
    assert all("&lt;script&gt;" in answer for answer in answers[:-1])


def with_options(**options: Any) -> dict[str, Any]:
    """TASKS as `site_ring` has set it, with more options."""
    backend: Any = task_backends["process"]
    return TASKS | {"process": {"BACKEND": PROCESS, "OPTIONS": backend.options | options}}


class Loud:
    """A value of which is noted that it was unpickled."""

    heard: ClassVar[list[str]] = []

    def __setstate__(self, state: object) -> None:
        self.heard.append("unpickled")

    def __getstate__(self) -> object:
        return "state"


def test_arguments_are_hidden(site_ring: Callable[[], Ring], client: Client) -> None:
    """Arguments and return value show, and are unpickled, only with ADMIN_ARGUMENTS."""
    ring = site_ring()
    done = succeeded(ring, "the value", (("the argument",), {"name": "other"}))
    loud = succeeded(ring, Loud(), ((Loud(),), {}))
    for url in (TASKS_AT, LIST, change(loud)):
        page(client, url)
    assert Loud.heard == []
    hidden = page(client, change(done))
    assert "ADMIN_ARGUMENTS" in hidden
    with override_settings(TASKS=with_options(ADMIN_ARGUMENTS=True)):
        shown = text_of(page(client, change(done)))
        page(client, change(loud))
    assert Loud.heard == ["unpickled"] * 2
    assert "1 &#x27;the argument&#x27; name &#x27;other&#x27; Returned &#x27;the value" in shown
    for text in ("the argument", "other&", "the value"):
        assert text not in hidden
    many = put(ring, arguments=((*range(5000),), {"last": "one"}))
    with override_settings(TASKS=with_options(ADMIN_ARGUMENTS=True)):
        assert "99 98 100 99 and more 4901" in text_of(page(client, change(many)))


def test_states(site_ring: Callable[[], Ring], client: Client) -> None:
    """Progress of what runs, the moment of what is deferred, attempts, and code that has gone."""
    ring = site_ring()
    put(ring, priority=100)
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 4, "pages")
    html = page(client, LIST)
    assert '<progress max="100" value="25"' in html
    assert "1 of 4 · pages" in html
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    meta = encode_task(copy_task(job, run_after=moment))
    deferred = put(ring, meta, due_ns=int(moment.timestamp()) * 10**9)
    text = text_of(page(client, change(deferred)))
    assert "Status Deferred" in text
    assert "Not before 2100-01-01 01:00:00" in text  # in Zurich
    gone = put(ring, b"no.such:task")
    assert "leads to no task here any more" in page(client, change(gone))


def test_threads(client: Client) -> None:
    """Their tasks are those of this process, which is said; an alias that nothing used is empty."""
    backend: Any = task_backends["thread"]
    try:
        assert text_of(page(client, TASKS_AT)).count("Of this web process only") == 2
        assert not [key for key in thread._pools if key[3] == "thread"]
        result = add.using(backend="thread").enqueue(7)
        wait_finished(result, 10)
        later = add.using(backend="thread", run_after=timezone.now() + timedelta(hours=1)).enqueue(
            8
        )
        numbers = ShownAlias("thread", backend).numbers
        assert numbers == Numbers(running=0, waiting=0, deferred=1, failed=0, successful=1)
        assert ids(page(client, f"{LIST}?alias=thread")) == [later.id, result.id]
        assert "in this web process" in page(client, change(result.id))
    finally:
        backend.close()
    assert backend.opened_store() is None
    assert "or it has started since" in page(client, change(result.id), 404)


def test_other_backends_are_left_out(site_ring: Callable[[], Ring], client: Client) -> None:
    """In a sentence each, one that does not import, too; the others are there all the same."""
    ring = site_ring()
    result_id = put(ring)
    params = with_options()["process"]
    with override_settings(TASKS={
        "default": TASKS["immediate"], "inline": TASKS["inline"],
        "broken": {"BACKEND": "no.such.Backend"}, "process": params,
        "wrong": params | {"OPTIONS": {"MAX_WORKERS": 0}},
    }):  # fmt: skip
        text = text_of(page(client, TASKS_AT))
        assert ids(page(client, LIST)) == [result_id]
    assert "Left out: default, an ImmediateBackend." in text
    assert "Left out: inline, an InlineBackend." in text
    assert "Left out: broken, one that cannot be imported (" in text
    assert "django_tasks_local.E004" in text


def test_the_schedule(site_ring: Callable[[], Ring], client: Client) -> None:
    """What runs when, what came of it last, how often it was left out; no ring is made for it."""
    entry = {"ping": {"task": job.module_path, "every": 30}}
    with override_settings(TASKS=with_options(SCHEDULE=entry)):
        text = text_of(page(client, TASKS_AT))
        assert "Nothing was enqueued since the host started." in text
        assert re.search(r"ping \S+\.job every 30 s \d{4}-\d\d-\d\d \S+ never 0", text)
        backend: Any = task_backends["process"]
        assert not ring_exists(backend.spec().name)
        ring, (ping,) = site_ring(), backend.checked_options.schedule.entries
        ring.firing.adopt([(ping.key, ping.timing_key)], 10**18)
        for number in range(3):
            due = Due(ring.firing.rows()[ping.key], 10**18 + number + 1, overlap=False)
            arguments = ring.encode(((), {}))
            ring.firing.fire(due, META, arguments, priority=0, time_limit=0, metadata=b"{}")
        (result_id,) = ids(page(client, f"{LIST}?status=waiting"))
        html = page(client, TASKS_AT)
    assert f'<a href="{change(result_id)}">2001-09-09 03:46:40</a>' in html
    assert "2001-09-09 03:46:40 Waiting 2" in text_of(html)


def test_live_parts(site_ring: Callable[[], Ring], client: Client) -> None:
    """A page that is open asks for what changes alone; a stranger does not get it."""
    ring = site_ring()
    result_id = put(ring)
    live = {"X-Local-Tasks-Live": "1"}
    for url in (TASKS_AT, LIST, change(result_id)):
        answer = client.get(url, headers=live)
        assert answer["X-Local-Tasks-Live"] == "1"
        assert "no-cache" in answer["Cache-Control"]
        text = answer.content.decode()
        assert "<html" not in text
        assert "csrfmiddlewaretoken" not in text  # it would differ each time
        assert set(re.findall(r'id="(lt-[^"]+)" data-live', text)) <= set(
            re.findall(r'id="(lt-[^"]+)" data-live', page(client, url))
        )
    assert client.get(change("x"), headers=live)["X-Local-Tasks-Live"] == "1"
    assert "X-Local-Tasks-Live" not in Client().get(LIST, headers=live)


def test_the_migration_is_that_of_the_model() -> None:
    """`makemigrations --check` has nothing to do, and there is no table."""
    from django.db import connection

    call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())
    assert not [n for n in connection.introspection.table_names() if "tasks_local" in n]


def test_an_admin_is_needed() -> None:
    """The app alone shows nothing, which a check says."""
    assert check_admin() == []
    with override_settings(INSTALLED_APPS=["django_tasks_local.contrib.admin"]):
        assert [each.id for each in check_admin()] == ["django_tasks_local.W004"]
