"""Processes that try to attach to a study's Ray without its secret."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.abuse.processes import Command, trace
from benchmarks.abuse.ray_machine import await_value, end_politely, ray_of, rows, titled
from benchmarks.abuse.studies import write_study

FULL, SHORT = 12, 4
WRONG = "0" * 64
JOIN = "import ray; ray.init({}); print('IN', ray.get(ray.remote(num_cpus=0)(lambda: 1).remote()))"
TOKEN = {"RAY_AUTH_MODE": "token"}
# name, environment, code with the GCS's address as {0!r}; whoever gets in prints IN.
CLIENTS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("no token", {}, JOIN.format("{0!r}")),
    ("a wrong token", TOKEN | {"RAY_AUTH_TOKEN": WRONG}, JOIN.format("{0!r}")),
    ("an empty token", TOKEN | {"RAY_AUTH_TOKEN": ""}, JOIN.format("{0!r}")),
    ("authentication disabled", {"RAY_AUTH_MODE": "disabled"}, JOIN.format("{0!r}")),
    ("RAY_ADDRESS", {"RAY_ADDRESS": "{0}"}, JOIN.format("")),
    ("a wrong token's file", TOKEN | {"RAY_AUTH_TOKEN_PATH": "{1}"}, JOIN.format("{0!r}")),
    ("the Ray client", {}, JOIN.format("'ray://' + {0!r}")),
    (
        "ray status",
        {},
        "import sys; sys.argv = ['ray', 'status', '--address', {0!r}]\n"
        "from ray.scripts.scripts import cli; cli(standalone_mode=False); print('IN')",
    ),
    (
        "the state API",
        {},
        "from ray.util.state import list_actors; print('IN', list_actors(address={0!r}))",
    ),
    (
        "the GCS's tables",
        {},
        "from ray._raylet import GcsClient\n"
        "print('IN', GcsClient(address={0!r}).internal_kv_keys(b'', b''))",
    ),
)


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Every way in, one after another, against one running study."""
    study = Command(folder / "study", "launch", write_study(folder / "study", 500, 1.5e9))
    try:
        await_value(study, lambda: points(study), 120, "training")
        ways = [*raw_ways(), *client_ways(folder)]
        for number in range(count):
            name, way = ways[number % len(ways)]
            yield attempt(study, name, way)
    finally:
        end_politely(study)


def points(study: Command) -> int:
    """How many points its curves have."""
    found = rows(study, "select count(*) from curve_point")
    return int(found[0][0]) if found else 0


def attempt(study: Command, name: str, way: Callable[[Command], str]) -> str:
    """Try the way in; the study must go on as if nothing had happened."""
    before = points(study)
    wrong = way(study)
    try:
        await_value(study, lambda: points(study) > before, 120, "progress after it")
    except RuntimeError as error:
        wrong = wrong or str(error)
    wrong = wrong or trace(study.text())
    return f"{name}: {wrong}" if wrong else ""


def client_ways(folder: Path) -> Iterator[tuple[str, Callable[[Command], str]]]:
    """Ray's own clients."""
    token = folder / "token"
    token.write_text(WRONG)
    for name, environment, code in CLIENTS:

        def run(study: Command, environment: dict[str, str] = environment, code: str = code) -> str:
            host, port = next(iter(listening(study, "gcs_server")))
            address = f"{host}:{port}"
            given = {k: v.format(address, token) for k, v in environment.items()}
            return refused(code.format(address), given)

        yield name, run


def refused(code: str, environment: dict[str, str]) -> str:
    """Run a client in a fresh process and home; "" when it does not get in."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as home:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        clean |= {"HOME": home, "RAY_NUM_REDIS_GET_RETRIES": "1"}
        clean |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else it asks at the outer address
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    if "IN" in done.stdout.split() or done.returncode == 0:
        return f"it got in: {done.stdout[-200:]!r}"
    return ""


def raw_ways() -> Iterator[tuple[str, Callable[[Command], str]]]:
    """What needs no Ray: bytes to every port, and HTTP to the agent that installs packages."""
    yield "garbage to every port", garbage
    yield "HTTP without and with a wrong token", http


def listening(study: Command, start: str = "") -> dict[tuple[str, int], str]:
    """(host, port) -> title of the process, for all TCP sockets that the study listens on."""
    found = {}
    for process in titled(ray_of(study), start):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                host = connection.laddr.ip.removeprefix("::ffff:")
                found[host, connection.laddr.port] = " ".join(process.cmdline())
    return found


def garbage(study: Command) -> str:
    """Random bytes, half a request and silence to every port; all must be loopback's."""
    ports = listening(study)
    if len(ports) < 5:
        return f"only {len(ports)} listening sockets were found"
    if outside := [where for where in ports if where[0] != "127.0.0.1"]:
        return f"it listens on {outside[0]}"
    silent = []
    for where in ports:
        for text in (os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"):
            with socket.create_connection(where, timeout=5) as peer:
                peer.sendall(text)
        silent += [socket.create_connection(where, timeout=5) for _ in range(20)]
    for peer in silent:
        peer.close()
    return ""


def http(study: Command) -> str:
    """The runtime-environment agent can install packages: it must answer 401."""
    agents = [where for where, title in listening(study).items() if "RuntimeEnvAgent" in title]
    if len(agents) != 1:
        return f"{len(agents)} agents listen"
    for header in ("", f"Authorization: Bearer {WRONG}\r\n"):
        with socket.create_connection(agents[0], timeout=10) as peer:
            head = f"POST /get_or_create_runtime_env HTTP/1.1\r\nHost: localhost\r\n{header}"
            peer.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            status = peer.recv(200).split(b"\r\n")[0].decode()
        if status.split()[1] not in ("401", "403"):
            return f"the agent answers {status!r}"
    return ""
