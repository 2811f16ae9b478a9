"""Text of tasks in one line in which nothing controls a terminal or begins a line of its own."""


def harmless(text: str, longest: int = 0) -> str:
    r"""Return ``text`` in one line in which nothing controls a terminal.

    Names, messages and tracebacks come from tasks, and may hold what a visitor sent to the site:
    escape sequences, line feeds, marks that reverse the direction. Each is shown as an escape such
    as ``\x1b``.

    Args:
        text: Any text.
        longest: How many characters of it are shown; 0: all.
    """
    if longest and len(text) > longest:
        text = f"{text[:longest]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
