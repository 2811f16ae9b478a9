"""Memory and idle CPU of a site under gunicorn with four web workers.

PSS is what a process adds to the memory in use: a page shared by four processes counts a quarter
in each. `ring_mib` is the shared memory segment, counted once; `web_mib` and `pool_mib` are the
rest. The first line is the same site on ImmediateBackend, which has neither pool nor ring. CPU is
that of all processes of the site while nothing happens; gunicorn itself wakes once a second.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import procs
from actor import Actor
from harness import HERE, Bench, Case, Measured
from project import IMMEDIATE, NAMESPACE, destroy, environment, process_pool
from web import Gunicorn

WEB_WORKERS = 4
BATCH = 1000


def main() -> None:
    """Measure sites with more and more pool workers, and one that keeps many results."""
    bench = Bench(__file__, __doc__, rounds=3)
    bench.option("--workers", [1, 4, 10], quick=[1, 4], help="MAX_WORKERS of the pools")
    bench.option("--kept", 10_000, quick=500, help="finished results kept")
    bench.option("--seconds", 5.0, quick=1.0, help="how long to watch an idle site")
    args = bench.start()
    cases = [
        Case({"backend": "ImmediateBackend", "max_workers": 0, "kept": 0}, site(0, 0, args.seconds))
    ]
    for workers, kept in [*((n, 0) for n in args.workers), (args.workers[1], args.kept)]:
        params = {"backend": "ProcessPoolBackend", "max_workers": workers, "kept": kept}
        cases.append(Case(params, site(workers, kept, args.seconds)))
    bench.run("a site of four web workers", cases, baseline=cases[0].params)


def site(workers: int, kept: int, seconds: float) -> Callable[[], Measured]:
    """Run a fresh site for every round."""
    namespace = f"{NAMESPACE}-{workers}-{kept}"
    entry: dict[str, Any] = {"BACKEND": IMMEDIATE, "OPTIONS": {"MARK": namespace}}
    if workers:
        options = {"max_workers": workers, "max_results": max(1000, kept)}
        entry = process_pool(namespace=namespace, **options)
    env = environment({"pool": entry})

    def run() -> Measured:
        try:
            with Gunicorn("bench_site:application", HERE, env, WEB_WORKERS) as gunicorn:
                use(gunicorn, env, workers, kept)
                return {**sizes(namespace), **idle(namespace, seconds)}
        finally:
            if workers:
                destroy(env)

    return run


def use(gunicorn: Gunicorn, env: dict[str, str], workers: int, kept: int) -> None:
    """Bring the site to its full size: every process started, all results there and read."""
    gunicorn.every_worker("/")
    ids = [gunicorn.get("/pool/") for _ in range(10 * WEB_WORKERS)]
    if workers:
        with Actor(env) as actor:
            actor.call("workloads.serve_request")
            with tempfile.NamedTemporaryFile() as gate:
                for _ in range(workers):
                    actor.call("readers.running", alias="pool", gate=gate.name)
            for _ in range(0, kept, BATCH):
                ids = actor.call("readers.finished", alias="pool", count=min(BATCH, kept))
        for result_id in ids:
            gunicorn.get(f"/pool/{result_id}/")


def sizes(namespace: str) -> Measured:
    """Return PSS by role."""
    found = procs.of_site(namespace)
    web, pool = procs.memory(found["web"]), procs.memory(found["pool"])
    return {
        "web_mib": web.private_mib,
        "pool_mib": pool.private_mib,
        "ring_mib": web.shared_mib + pool.shared_mib,
        "total_mib": web.pss_mib + pool.pss_mib,
        "processes": len(found["web"]) + len(found["pool"]),
    }


def idle(namespace: str, seconds: float) -> Measured:
    """Return the CPU used without requests, from a second after the last one."""
    time.sleep(1)
    pids = [pid for role in procs.of_site(namespace).values() for pid in role]
    before = procs.cpu_s(pids)
    time.sleep(seconds)
    return {"idle_cpu_percent": (procs.cpu_s(pids) - before) / seconds * 100}


if __name__ == "__main__":
    main()
