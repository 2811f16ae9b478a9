"""One module per library: how `contest.py` enqueues a task, waits for its value and reads it again.

Each has `enqueue(task, *args)`, `value(handle)`, `key(handle)` and `read(key)`. A library with a
waiting call of its own is waited for by that call; the others are polled every 20 µs. The tasks
are those of `work.py`.
"""
