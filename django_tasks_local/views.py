"""Views for a project to route: whether its tasks run, for load balancers and monitors."""

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_tasks_local.inspection import health as _health
from django_tasks_local.inspection.aliases import all_process_backends, foreign_aliases
from django_tasks_local.inspection.rings import stranded


@never_cache
@require_safe
def health(
    request: HttpRequest, *, max_wait: float = _health.MAX_WAIT_S, strict: bool = False
) -> HttpResponse:
    """Return what ``local_tasks health --json`` says of this host's rings.

    The status is 503 where the command ends with 2, since a ring cannot be used, and otherwise 200:
    another web server would not help a task that waits. It takes no lock and starts nothing; before
    it says that a process is stopped with the lock, it looks for a second.

    The answer names tasks and their ids: let only those reach it who may read these.

    Args:
        request: A GET or HEAD request.
        max_wait: How many seconds a task that is due may wait for a worker.
        strict: Also 503 where the command ends with 1: something needs attention.

    Raises:
        ImproperlyConfigured: ``max_wait`` is not a number of seconds.
    """
    try:
        found = [_health.examine(backend, max_wait) for backend in all_process_backends()]
    except ValueError as error:
        raise ImproperlyConfigured(f"max_wait {error}") from None
    left = stranded()
    text = "\n".join(_health.report(found, left, foreign_aliases(), as_json=True))
    limit = _health.LOOK_AT_IT if strict else _health.UNUSABLE
    status = 503 if _health.worst(found, left) >= limit else 200
    return HttpResponse(f"{text}\n", content_type="application/json", status=status)
