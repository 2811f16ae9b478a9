"""HTTP load: `wrk` where it is installed, otherwise a few Python processes.

A connection is opened for each request, as gunicorn's sync workers want it. The Python clients
run on the same cores as the site, so their figures are lower than those of wrk: compare figures
of one generator only.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping

from actor import Actor, together
from harness import us

CLIENTS = 8  # requests under way at once: twice the web workers of the example


def measure(port: int, head: str, body: str, seconds: float) -> Mapping[str, float | list[float]]:
    """Send the same request for a while; return requests per second and times.

    Args:
        port: Of 127.0.0.1.
        head: Request line and headers, without the empty line.
        body: May be empty.
        seconds: How long.
    """
    return (wrk if shutil.which("wrk") else python)(port, head, body, seconds)


def python(port: int, head: str, body: str, seconds: float) -> Mapping[str, float | list[float]]:
    """Run eight clients, each in its own process so that they do not wait for one another."""
    request = f"{head}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Actor({})) for _ in range(CLIENTS)]
        for client in clients:
            client.call("load.send", port=port, request=request, seconds=0.05)
        answers = together(clients, "load.send", port=port, request=request, seconds=seconds)
    spans = [span for answer in answers for span in answer["spans"]]
    rate = sum(len(answer["spans"]) / answer["seconds"] for answer in answers)
    return {"requests_per_s": rate, "answer_us": us(spans)}


def send(port: int, request: str, seconds: float) -> dict[str, float | list[int]]:
    """Send one request after another: one client.

    Raises:
        RuntimeError: An answer is not 200 or 201.
    """
    data, spans = request.encode(), []
    begin = before = time.perf_counter_ns()
    while before - begin < seconds * 1e9:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
            answer = connection.recv(65536)
            while chunk := connection.recv(65536):
                answer += chunk
        if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            raise RuntimeError(answer[:300].decode(errors="replace"))
        after = time.perf_counter_ns()
        spans.append(after - before)
        before = after
    return {"seconds": (before - begin) / 1e9, "spans": spans}


def wrk(port: int, head: str, body: str, seconds: float) -> Mapping[str, float | list[float]]:
    """Do the same through wrk, which takes whole seconds."""
    request_line, *headers = head.split("\r\n")
    method, path, _ = request_line.split()
    script = f'wrk.method = "{method}"\nwrk.body = [[{body}]]\n'
    script += "".join(
        'wrk.headers["{}"] = [[{}]]\n'.format(*header.split(": ", 1)) for header in headers
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        length = f"-d{max(1, round(seconds))}s"
        url = f"http://127.0.0.1:{port}{path}"
        command = ["wrk", "-t1", f"-c{CLIENTS}", length, "--latency", "-s", file.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parsed(output)


def parsed(output: str) -> dict[str, float]:
    """Return the figures in wrk's report.

    Raises:
        RuntimeError: Some answers were errors.
    """
    if "Non-2xx" in output:
        raise RuntimeError(output[output.index("Non-2xx") :].splitlines()[0])
    unit_us = {"us": 1, "ms": 1e3, "s": 1e6}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    middle = re.search(r"\b50%\s+([\d.]+)(us|ms|s)", output)
    if rate is None or middle is None:
        raise RuntimeError(f"no figures in the report of wrk: {output[:200]}")
    return {
        "requests_per_s": float(rate[1]),
        "answer_us": float(middle[1]) * unit_us[middle[2]],
    }
