"""The store alone, without tasks: write a value under a key, read it back in the same process.

`ring` is this package's own: writing is the whole life of a record there (enqueue, claim, finish)
through the door that the pool uses, and reading ends with the unpickled value, as everywhere.
"""

import sqlite3
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing import Manager
from pathlib import Path
from pickle import dumps, loads
from random import randbytes
from typing import Any
from uuid import uuid4

KEPT = 1000  # values in the store while it is measured; 16 MiB ones: as many as are written


def exchange(store: str, folder: str, size_bytes: int, times: int) -> dict[str, list[int]]:
    """Return the nanoseconds of each write and each read."""
    put, get, close = STORES[store](Path(folder))
    value, clock = {"value": randbytes(size_bytes)}, time.perf_counter_ns
    keys = [put(value) for _ in range(KEPT if size_bytes < 2**16 else 1)]
    write, read = [], []
    for _ in range(times):
        begin = clock()
        keys.append(put(value))
        write.append(clock() - begin)
    for key in keys[-times:]:
        begin = clock()
        found = get(key)
        read.append(clock() - begin)
        if found != value:
            raise RuntimeError("another value came back")
    close()
    return {"write": write, "read": read}


type Opened = tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[], None]]


def ring(folder: Path) -> Opened:
    """Use the shared-memory ring of the default backend, as a visitor: it starts no pool."""
    from django.tasks import task_backends

    from django_tasks_local import ProcessPoolBackend
    from django_tasks_local.ring import Ring, Role, unlink_objects

    backend = task_backends["default"]
    assert isinstance(backend, ProcessPoolBackend)
    spec = backend.spec()
    store = Ring(spec.name, spec.alias, spec.limits, Role.VISITOR)
    nothing = store.encode(((), {}))

    def put(value: Any) -> str:
        result_id, _ = store.enqueue(b"benchmark", nothing, priority=0, due_ns=0)
        claim = store.claim()
        assert claim is not None
        store.finish(claim, successful=True, outcome=store.encode(value))
        return result_id

    def get(key: str) -> Any:
        return store.get(key).outcome()

    def close() -> None:
        store.attachment.detach()
        unlink_objects(spec.name)

    return put, get, close


def manager(folder: Path) -> Opened:
    """Use `multiprocessing.Manager().dict()`: a server process behind a pipe."""
    server = Manager()
    values = server.dict()

    def put(value: Any) -> str:
        key = str(uuid4())
        values[key] = value
        return key

    return put, values.__getitem__, server.shutdown


def diskcache(folder: Path) -> Opened:
    """Use diskcache: SQLite, and files for large values."""
    cache = import_module("diskcache").Cache(str(folder / "diskcache"))

    def put(value: Any) -> str:
        key = str(uuid4())
        cache[key] = value
        return key

    return put, cache.__getitem__, cache.close


def lmdb(folder: Path) -> Opened:
    """Use LMDB without waiting for the disk: the ring does not survive a reboot either."""
    path = str(folder / "lmdb")
    database = import_module("lmdb").open(path, map_size=2**30, sync=False, metasync=False)

    def put(value: Any) -> bytes:
        key = str(uuid4()).encode()
        with database.begin(write=True) as transaction:
            transaction.put(key, dumps(value, 5))
        return key

    def get(key: bytes) -> Any:
        with database.begin() as transaction:
            return loads(transaction.get(key))

    return put, get, database.close


def sqlite(folder: Path) -> Opened:
    """Use SQLite with a write-ahead log, without waiting for the disk."""
    connection = sqlite3.connect(folder / "sqlite.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE stored (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def put(value: Any) -> str:
        key = str(uuid4())
        connection.execute("INSERT INTO stored VALUES (?, ?)", (key, dumps(value, 5)))
        return key

    def get(key: str) -> Any:
        query = "SELECT value FROM stored WHERE key = ?"
        return loads(connection.execute(query, (key,)).fetchone()[0])

    return put, get, connection.close


STORES: dict[str, Callable[[Path], Opened]] = {
    "ring": ring,
    "Manager().dict()": manager,
    "diskcache": diskcache,
    "lmdb": lmdb,
    "SQLite": sqlite,
}
