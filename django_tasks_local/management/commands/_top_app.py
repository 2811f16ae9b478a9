"""The application of ``local_tasks top``: tables of tasks that follow what happens, and keys."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from django.tasks.exceptions import TaskResultDoesNotExist
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static, Tabs
from textual.widgets import Tab as TabLabel

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.text import cut, cut_left

from ._top_screens import Details, Question
from ._top_tables import COLUMNS, ROWS, Column, Line, Picture, Tab, Tables

# How often it looks whether anything has happened.
TICK_S: Final = 1.0
# So much of a processor its looks may take, each with the drawing of what was seen: where that is
# much, it looks less often, down to the pause below. The ticks between take the rest of 1 %.
SHARE: Final = 0.008
LONGEST_PAUSE_S: Final = 5.0
# By then what was seen is drawn; later there would be more keys in what that took.
DRAWN_AFTER_S: Final = 0.2
# How long a table without running tasks may stay as it is: results expire.
LONGEST_S: Final = 10.0
# What a column needs beside its text.
_PADDING: Final = 2
# Keys that mean something only where no other screen lies over the tables, or no question does.
_OF_TABLES: Final = frozenset({"filter", "unfilter", "tab", "go", "details", "quit"})
_OF_TASKS: Final = frozenset({"cancel", "retry"})
_NAMES: Final = {tab: tab.name.capitalize() for tab in Tab}
_EMPTY: Final = {
    Tab.RUNNING: "Nothing runs.",
    Tab.WAITING: "Nothing waits.",
    Tab.FAILED: "Nothing has failed.",
    Tab.FINISHED: "Nothing has finished.",
    Tab.SCHEDULE: "There is no SCHEDULE.",
}


def show(backends: list[ProcessPoolBackend], *, colored: bool) -> None:
    """Run the application until the person at the terminal leaves."""
    if not colored:
        os.environ["NO_COLOR"] = "1"  # what Textual goes by
    # A line in the middle of the screen is of no use to anybody.
    logging.disable(logging.CRITICAL)
    try:
        Top(Tables(backends)).run()
    finally:
        logging.disable(logging.NOTSET)


class Table(DataTable[Text]):
    """A table whose arrows to the side lead to the next one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.details", "Details", key_display="enter"),
        Binding("left", "app.go(-1)", show=False),
        Binding("right", "app.go(1)", show=False),
    ]


