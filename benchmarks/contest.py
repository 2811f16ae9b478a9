"""The workloads of `compare.py`: the same loops for every contender.

They run in a process of the contender's own virtual environment. `contender` is the name of a
module of `contenders`.
"""

import time
from importlib import import_module
from typing import Any

TAIL = 20  # ends of a burst that are waited for


def module(contender: str) -> Any:
    """Return the contender's module with its four functions."""
    return import_module(f"contenders.{contender}")


def burst(contender: str, tasks: int) -> dict[str, Any]:
    """Enqueue no-ops as fast as possible, then wait for the last of them."""
    one, clock = module(contender), time.perf_counter_ns
    if run_all := getattr(one, "run_all", None):
        begin = clock()
        run_all(tasks)
        return {"tasks_per_s": tasks / (clock() - begin) * 1e9, "enqueue_ns": []}
    handles, spans = [], []
    begin = before = clock()
    for _ in range(tasks):
        handles.append(one.enqueue("noop"))
        after = clock()
        spans.append(after - before)
        before = after
    for handle in reversed(handles[-TAIL:]):
        one.value(handle)
    return {"tasks_per_s": tasks / (clock() - begin) * 1e9, "enqueue_ns": spans}


def round_trips(contender: str, times: int, limit_s: float = 1.5) -> list[int]:
    """Run no-ops one at a time and wait for each; run fewer where one takes long."""
    one, clock = module(contender), time.perf_counter_ns
    spans: list[int] = []
    give_up = clock() + limit_s * 1e9
    while len(spans) < times and clock() < give_up:
        begin = clock()
        one.value(one.enqueue("noop"))
        spans.append(clock() - begin)
    return spans


def returned(contender: str, size_bytes: int, text: bool, times: int) -> dict[str, list[int]]:
    """Time a large return value: the whole round trip, and from `return` to having the value."""
    one, whole, transfer = module(contender), [], []
    for _ in range(times):
        begin = time.monotonic_ns()
        made, data = one.value(one.enqueue("produce", size_bytes, text))
        now = time.monotonic_ns()
        if len(data) != size_bytes:
            raise RuntimeError(f"{len(data)} bytes came back instead of {size_bytes}")
        whole.append(now - begin)
        transfer.append(now - made)
    return {"whole": whole, "transfer": transfer}


def finished(contender: str) -> Any:
    """Return the key of a finished no-op, for readers in this process or another."""
    one = module(contender)
    handle = one.enqueue("noop")
    one.value(handle)
    return one.key(handle)


def reads(contender: str, key: Any, times: int) -> list[int]:
    """Read the same small result again and again."""
    read, clock, spans = module(contender).read, time.perf_counter_ns, []
    for _ in range(times):
        begin = clock()
        read(key)
        spans.append(clock() - begin)
    return spans
