"""Tasks on an admin site: ``admin.site``, or any other on which `TaskAdmin` is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import django
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.inspection.looks import Numbers
from django_tasks_local.inspection.newest import newest
from django_tasks_local.inspection.text import harmless

from .actions import Done, Verb, act
from .aliases import find, left_out, shown_aliases
from .filters import STATUSES, Asked, choices
from .models import Task
from .rows import ShownTask, Values

if TYPE_CHECKING:
    _Base = admin.ModelAdmin[Task]
else:
    _Base = admin.ModelAdmin

# A page asks for its live parts alone with this header, and the answer has it too: one from the
# login page has not.
LIVE_HEADER: Final = "X-Local-Tasks-Live"
# How many failures and running tasks the overview shows.
_LATEST: Final = 5


@admin.register(Task)
class TaskAdmin(_Base):
    """An overview, lists and each task, in the frame of the admin.

    It only looks: no view starts a pool, or counts as a use of a result. The two actions are what
    ``result.cancel`` and ``enqueue_again`` do.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: tasks are enqueued by code."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        """Refuse: what can be done to a task are the actions."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        """Refuse: results go by MAX_RESULTS and the options on lifetimes."""
        return False

    def may(self, request: HttpRequest, verb: Verb) -> bool:
        """Return whether the user may cancel tasks, or enqueue them again."""
        who: Any = request.user
        permission = f"{self.opts.app_label}.{verb}_task"
        return self.has_view_permission(request) and who.has_perm(permission)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Return nothing: there is no table."""
        return super().get_queryset(request).none()

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs: the overview and each task have those of a list and of an object."""
        view, info = self.admin_site.admin_view, f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("list/", view(self.list_view), name=f"{info}_list"),
            path("act/", view(self.act_view), name=f"{info}_act"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the overview: each alias with its numbers, the latest failures, and what runs."""
        self._must_only_look(request)
        aliases = shown_aliases()
        looks = {each.name: each.look for each in aliases if each.look is not None}

        def latest(status: str) -> list[ShownTask]:
            rows, _more = newest(looks, status=[status], queue=None, task=None, limit=_LATEST)
            return [ShownTask(row) for row in rows]

        return self._page(
            request,
            "overview",
            _("Tasks"),
            aliases=aliases,
            left_out=left_out(),
            failures=latest("FAILED"),
            running=latest("RUNNING"),
            **(extra_context or {}),
        )

    def list_view(self, request: HttpRequest) -> HttpResponse:
        """Show a list of tasks."""
        self._must_only_look(request)
        asked, aliases = Asked.of(request.GET), shown_aliases()
        if asked.result_id and self._found(asked.result_id):
            return HttpResponseRedirect(self._url("change", asked.result_id))
        rows, has_more = ([], False) if asked.result_id else asked.rows(aliases)
        numbers = [each.numbers for each in asked.chosen(aliases)]
        return self._page(
            request,
            "list",
            str(STATUSES[asked.status][1]) if asked.status else _("All tasks"),
            trail=self._trail(),
            asked=asked,
            tabs=[
                ("", _("All"), None),
                *(
                    (key, label, None if asked.narrows else sum(_number(key, n) for n in numbers))
                    for key, (_status, label) in STATUSES.items()
                ),
            ],
            tasks=[ShownTask(row) for row in rows],
            has_more=has_more,
            problems=[(each.name, each.problem) for each in aliases if each.problem],
            of_process=[each for each in asked.chosen(aliases) if each.only_of_process],
            choices=None if _is_live(request) else choices(aliases, asked),
            several=len(aliases) > 1,
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show all of one task."""
        self._must_only_look(request)
        result_id = unquote(object_id)
        try:
            found = find(result_id)
        except StoreUnavailable as error:
            return self._no_task(request, result_id, str(error))
        if found is None:
            return self._no_task(request, result_id, "")
        alias, row = found
        task = ShownTask(row)
        return self._page(
            request,
            "detail",
            task.path,
            trail=self._trail(),
            subtitle=task.id,
            task=task,
            alias=alias,
            values=Values.of(row) if alias.shows_arguments else None,
            **(extra_context or {}),
        )

    @method_decorator(require_POST)
    def act_view(self, request: HttpRequest) -> HttpResponse:
        """Ask whether the chosen tasks are to be cancelled or enqueued again; then do it."""
        try:
            verb = Verb(request.POST.get("action", ""))
        except ValueError as error:
            raise BadRequest("There is no such action.") from error
        if not self.may(request, verb):
            raise PermissionDenied
        ids = list(dict.fromkeys(request.POST.getlist("id")))
        back = self._back(request)
        if not ids:
            self.message_user(request, _("No tasks were selected."), messages.WARNING)
            return HttpResponseRedirect(back)
        if "confirmed" not in request.POST:
            return self._question(request, verb, ids, back)
        for left, result_id in zip(reversed(range(len(ids))), ids, strict=True):
            done = act(verb, result_id)
            if done.succeeded:
                said = f"{done.says}: {done.new_id}" if done.new_id else done.says
                self.log_change(request, Task(result_id, done.path), said)
            self._tell(request, done)
            if done.is_unusable and left:
                text = ngettext(
                    "%(count)d other task was left as it is.",
                    "%(count)d other tasks were left as they are.",
                    left,
                )
                self.message_user(request, text % {"count": left}, messages.WARNING)
                break
        return HttpResponseRedirect(back)

    def _question(
        self, request: HttpRequest, verb: Verb, ids: list[str], back: str
    ) -> HttpResponse:
        found = [task for task in map(self._found, ids) if task is not None]
        count = {"count": len(found)}
        title = (
            ngettext("Cancel %(count)d task?", "Cancel %(count)d tasks?", len(found)) % count
            if verb is Verb.CANCEL
            else ngettext(
                "Enqueue %(count)d task again?", "Enqueue %(count)d tasks again?", len(found)
            )
            % count
        )
        return self._page(
            request, "question", title, trail=self._trail(), verb=verb, tasks=found, back=back
        )

    def _tell(self, request: HttpRequest, done: Done) -> None:
        text: str = f"{done.says}: {done.path}"
        if done.new_id:
            url = self._url("change", done.new_id)
            text = format_html('{} <a href="{}">{}</a>', text, url, done.new_id)
        self.message_user(request, text, messages.SUCCESS if done.succeeded else messages.WARNING)

    def _found(self, result_id: str) -> ShownTask | None:
        try:
            found = find(result_id)
        except StoreUnavailable:
            return None
        return None if found is None else ShownTask(found[1])

    def _no_task(self, request: HttpRequest, result_id: str, problem: str) -> HttpResponse:
        return self._page(
            request,
            "missing",
            _("No such task"),
            trail=self._trail(),
            subtitle=harmless(result_id),
            problem=harmless(problem),
            of_process=[each for each in shown_aliases() if each.only_of_process],
            status=404,
        )

    def _back(self, request: HttpRequest) -> str:
        asked_for = request.POST.get("back", "")
        if url_has_allowed_host_and_scheme(
            asked_for, {request.get_host()}, require_https=request.is_secure()
        ):
            return asked_for
        return self._url("changelist")

    def _url(self, name: str, *args: str) -> str:
        info = f"{self.opts.app_label}_{self.opts.model_name}"
        return reverse(f"admin:{info}_{name}", args=args, current_app=self.admin_site.name)

    def _trail(self) -> list[tuple[str, str]]:
        return [(self._url("changelist"), _("Tasks"))]

    def _must_only_look(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request) or request.method not in ("GET", "HEAD"):
            raise PermissionDenied

    def _page(
        self, request: HttpRequest, name: str, title: str, *, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """Return a page, or only its live parts if a page of ours asks for them."""
        request.current_app = self.admin_site.name
        context |= {
            "opts": self.opts,
            "title": title,
            "may_cancel": self.may(request, Verb.CANCEL),
            "may_retry": self.may(request, Verb.RETRY),
            "back": context.get("back", request.get_full_path()),
        }
        if _is_live(request):
            template = f"django_tasks_local_admin/{name}_live.html"
            response = TemplateResponse(request, template, context, status=status)
            response[LIVE_HEADER] = "1"
            return response
        context |= self.admin_site.each_context(request)
        context["breadcrumbs_are_a_list"] = django.VERSION >= (6, 1)
        return TemplateResponse(
            request, f"django_tasks_local_admin/{name}.html", context, status=status
        )


def _is_live(request: HttpRequest) -> bool:
    return request.method == "GET" and LIVE_HEADER in request.headers


def _number(status: str, numbers: Numbers) -> int:
    if status == "waiting":
        return numbers.waiting + numbers.deferred
    return {
        "failed": numbers.failed,
        "running": numbers.running,
        "successful": numbers.successful,
    }[status]
