"""A step of a loop on which other processes depend: it may fail, and the loop goes on."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

logger = logging.getLogger("django_tasks_local")

# The pause after a failure, doubled each time. Shorter: work for nothing where it stays broken;
# longer: what comes back is noticed later.
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
# How often a failure that stays the same is logged again.
REPEAT_S: Final = 60.0


class Step:
    """Calls a function again and again; where it raises, says so and waits before the next call.

    Args:
        what: What fails, for the log: "the pool cannot ...".
        do: The function.
        every_s: How often at most it is called.
    """

    def __init__(self, what: str, do: Callable[[], None], *, every_s: float = 0.0) -> None:
        self._what = what
        self._do = do
        self._every_s = every_s
        self._failures = 0
        self._failing_since = 0.0
        self._not_before = 0.0
        self._logged = ""
        self._logged_at = 0.0

    def __call__(self) -> None:
        """Take the step, unless that was a moment ago. An `Exception` is logged, never raised."""
        if self._not_before and time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + self._every_s if self._every_s else 0.0
        try:
            self._do()
        except Exception as error:
            self._note(error)
        else:
            if self._failures:
                self._recover()

    def failing_s(self) -> float:
        """Return for how long it has been failing, 0 where the last call went well."""
        return time.monotonic() - self._failing_since if self._failures else 0.0

    def pause_s(self, at_most_s: float) -> float:
        """Return how long to wait for the next call: less than `at_most_s` where one is due."""
        if not self._failures:
            return at_most_s
        return min(at_most_s, max(0.0, self._not_before - time.monotonic()))

    def _note(self, error: Exception) -> None:
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
        self._failures += 1
        self._not_before = now + pause_s
        text = f"{type(error).__name__}: {error}"
        if text != self._logged or now - self._logged_at > REPEAT_S:
            self._logged, self._logged_at = text, now
            with suppress(Exception):  # a filter of the project's
                logger.error(
                    "%s (failure %d; it is tried again): %s", self._what, self._failures,
                    error, exc_info=error,
                )  # fmt: skip

    def _recover(self) -> None:
        failures, self._failures, self._logged = self._failures, 0, ""
        with suppress(Exception):
            logger.warning("%s: it works again after %d failures", self._what, failures)
