"""What a script of the tests does with a result that it wants now."""

import time
from typing import Any


def finished(result: Any) -> Any:
    """Wait for the end of a task; return what it returned, or its traceback."""
    while not result.is_finished:
        time.sleep(0.005)
        result.refresh()
    return result.return_value if result.status == "SUCCESSFUL" else result.errors[0].traceback
