"""Server-sent events that a handful of sync workers can afford.

A stream is a response that does not end, and a sync gunicorn worker can do nothing else until its
response has ended. Four browser tabs with an open stream each would take four workers for good.
So a stream here lasts one *turn*, the server says in `retry:` when to come back, and the browser's
EventSource does that by itself:

- sync workers: one look at the tasks, then the turn is over. The worker is taken for a millisecond
  or two: with 50 tabs on four workers, other requests were answered as fast as without (half of
  them within 0.6 ms, 99 % within 3.3 ms, two cores). Each turn may reach another worker.
- workers with threads or greenlets: a few seconds; a turn takes one thread of many.
- ASGI: half a minute; an open stream costs next to nothing there.

All turns look the same to the browser, and none needs anything from the one before it: the ids come
in the address, and `get_result` answers in whichever process the turn lands. There is nothing to
clean up when a browser goes away.
"""

import json
import time
from asyncio import sleep
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.tasks import task_backends
from django.tasks.exceptions import TaskResultDoesNotExist

from board.describe import describe

LOOK_EVERY_S = 0.2
RETRY_MS = (
    400  # shorter: more requests; longer: a jerky progress bar. Firefox goes by 500 at least.
)
MOST_IDS = 50  # keeps the address below the 4,094 bytes that gunicorn accepts
TURN_SYNC_S, TURN_THREADED_S, TURN_ASGI_S = 0.0, 5.0, 30.0


def response(request: HttpRequest, ids: Iterable[str]) -> StreamingHttpResponse:
    """Return one turn of events about the tasks with these ids."""
    watch = Watch(ids)
    if isinstance(request, ASGIRequest):
        body: Any = _turn_async(watch, TURN_ASGI_S)
    else:
        threaded = request.META.get("wsgi.multithread", False)
        body = _turn(watch, TURN_THREADED_S if threaded else TURN_SYNC_S)
    # nginx would otherwise hold events back until it has a buffer full of them.
    headers = {"X-Accel-Buffering": "no"}
    return StreamingHttpResponse(body, content_type="text/event-stream", headers=headers)


class Watch:
    """What the browser has been told about each task, for one turn."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._told: dict[str, dict[str, Any]] = {}  # last facts sent, by id
        self._open = list(dict.fromkeys(ids))[:MOST_IDS]  # not finished as far as we have told

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left that could change."""
        return not self._open

    def news(self) -> list[str]:
        """Return an event for each task that differs from what was told before."""
        return [event for result_id in list(self._open) if (event := self._look(result_id))]

    def _look(self, result_id: str) -> str | None:
        try:
            result = task_backends["cpu_intensive"].get_result(result_id)
        except TaskResultDoesNotExist:
            self._open.remove(result_id)
            return _event("missing", {"id": result_id})
        if result.is_finished:
            self._open.remove(result_id)
        facts = describe(result)
        if facts == self._told.get(result_id):
            return None
        self._told[result_id] = facts
        return _event("task", facts)


def _turn(watch: Watch, turn_s: float) -> Iterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    ends_at = time.monotonic() + turn_s
    yield from watch.news()
    while not watch.is_over and time.monotonic() < ends_at:
        time.sleep(LOOK_EVERY_S)
        yield from watch.news()


async def _turn_async(watch: Watch, turn_s: float) -> AsyncIterator[str]:
    # The same for ASGI. Django would gather a synchronous generator into memory there.
    news = sync_to_async(watch.news)
    yield f"retry: {RETRY_MS}\n\n"
    ends_at = time.monotonic() + turn_s
    for event in await news():
        yield event
    while not watch.is_over and time.monotonic() < ends_at:
        await sleep(LOOK_EVERY_S)
        for event in await news():
            yield event


def _event(name: str, facts: dict[str, Any]) -> str:
    # JSON escapes line breaks, so one `data:` line is always enough.
    return f"event: {name}\ndata: {json.dumps(facts)}\n\n"
