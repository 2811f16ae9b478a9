"""What may be done in the admin, by whom, and what is noted of it; on any admin site."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.tasks import task_backends
from django.test import Client

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from tests.admin_project import ALL, TASKS_AT, admin_installed, client_of, text_of, user
from tests.unit.test_commands_list import ERROR, failed, put, succeeded

ACT = f"{TASKS_AT}act/"
LIST = f"{TASKS_AT}list/"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The admin, and its tables."""
    with admin_installed(tmp_path_factory.mktemp("admin") / "db.sqlite3"):
        yield


@pytest.fixture
def ring(site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A ring with one site attached; another one in this process starts no pool."""
    made = site_ring()
    backend: Any = task_backends["process"]
    monkeypatch.setattr(backend.site(), "_start_pool", lambda: None)
    return made


def act(client: Client, action: str, *ids: str, **more: str) -> tuple[int, list[str]]:
    """Do it, and say yes; the status of the answer, and what it tells."""
    answer = client.post(ACT, {"action": action, "id": ids, "confirmed": "yes", **more})
    return answer.status_code, [str(each) for each in get_messages(answer.wsgi_request)]


def noted() -> list[tuple[str, str, str, str]]:
    """What the admin's log has, the oldest first: by whom, on what, by which name, and what."""
    from django.contrib.admin.models import LogEntry

    entries = [
        (each.user.get_username(), str(each.object_id), each.object_repr, each.get_change_message())
        for each in LogEntry.objects.order_by("pk")
    ]
    LogEntry.objects.all().delete()
    return entries


def test_cancelling(ring: Ring) -> None:
    """After a question: what waits is taken out, what runs is asked; one entry in the log each."""
    running = put(ring, priority=100)
    claim = ring.claim()
    assert claim is not None
    waiting, done = put(ring), succeeded(ring)
    client = client_of(user(*ALL))
    question = client.post(ACT, {"action": "cancel", "id": [running, waiting], "back": LIST})
    assert "Cancel 2 tasks?" in text_of(question.content.decode())
    assert ring.get(waiting).status == "READY"
    assert noted() == []
    assert act(client, "cancel", running, waiting, done, "x<b>") == (
        302,
        [
            "Asked to stop: tests.tasks.nothing",
            "Cancelled: tests.tasks.nothing",
            "Had ended already: tests.tasks.nothing",
            "There is no such task, or no longer: x<b>",
        ],
    )
    assert claim.stop_asked
    assert ring.get(waiting).cancelled
    assert noted() == [
        ("operator", running, "tests.tasks.nothing", "Asked to stop"),
        ("operator", waiting, "tests.tasks.nothing", "Cancelled"),
    ]


def test_retrying(ring: Ring) -> None:
    """A new task with a link to it; what cannot be enqueued again says why, and is not noted."""
    old, waiting, gone = failed(ring, ERROR), put(ring), failed(ring, ERROR, b"no.such:task")
    client = client_of(user(*ALL))
    status, (again, refused, missing) = act(client, "retry", old, waiting, gone)
    ((who, which, name, message),) = noted()
    assert (status, who, which, name) == (302, "operator", old, "tests.tasks.nothing")
    said, _, new = message.partition(": ")
    assert said == "Enqueued again"
    url = f"{TASKS_AT}{new}/change/"
    assert again == f'Enqueued again: tests.tasks.nothing <a href="{url}">{new}</a>'
    assert task_backends["process"].get_result(new).status == "READY"
    assert old in client.get(url).content.decode()  # in its metadata
    assert "only a task that has ended can be enqueued again" in refused
    assert "Task no.such.task cannot be imported" in missing


def test_a_ring_that_cannot_be_used(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task waits for its lock for half a minute, and no other one does after that."""
    tried: list[str] = []

    def cancel(backend: object, result_id: str) -> bool:
        tried.append(result_id)
        raise StoreUnavailable("process 7 is frozen")

    backend: Any = task_backends["process"]
    monkeypatch.setattr(type(backend), "cancel", cancel)
    first, *others = [put(ring) for _ in range(3)]
    assert act(client_of(user(*ALL)), "cancel", first, *others) == (
        302,
        [f"Process 7 is frozen.: {first}", "2 other tasks were left as they are."],
    )
    assert (tried, noted()) == ([first], [])


def test_where_an_action_leads(ring: Ring) -> None:
    """Back to the page it came from, never to another host; also where nothing was chosen."""
    client, waiting = client_of(user(*ALL)), put(ring)
    for back, leads in ((f"{LIST}?p=2", f"{LIST}?p=2"), ("https://evil.example/", TASKS_AT)):
        answer = client.post(ACT, {"action": "cancel", "back": back})
        assert (answer.status_code, answer["Location"]) == (302, leads)
        question = client.post(ACT, {"action": "cancel", "id": waiting, "back": back})
        assert f'class="button cancel-link" href="{leads}"' in question.content.decode()
    assert client.post(ACT, {"action": "destroy", "id": waiting}).status_code == 400
    assert client.get(ACT).status_code == 405


@pytest.mark.parametrize(
    ("permissions", "sees", "cancels", "retries"),
    [
        ((), 403, 403, 403),
        (("view_task",), 200, 403, 403),
        (("view_task", "cancel_task"), 200, 302, 403),
        (("view_task", "retry_task"), 200, 403, 302),
        (("cancel_task", "retry_task"), 403, 403, 403),
    ],
)
def test_permissions(
    ring: Ring, permissions: tuple[str, ...], sees: int, cancels: int, retries: int
) -> None:
    """Each view needs that to view, each action its own as well; buttons are there accordingly."""
    waiting, ended = put(ring), succeeded(ring)
    client = client_of(user(*permissions))
    for url in (TASKS_AT, LIST, f"{TASKS_AT}{waiting}/change/"):
        assert client.get(url).status_code == sees
    if sees == 200:
        html = client.get(LIST).content.decode()
        assert ('value="cancel"' in html) == (cancels == 302)
        assert ('value="retry"' in html) == (retries == 302)
        assert ("checkbox" in html) == (302 in (cancels, retries))
    assert act(client, "cancel", waiting)[0] == cancels
    assert act(client, "retry", ended)[0] == retries
    assert ring.get(waiting).cancelled == (cancels == 302)
    noted()


def test_strangers(ring: Ring) -> None:
    """Nobody, users who are no staff, and forms of other sites get nowhere."""
    waiting = put(ring)
    other = user(*ALL, name="customer")
    other.is_staff = False
    other.save()
    for client in (Client(), client_of(other)):
        for url in (TASKS_AT, LIST, f"{TASKS_AT}{waiting}/change/"):
            answer = client.get(url)
            assert (answer.status_code, answer["Location"][:13]) == (302, "/admin/login/")
        assert act(client, "cancel", waiting)[0] == 302
    forged = client_of(user(*ALL), enforce_csrf_checks=True)
    assert act(forged, "cancel", waiting)[0] == 403
    assert ring.get(waiting).status == "READY"
    assert noted() == []


def test_nothing_is_added_changed_or_deleted(ring: Ring) -> None:
    """Not even by a superuser; the addresses that the admin has for that refuse."""
    waiting = put(ring)
    client = client_of(user(name="root", is_superuser=True))
    assert client.get(f"{TASKS_AT}add/").status_code == 403
    assert client.post(f"{TASKS_AT}add/", {"id": "x", "path": "y"}).status_code == 403
    assert client.get(f"{TASKS_AT}{waiting}/delete/").status_code == 403
    assert client.post(f"{TASKS_AT}{waiting}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"{TASKS_AT}{waiting}/change/", {"path": "z"}).status_code == 403
    assert client.get(f"{TASKS_AT}{waiting}/history/").status_code == 302
    assert ring.get(waiting).status == "READY"
    index = client.get("/admin/").content.decode()
    assert f'href="{TASKS_AT}"' in index
    assert f"{TASKS_AT}add/" not in index


def test_another_admin_site(ring: Ring) -> None:
    """All links and actions stay on the site on which they are."""
    waiting = put(ring)
    failed(ring, ERROR)
    client = client_of(user(*ALL))
    at = "/other/django_tasks_local_admin/task/"
    for url in ("/other/", at, f"{at}list/", f"{at}{waiting}/change/", f"{at}x/change/"):
        html = client.get(url).content.decode()
        assert '"/admin/' not in html
        assert f'"{at}' in html
    answer = client.post(f"{at}act/", {"action": "cancel", "id": waiting, "confirmed": "yes"})
    assert answer["Location"] == at
    assert [entry[1:] for entry in noted()] == [(waiting, "tests.tasks.nothing", "Cancelled")]
