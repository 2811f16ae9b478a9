"""RESULT_TTL and FAILURE_TTL of ThreadPoolBackend: which finished records have expired."""

import time
from collections import OrderedDict
from typing import Final, Protocol

from django.tasks import TaskResultStatus

# How many expired records each call finds, by how they ended: more than any call adds.
EXPIRED_AT_ONCE: Final = 2

_OPTIONS: Final = {
    TaskResultStatus.SUCCESSFUL: "RESULT_TTL",
    TaskResultStatus.FAILED: "FAILURE_TTL",
}


class Ended(Protocol):
    """What a record must tell."""

    result_id: str
    status: TaskResultStatus
    finished_at_ns: int


class Lifetimes[R: Ended]:
    """The finished records that can expire, in the order of their ends; false where none can.

    There is no thread for them: each call of the store drops some.

    Args:
        result_ttl_s: How long a SUCCESSFUL record can be read; None: no limit.
        failure_ttl_s: The same for a FAILED one.
    """

    def __init__(self, result_ttl_s: float | None, failure_ttl_s: float | None) -> None:
        limits = zip(_OPTIONS, (result_ttl_s, failure_ttl_s), strict=True)
        self._ttl_ns = {status: round(ttl_s * 1e9) for status, ttl_s in limits if ttl_s is not None}
        self._records: dict[TaskResultStatus, OrderedDict[str, R]] = {}
        self.forget()

    def __bool__(self) -> bool:
        """Return whether any record can expire."""
        return bool(self._ttl_ns)

    def add(self, record: R) -> None:
        """Note a record that has just ended."""
        if record.status in self._ttl_ns:
            self._records[record.status][record.result_id] = record

    def remove(self, record: R) -> None:
        """Forget a record that was added."""
        if record.status in self._ttl_ns:
            del self._records[record.status][record.result_id]

    def forget(self) -> None:
        """Forget all records."""
        self._records = {status: OrderedDict() for status in self._ttl_ns}

    def is_over(self, record: R) -> bool:
        """Return whether a record has expired; one that has not ended never has.

        The clock may be set back: then the record can be read for longer.
        """
        ttl_ns = self._ttl_ns.get(record.status)
        return ttl_ns is not None and record.finished_at_ns + ttl_ns <= time.time_ns()

    def expired(self) -> list[R]:
        """Return some of the records that have expired."""
        found: list[R] = []
        for records in self._records.values():
            # An OrderedDict: the first item of a dict takes longer the more were deleted there.
            for _, record in zip(range(EXPIRED_AT_ONCE), records.values(), strict=False):
                if not self.is_over(record):
                    break
                found.append(record)
        return found

    def __str__(self) -> str:
        """Return how long results are kept, as the rest of a sentence about other limits."""
        parts = [f"{ns / 1e9:,g} s ({_OPTIONS[status]})" for status, ns in self._ttl_ns.items()]
        return f", for at most {' or '.join(parts)}" if parts else ""
