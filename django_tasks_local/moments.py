"""Moments: Unix ns in the stores, a ``datetime`` for users."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The year 2262. Stores keep times as 64-bit ns; a task that is due later simply waits until then.
_LATEST_NS = 2**63 - 1


def unix_ns(moment: datetime) -> int:
    """Return ``moment`` in Unix ns; a naive moment (USE_TZ is False) is local time."""
    try:
        # An aware moment is not converted: the difference is exact, and does not overflow near the
        # last day of the calendar.
        aware = moment if timezone.is_aware(moment) else moment.astimezone()
        return min((aware - _EPOCH) // _MICROSECOND * 1000, _LATEST_NS)
    except (OverflowError, ValueError, OSError):
        # Naive, and too close to either end of the calendar to be converted.
        return _LATEST_NS if moment.year > _EPOCH.year else 0


def moment_of(ns: int) -> datetime | None:
    """Return the moment as ``timezone.now()`` would have given it then; ``None`` for 0."""
    if not ns:
        return None
    return datetime.fromtimestamp(ns / 1e9, UTC if settings.USE_TZ else None)