class Top(App[None]):
    """See above.

    Args:
        tables: What is shown.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "local_tasks top"
    CSS = """
    #heads { height: auto; max-height: 6; padding: 0 1; color: $text-muted; }
    #tabs { height: 2; }
    #table { height: 1fr; scrollbar-size: 0 1; }
    #table > .datatable--header { background: ansi_default; color: $text-muted; text-style: bold; }
    #empty { height: 1fr; padding: 1 1; color: $text-muted; display: none; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #note { height: auto; padding: 0 1; color: $text-muted; display: none; }
    #details { padding: 0 1; }
    Question { align: center middle; }
    #question { width: 72; max-width: 90%; height: auto; padding: 1 2; border: round $warning;
        background: $surface; }
    #answers { margin-top: 1; color: $text-muted; }
    Toast { width: 72; max-width: 90%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Of priority: what is typed fast behind it is for the field already.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("C", "cancel", "Cancel task"),
        Binding("R", "retry", "Retry task"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "unfilter", show=False),
        *(Binding(str(n), f"tab({n})", show=False, priority=True) for n in range(1, len(Tab) + 1)),
    ]

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.animation_level = "none"
        self._tables = tables
        self._tab = Tab.RUNNING
        self._needle = ""
        self._lines: dict[str, Line] = {}
        self._columns: list[int] = []
        self._pulse: object = None
        self._looking = False
        self._look_after = self._looked = 0.0

    @property
    def _tables_screen(self) -> Screen[object]:
        return self.screen_stack[0]  # whatever lies over it

    def compose(self) -> ComposeResult:
        """Yield what is on the screen, from above."""
        yield Static(id="heads")
        yield Tabs(*(TabLabel(self._label(tab, 0), id=tab.name) for tab in Tab), id="tabs")
        yield Table(id="table", cursor_type="row", zebra_stripes=False)
        yield Static(id="empty")
        yield Static(id="note")
        yield Input(id="filter", placeholder="filter: a part of a path, an error or an id")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = "ansi-dark"  # the colours of the terminal, whichever they are
        self._tables_screen.query_one(Tabs).can_focus = False
        self._tables_screen.set_focus(self._tables_screen.query_one(Table))
        self.set_interval(TICK_S, self._tick)

    # --- looking ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Look, if there may be anything new."""
        if not self.screen_stack:  # it ends
            return
        now = time.monotonic()
        if self._looking or now < self._look_after:
            return
        if isinstance(self.screen, Details):
            self._renew(self.screen)
            return
        pulse = self._tables.pulse()
        still = self._tab is not Tab.RUNNING or not self._lines
        if pulse == self._pulse and still and now < self._looked + LONGEST_S:
            return
        self._pulse = pulse
        self._look()

    def _renew(self, details: Details) -> None:
        self._looked, began_s = time.monotonic(), time.thread_time()
        details.renew()
        self._drawn(0.0, began_s)
        self.set_timer(DRAWN_AFTER_S, partial(self._drawn, 0.0, began_s))

    @work(exclusive=True, group="look")
    async def _look(self) -> None:
        """Read what there is, in a thread since there may be much, and show it."""
        self._looking = True
        try:
            tab, needle = self._tab, self._needle
            picture, took_s = await asyncio.to_thread(self._read, tab, needle)
            self._looked, began_s = time.monotonic(), time.thread_time()
            self._pause(took_s)
            if (tab, needle) == (self._tab, self._needle) and self.screen_stack:
                self._show(picture)
                self.set_timer(DRAWN_AFTER_S, partial(self._drawn, took_s, began_s))
        except TaskResultDoesNotExist:
            self._pulse = None  # it was evicted while it was read: the next tick looks again
        finally:
            self._looking = False

    def _read(self, tab: Tab, needle: str) -> tuple[Picture, float]:
        """Return what there is, and how long the processor was busy with it (in a thread)."""
        began_s = time.thread_time()
        return self._tables.picture(tab, needle), time.thread_time() - began_s

    def _drawn(self, took_s: float, began_s: float) -> None:
        """Count what it took to draw, too, after a look that took ``took_s`` (in this thread)."""
        self._pause(took_s + time.thread_time() - began_s)

    def _pause(self, took_s: float) -> None:
        """Wait with the next look until the last one was no more than its share of a processor."""
        self._look_after = self._looked + min(took_s / SHARE, LONGEST_PAUSE_S)

    def _show(self, picture: Picture) -> None:
        with self.batch_update():
            self._update("#heads", "\n".join(picture.heads))
            for tab in Tab:
                label = self._label(tab, picture.numbers[tab])
                widget = self._tables_screen.query_one(f"#{tab.name}", TabLabel)
                if widget.label_text != label:
                    widget.label = Content(label)
            self._fill(picture.lines)
            more = f"The first {ROWS} rows; a filter finds others." if picture.more else ""
            self._update("#note", more)
            self._tables_screen.query_one("#note").display = bool(more)

    def _label(self, tab: Tab, number: int) -> str:
        return f"{list(Tab).index(tab) + 1} {_NAMES[tab]} {number:,}"

    def _update(self, selector: str, text: str) -> None:
        widget = self._tables_screen.query_one(selector, Static)
        if str(widget.content) != text:
            widget.update(Content(text))  # no markup: parts of it come from tasks

    def _fill(self, lines: list[Line]) -> None:
        table = self._tables_screen.query_one(Table)
        columns = COLUMNS[self._tab]
        widths = _widths(columns, self.size.width)
        before, self._lines = self._lines, {line.key: line for line in lines}
        if list(before) == list(self._lines) and widths == self._columns and before:
            for line in lines:
                old = before[line.key]
                for n, (text, was) in enumerate(zip(line.cells, old.cells, strict=True)):
                    if text != was:
                        table.update_cell(line.key, str(n), _cell(text, columns[n], widths[n]))
            return
        cursor = self._line(before, table.cursor_row)
        table.clear(columns=widths != self._columns or not before)
        if not table.columns:
            for n, (column, width) in enumerate(zip(columns, widths, strict=True)):
                table.add_column(column.title, width=width, key=str(n))
        self._columns = widths
        for line in lines:
            cells = map(_cell, line.cells, columns, widths)
            table.add_row(*cells, key=line.key)
        if cursor is not None and cursor.key in self._lines:
            table.move_cursor(row=table.get_row_index(cursor.key), animate=False)
        empty = self._tables_screen.query_one("#empty", Static)
        empty.display, table.display = not lines, bool(lines)
        if lines and self._tables_screen.focused is None:  # a table that is hidden loses it
            self._tables_screen.set_focus(table)
        text = f"Nothing has {self._needle!r} in it." if self._needle else _EMPTY[self._tab]
        self._update("#empty", text)

    def _line(self, lines: dict[str, Line], row: int) -> Line | None:
        return next((line for n, line in enumerate(lines.values()) if n == row), None)

    def _begin_again(self) -> None:
        """Show another table, or another part of it."""
        self._lines = {}
        self._columns = []
        self._pulse = None
        self._look()

    # --- keys -------------------------------------------------------------------------------------

    def on_resize(self, event: Resize) -> None:
        """Fit the columns to the terminal; this is also the first look."""
        self._begin_again()

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """Show the table of a tab."""
        tab = Tab[str(event.tab.id)]
        if tab is not self._tab:
            self._tab = tab
            self._begin_again()

    def action_tab(self, number: int) -> None:
        """Go to a table by its number."""
        self._tables_screen.query_one(Tabs).active = list(Tab)[number - 1].name

    def action_go(self, steps: int) -> None:
        """Go to the table beside this one."""
        tabs = list(Tab)
        self.action_tab((tabs.index(self._tab) + steps) % len(tabs) + 1)

    def action_filter(self) -> None:
        """Ask for a filter."""
        field = self._tables_screen.query_one("#filter", Input)
        field.display = True
        self._tables_screen.set_focus(field)

    def action_unfilter(self) -> None:
        """Show everything again."""
        field = self._tables_screen.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self._tables_screen.set_focus(self._tables_screen.query_one(Table))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Apply the filter as it is typed."""
        self._needle = event.value
        self._begin_again()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table, and keep the filter."""
        if not event.value:
            event.input.display = False
        self._tables_screen.set_focus(self._tables_screen.query_one(Table))

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """Show all of the task that a click has chosen."""
        self.action_details()

    def action_details(self) -> None:
        """Show all of the task under the cursor."""
        line = self._chosen()
        if line is not None:
            self.push_screen(Details(line, self._tables.details))

    def action_cancel(self) -> None:
        """Cancel the task under the cursor, after a question."""
        self._ask("Cancel", "If it runs, it is asked to stop, and killed if it does not.",
                  self._tables.cancel, (Tab.RUNNING, Tab.WAITING))  # fmt: skip

    def action_retry(self) -> None:
        """Enqueue the task under the cursor once more, after a question."""
        self._ask("Enqueue once more", "It gets a new id and the same arguments.",
                  self._tables.retry, (Tab.FAILED, Tab.FINISHED))  # fmt: skip

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether a key means anything here: over a table lie details, or a question."""
        if not self.screen_stack:  # it ends
            return False
        if action in ("filter", "tab") and isinstance(self.focused, Input):
            return False  # it is a character of the filter
        if isinstance(self.screen, Question):
            return action not in _OF_TABLES | _OF_TASKS
        return len(self.screen_stack) == 1 or action not in _OF_TABLES

    def _chosen(self) -> Line | None:
        if isinstance(self.screen, Details):
            return self.screen.line
        line = self._line(self._lines, self._tables_screen.query_one(Table).cursor_row)
        return line if line is not None and line.result_id else None

    def _ask(self, what: str, more: str, do: Callable[[Line], str], tabs: tuple[Tab, ...]) -> None:
        line = self._chosen()
        if line is None or self._tab not in tabs:
            self.notify(f"{what}: not possible here.", markup=False)
            return
        path = line.cells[1] if self._tab in (Tab.FAILED, Tab.FINISHED) else line.cells[0]

        def answered(yes: bool | None) -> None:
            if yes:
                self._act(do, line)

        self.push_screen(Question(f"{what}: {path}?\n{line.result_id}\n\n{more}"), answered)

    @work(group="act")
    async def _act(self, do: Callable[[Line], str], line: Line) -> None:
        self.notify(await asyncio.to_thread(do, line), markup=False)
        self._begin_again()


def _widths(columns: tuple[Column, ...], room: int) -> list[int]:
    """Return how wide each column is: those without a width share what is left."""
    left = room - 1 - sum(column.width + _PADDING for column in columns)  # 1: the scroll bar
    shares = sum(column.share for column in columns)
    return [column.width or max(10, left * column.share // shares) for column in columns]


def _cell(text: str, column: Column, width: int) -> Text:
    return Text((cut_left if column.cut_left else cut)(text, width), no_wrap=True, end="")
