"""What the demo prints on."""

import io
import os
import sys


class Paper:
    """A printer, with colours and a line that changes in place if a person is looking."""

    def __init__(self) -> None:
        self._fancy = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._fancy and "NO_COLOR" not in os.environ
        self.failures = 0
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without "✓" is no reason to fail

    def say(self, text: str = "") -> None:
        print(("\r\x1b[K" if self._fancy else "") + text, flush=True)

    def head(self, text: str) -> None:
        self.say()
        self.say(self._paint("1", text))

    def passing(self, text: str) -> None:
        """Show where we are, on a line that the next one replaces."""
        if self._fancy:
            print("\r\x1b[K  " + self._paint("2", text), end="", flush=True)

    def check(self, holds: bool, text: str, otherwise: str = "") -> None:
        """Say whether something held, and keep count."""
        if holds:
            self.say("  " + self._paint("32", "✓") + " " + text)
            return
        self.failures += 1
        why = f" ({otherwise})" if otherwise else ""
        self.say("  " + self._paint("31", "✗ NOT:") + " " + text + why)

    def strike(self, text: str) -> None:
        self.say("  " + self._paint("31", text))

    def table(self, rows: list[list[str]]) -> None:
        """Print rows in columns as wide as they need; the first row is the head."""
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for number, row in enumerate(rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  " + (self._paint("2", line) if number == 0 else line).rstrip())

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text
