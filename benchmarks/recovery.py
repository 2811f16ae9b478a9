"""How long until all is well again after a SIGKILL, for each thing that can be killed.

`lock holder`: from the kill until another process has been inside the ring, with what the dead one
left half-written put in order. `rebuild`: that repair alone. `pool worker`: until its task is seen
to be FAILED, and until the task behind it starts in a new worker. `pool`: until a new worker of a
new pool has answered. `site`: from the death of the last site process until no process is left.
"""

import itertools
import os
import signal
import tempfile
import time
from functools import partial

import procs
from actor import Actor
from harness import Bench, Case, Measured, wait_until
from project import NAMESPACE, Project, destroy, environment, process_pool

numbers = itertools.count()


def main() -> None:
    """Kill, and take the time."""
    bench = Bench(__file__, __doc__, rounds=5)
    bench.option("--kills", 100, quick=10, help="kills of a lock holder in a round")
    bench.option("--records", [100, 10_000], quick=[100, 2000], help="finished records in the ring")
    args = bench.start()
    aliases = {
        str(n): process_pool(max_workers=1, max_results=n, slot_size=256) for n in args.records
    }
    with Project(aliases) as project:
        killer = Actor(project.env)
        project.actors.append(killer)
        for title, measure in {"lock holder killed": holder, "rebuild": rebuild}.items():
            cases = [
                Case({"records": n}, partial(measure, killer, n, args.kills)) for n in args.records
            ]
            bench.run(title, cases)
    with Project({"pool": process_pool(max_workers=1)}) as project:
        site = project.actor()
        cases = [
            Case({"killed": "pool worker"}, lambda: worker(site)),
            Case({"killed": "pool"}, lambda: ms(site.call("crash.kill_pool", alias="pool"))),
            Case({"killed": "site"}, whole_site),
        ]
        bench.run("processes killed", cases)


def holder(killer: Actor, records: int, kills: int) -> Measured:
    """Measure kills of the lock's holder, with a fresh ring for each round."""
    call = {"alias": str(records), "records": records, "kills": kills}
    return {"next_inside_ms": [span / 1e6 for span in killer.call("crash.holder_kills", **call)]}


def rebuild(killer: Actor, records: int, times: int) -> Measured:
    """Measure the same repair without a kill."""
    call = {"alias": str(records), "records": records, "times": times}
    return {"rebuild_ms": [span / 1e6 for span in killer.call("crash.rebuilds", **call)]}


def worker(site: Actor) -> Measured:
    """Measure kills of a pool worker: a file keeps its task running until then."""
    with tempfile.NamedTemporaryFile() as gate:
        return ms(site.call("crash.kill_worker", alias="pool", gate=gate.name))


def whole_site() -> Measured:
    """Measure kills of a site of one process, and of its pool."""
    namespace = f"{NAMESPACE}-site-{next(numbers)}"
    env = environment({"pool": process_pool(namespace=namespace, max_workers=2)})
    try:
        with Actor(env) as site:
            site.call("workloads.serve_request")
            site.call("workloads.round_trips", alias="pool", times=1)
            begin = time.monotonic_ns()
            os.kill(site.process.pid, signal.SIGKILL)
            wait_until(lambda: not procs.of_site(namespace)["pool"], "the end of the pool")
            return {"nothing_left_ms": (time.monotonic_ns() - begin) / 1e6}
    finally:
        destroy(env)


def ms(spans: dict[str, int]) -> Measured:
    """Convert nanoseconds to milliseconds."""
    return {f"{name}_ms": span / 1e6 for name, span in spans.items()}


if __name__ == "__main__":
    main()
