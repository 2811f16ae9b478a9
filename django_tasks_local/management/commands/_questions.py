"""Questions that a command asks before it removes something."""

from django.core.management.base import CommandError


def confirmed(removal: str) -> bool:
    """Return whether the person at the terminal agrees to a removal: only a yes is one.

    Args:
        removal: What it does, as ``Remove 2 rings``.

    Raises:
        CommandError: Nobody can be asked.
    """
    try:
        answer = input(f"{removal} with all tasks and results? [y/N] ")
    except (EOFError, OSError, RuntimeError):  # RuntimeError: standard input was closed
        raise CommandError(
            "Nothing was removed. local_tasks asks before it removes, and standard input has no "
            "answer; where nobody can be asked, use --no-input."
        ) from None
    return answer.strip().lower() in ("y", "yes")
