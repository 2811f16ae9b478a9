"""The screens that ``local_tasks top`` lays over its tables: all of one task, and a question."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Static

from ._top_tables import Line


class Details(Screen[None]):
    """All of one task, renewed as long as it is looked at.

    Args:
        line: Its row.
        read: Returns the text for a row; takes whether to show arguments, too.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "app.pop_screen", "Back", key_display="esc"),
        Binding("a", "arguments", "Arguments"),
        Binding("C", "app.cancel", "Cancel task"),
        Binding("R", "app.retry", "Retry task"),
    ]

    def __init__(self, line: Line, read: Callable[[Line, bool], str]) -> None:
        super().__init__()
        self.line = line
        self._read = read
        self._arguments = False
        self.text = ""

    def compose(self) -> ComposeResult:
        """Yield a text that can be scrolled."""
        with VerticalScroll(can_focus=True):
            yield Static(id="details")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show the task."""
        self.renew()

    def renew(self) -> None:
        """Show the task as it is now."""
        text = self._read(self.line, self._arguments)
        if text != self.text:
            self.text = text
            self.query_one("#details", Static).update(Content(text))  # no markup: it is a task's

    def action_arguments(self) -> None:
        """Show arguments and return value, or hide them again."""
        self._arguments = not self._arguments
        self.renew()


class Question(ModalScreen[bool]):
    """Ask before a task is touched; only ``y`` is a yes.

    Args:
        text: The question.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q,enter", "answer(False)", "No", key_display="n"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Yield the question in a box."""
        with Vertical(id="question"):
            yield Static(Content(self._text))
            yield Static(Content("y  yes     n  no"), id="answers")

    def action_answer(self, answer: bool) -> None:
        """Leave with an answer."""
        self.dismiss(answer)
