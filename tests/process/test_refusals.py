"""What the machine refuses a pool: descriptors, and standard streams that can be written to."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.client import environment, fresh_namespace, serving, workers_at
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, wait_for

PRINTING = """
from tests.site.settings import *
from tests.site.settings import _in_pool

if _in_pool:
    print("loaded")
"""


def test_no_descriptor_for_another_worker(tmp_path: Path) -> None:
    """What runs goes on, what waits goes on waiting, and it runs when there are descriptors."""
    gate = tmp_path / "gate"
    with serving(workers=1, options={"MAX_WORKERS": 3}) as client:
        client.run("add", 1)
        (pool,) = client.supervisors()
        wait_for(lambda: len(client.workers()) == 2)
        before = resource.prlimit(pool, resource.RLIMIT_NOFILE)
        open_now = max(int(number) for number in os.listdir(f"/proc/{pool}/fd")) + 1
        resource.prlimit(pool, resource.RLIMIT_NOFILE, (open_now, before[1]))
        ids = [client.enqueue("hold", str(gate)) for _ in range(3)]
        wait_for(lambda: "cannot start a worker" in client.site.log(), LONG_TIMEOUT)
        wait_for(lambda: len(workers_at(gate)) == 2, LONG_TIMEOUT)
        assert client.status(ids[2]) == "READY"
        assert client.supervisors() == [pool]
        resource.prlimit(pool, resource.RLIMIT_NOFILE, before)
        wait_for(lambda: len(workers_at(gate)) == 3, LONG_TIMEOUT)
        gate.touch()
        for result_id in ids:
            client.value(result_id)
        assert "works again" in client.site.log()
        assert "Too many open files" in client.site.log()
        assert client.site.log().count("cannot start a worker") <= 3


@pytest.mark.parametrize("output", ["closed", "without a reader", "on a full disk"])
@pytest.mark.parametrize("workers", ["forked", "fresh"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_takes(
    tmp_path: Path, output: str, workers: str, unbuffered: str
) -> None:
    """A project whose settings and tasks print has them run, in one pool, all the same."""
    project = Project(tmp_path)
    project.write("shop_settings.py", PRINTING)
    answer = tmp_path / "answer"
    project.write(
        "script.py",
        f"""
        import django
        django.setup()
        from tests.site.tasks import add, call_os_exit, talk
        from tests.site.waiting import finished
        if __name__ == "__main__":
            values = [finished(add.enqueue(number)) for number in range(5)]
            values.append("exit code 3" in finished(call_os_exit.enqueue(3)))
            values.append(finished(add.enqueue(5)))
            values.append(finished(talk.enqueue("x" * 100_000)))
            with open({str(answer)!r}, "w") as file:
                print(values, file=file)
        """,
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    full = os.open("/dev/full", os.O_WRONLY)
    stdout = {"closed": None, "without a reader": write_end, "on a full disk": full}[output]
    with fresh_namespace() as namespace:
        env = os.environ | environment(namespace) | project.env
        env |= {"DTL_THREAD": "1"} if workers == "fresh" else {}
        env["PYTHONUNBUFFERED"] = unbuffered
        command = ["sh", "-c", 'exec "$0" "$@" >&-'] if output == "closed" else []
        done = subprocess.run(
            [*command, sys.executable, str(tmp_path / "script.py")],
            env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=LONG_TIMEOUT,
        )  # fmt: skip
        assert answer.exists(), done.stderr
        assert answer.read_text().strip() == "[0, 1, 2, 3, 4, True, 5, None]"
        assert done.stderr.count("pool pid=") <= 2 + 1
    os.close(write_end)
    os.close(full)
