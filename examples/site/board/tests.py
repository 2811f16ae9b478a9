"""Tests of the page: tasks run inside `enqueue`, so nothing has to be started or waited for."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from unittest import mock

from django.conf import settings
from django.test import Client, SimpleTestCase, override_settings
from django.urls import reverse

from board import png, tasks
from board.catalogue import KINDS
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.test import captured_tasks, run_waiting

INLINE = {
    alias: params | {"BACKEND": "django_tasks_local.test.InlineBackend"}
    for alias, params in settings.TASKS.items()
}


@override_settings(TASKS=INLINE)
class BoardTests(SimpleTestCase):
    """What a browser gets, and what is enqueued by what it sends."""

    def setUp(self) -> None:
        self.tasks = self.enterContext(captured_tasks())

    def start(self, kind: str, **fields: Any) -> str:
        """Start a small task, and return its id."""
        response = self.client.post(reverse("jobs"), {"kind": kind, "size": 1, **fields})
        self.assertEqual(response.status_code, 201, response.content)
        started: str = response.json()["id"]
        return started

    def look(self, result_id: str) -> dict[str, Any]:
        facts: dict[str, Any] = self.client.get(reverse("job", args=[result_id])).json()
        return facts

    def test_page_offers_every_kind(self) -> None:
        page = self.client.get(reverse("index")).content.decode()
        for kind in KINDS.values():
            self.assertIn(kind.title, page)

    def test_task_runs_and_its_result_is_shown(self) -> None:
        facts = self.look(self.start("pi"))
        self.assertEqual((facts["kind"], facts["status"]), ("pi", "SUCCESSFUL"))
        self.assertEqual(facts["progress"]["fraction"], 1.0)
        self.assertAlmostEqual(facts["result"]["pi"], 3.14, places=1)
        self.tasks.assert_enqueued_with(tasks.write_note, f"enqueued pi id={facts['id']}")

    def test_failure_is_shown_with_its_traceback(self) -> None:
        error = self.look(self.start("fail"))["error"]
        self.assertEqual(error["type"], "ValueError")
        self.assertIn("fails on purpose", error["message"])
        self.assertIn("fail_on_purpose", error["traceback"])

    def test_picture_is_a_png(self) -> None:
        facts = self.look(self.start("mandelbrot"))
        response = self.client.get(facts["result"]["picture"])
        self.assertEqual(response["Content-Type"], "image/png")
        self.assertTrue(response.content.startswith(png.SIGNATURE))

    def test_failing_task_is_tried_again_and_succeeds(self) -> None:
        result_id = self.start("flaky")
        facts = self.look(result_id)
        self.assertEqual((facts["status"], facts["error"]["type"]), ("READY", "ConnectionError"))
        for _ in range(2):
            run_waiting(until=timedelta(seconds=10))
        facts = self.look(result_id)
        self.assertEqual((facts["status"], facts["attempts"]), ("SUCCESSFUL", 3))

    def test_task_runs_again_with_the_same_arguments(self) -> None:
        first = self.look(self.start("pi"))
        response = self.client.post(reverse("again", args=[first["id"]]))
        self.assertEqual(response.status_code, 201)
        second = self.look(response.json()["id"])
        self.assertNotEqual(second["id"], first["id"])
        self.assertEqual(second["result"], first["result"])

    def test_only_what_has_ended_runs_again(self) -> None:
        for result_id, status in (("unknown", 404), (self.start("pi", delay_s=60), 409)):
            with self.subTest(result_id):
                response = self.client.post(reverse("again", args=[result_id]))
                self.assertEqual(response.status_code, status)

    def test_every_kind_is_enqueued_with_the_fields_of_the_form(self) -> None:
        with captured_tasks(run=False) as captured:  # one of them would kill this process
            for slug in KINDS:
                self.start(slug, priority=7, phrase="yield")
        for kind in KINDS.values():
            self.assertEqual(captured.assert_enqueued_once(kind.task).task.priority, 7)
        self.assertEqual(captured.assert_enqueued(tasks.search_text).kwargs["phrase"], "yield")

    def test_wrong_fields_enqueue_nothing(self) -> None:
        for fields in ({"kind": "unknown"}, {"kind": "pi", "size": "1000"}, {}):
            with self.subTest(fields):
                self.assertEqual(self.client.post(reverse("jobs"), fields).status_code, 400)
        self.tasks.assert_not_enqueued()

    def test_deferred_task_waits_for_its_time(self) -> None:
        result_id = self.start("pi", delay_s=60)
        self.assertEqual(self.look(result_id)["status"], "READY")
        run_waiting(until=timedelta(seconds=60))
        self.assertEqual(self.look(result_id)["status"], "SUCCESSFUL")

    def test_events_tell_how_tasks_are(self) -> None:
        done, waiting = self.start("pi"), self.start("pi", delay_s=60)
        response = self.client.get(reverse("events"), {"id": [done, waiting, "unknown"]})
        lines = b"".join(response).decode().splitlines()
        facts = [json.loads(line.removeprefix("data: ")) for line in lines if "data: " in line]
        states = {each["id"]: each.get("status") for each in facts}
        self.assertEqual(states, {done: "SUCCESSFUL", waiting: "READY", "unknown": None})


@override_settings(TASKS=INLINE)
class PageTests(SimpleTestCase):
    """A browser without JavaScript: a form, and for each task a page that renews itself."""

    def setUp(self) -> None:
        self.enterContext(captured_tasks())
        accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
        self.client = Client(headers={"Accept": accept})

    def start(self, kind: str, **fields: Any) -> str:
        response = self.client.post(reverse("jobs"), {"kind": kind, "size": 1, **fields})
        self.assertEqual(response.status_code, 302)
        return str(response["Location"])

    def test_waiting_task_can_be_cancelled(self) -> None:
        page = self.start("pi", delay_s=60)
        self.assertContains(self.client.get(page), 'http-equiv="refresh"')
        self.assertRedirects(self.client.post(f"{page}/cancel/"), page)
        response = self.client.get(page)
        self.assertContains(response, "CANCELLED")
        self.assertNotContains(response, 'http-equiv="refresh"')
        self.assertContains(self.client.get(reverse("index")), "</a> CANCELLED")

    def test_failed_task_shows_its_traceback_and_runs_again(self) -> None:
        page = self.start("fail")
        self.assertContains(self.client.get(page), "in fail_on_purpose")
        again = self.client.post(f"{page}/again/")["Location"]
        self.assertNotEqual(again, page)
        self.assertContains(self.client.get(again), "fails on purpose")

    def test_picture_is_shown(self) -> None:
        self.assertContains(self.client.get(self.start("mandelbrot")), "<img")

    def test_newest_tasks_are_listed(self) -> None:
        page = self.start("pi")
        self.assertContains(self.client.get(reverse("index")), f'<a href="{page}">Estimate π</a>')

    def test_what_is_refused_has_a_page(self) -> None:
        response = self.client.post(reverse("jobs"), {"kind": "unknown"})
        self.assertContains(response, "kind:", status_code=400)
        response = self.client.get(reverse("job", args=["<b>"]))
        self.assertContains(response, "no such task", status_code=404)


@override_settings(TASKS=INLINE)
class CancelTests(SimpleTestCase):
    """The button on each card that has not finished."""

    def setUp(self) -> None:
        self.enterContext(captured_tasks())

    def cancel(self, result_id: str) -> Any:
        return self.client.post(reverse("cancel", args=[result_id]))

    def test_waiting_task_is_taken_out(self) -> None:
        result = tasks.estimate_pi.using(run_after=timedelta(minutes=1)).enqueue(1, 1)
        self.assertIs(self.cancel(result.id).json()["cancelled"], True)
        facts = self.client.get(reverse("job", args=[result.id])).json()
        self.assertEqual((facts["status"], facts["error"]["type"]), ("FAILED", "TaskCancelled"))
        self.assertEqual(run_waiting(), [])

    def test_finished_task_stays_as_it_is(self) -> None:
        result = tasks.estimate_pi.enqueue(1, 1)
        self.assertIs(self.cancel(result.id).json()["cancelled"], False)
        self.assertEqual(result.status, "SUCCESSFUL")

    def test_unknown_task(self) -> None:
        for result_id in ("unknown", "a/b", "00000000-0000-0000-0000-000000000000"):
            with self.subTest(result_id):
                self.assertEqual(self.cancel(result_id).status_code, 404)

    def test_ring_that_cannot_be_used(self) -> None:
        refused = StoreUnavailable("the disk is full")
        with mock.patch("board.views.cancel", side_effect=refused):
            response = self.cancel("00000000-0000-0000-0000-000000000000")
        self.assertContains(response, "The disk is full", status_code=503)

    def test_only_by_post_and_with_the_token(self) -> None:
        result = tasks.estimate_pi.using(run_after=timedelta(minutes=1)).enqueue(1, 1)
        address = reverse("cancel", args=[result.id])
        client = Client(enforce_csrf_checks=True)
        client.get(reverse("index"))
        self.assertEqual(client.get(address).status_code, 405)
        self.assertEqual(client.post(address).status_code, 403)
        result.refresh()
        self.assertEqual(result.status, "READY")
        token = client.cookies[settings.CSRF_COOKIE_NAME].value
        response = client.post(address, headers={"X-CSRFToken": token})
        self.assertIs(response.json()["cancelled"], True)
