"""Start the Streamlit dashboard as a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from nas.store import Store
from search_space.errors import InputError


def serve(db: str, host: str, port: int) -> int:
    """Serve until Ctrl-C or SIGTERM; returns Streamlit's exit code. InputError: port in use."""
    Store.open(db, create=False).close()
    check_port(host, port)
    spec = importlib.util.find_spec("dashboard")
    assert spec is not None and spec.submodule_search_locations
    app = Path(next(iter(spec.submodule_search_locations))) / "app.py"
    command = [sys.executable, "-m", "streamlit", "run", str(app)]
    command += ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    command += ["--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"]
    command += ["--client.toolbarMode", "viewer"]
    print(f"dashboard at http://{host}:{port} (Ctrl-C stops it)", file=sys.stderr)
    process = subprocess.Popen(command, env=os.environ | {"NAS_DB": db})
    # A terminal's Ctrl-C reaches both processes, a supervisor's SIGTERM this one alone.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0


def check_port(host: str, port: int) -> None:
    """Raise InputError unless a server can listen on host:port."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            f"the dashboard's port must be free: {host}:{port} is not ({error.strerror}); "
            f"choose another with --port"
        ) from error
