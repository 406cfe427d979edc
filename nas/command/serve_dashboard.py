"""Start the Streamlit dashboard as a process of its own."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

from nas.process import interrupts
from nas.store import NoStudiesYet, Store
from search_space.errors import InputError, shown
from search_space.places import DB_VARIABLE

# Of the palette that the figures have. The page follows the reader's choice of light or dark.
THEME = ("--theme.light.primaryColor", "#0072B2", "--theme.dark.primaryColor", "#56B4E9")
END_SECONDS = 5.0  # for the server to end in order


def serve(db: str, host: str, port: int) -> int:
    """Serve until a signal; returns 0 then, else Streamlit's exit code. InputError: port in use.

    The server ends with this process, whatever ends it.
    """
    try:
        Store.open(db, create=False).close()
    except NoStudiesYet as error:  # the page is a place to launch the first from
        print(f"{error}, or on the page", file=sys.stderr)
    check_port(host, port)
    spec = importlib.util.find_spec("dashboard")
    assert spec is not None and spec.submodule_search_locations
    app = Path(next(iter(spec.submodule_search_locations))) / "server.py"
    command = [sys.executable, "-P", "-m", "nas.process.tether", "streamlit", "run", str(app)]
    command += ["--server.address", host, "--server.port", str(port), "--server.headless", "true"]
    command += ["--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"]
    command += ["--client.toolbarMode", "viewer", *THEME]
    print(f"dashboard at http://{host}:{port} (Ctrl-C stops it)", file=sys.stderr)
    environment = os.environ | {DB_VARIABLE: db, "PYTHONPATH": _with_this_package()}
    with interrupts.listening(), interrupts.held():
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        try:
            with interrupts.breakable():
                return process.wait()
        except KeyboardInterrupt:
            return 0  # how a server is meant to end
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _with_this_package() -> str:
    # The child must find the very `nas` that runs here, installed or not.
    root = str(Path(__file__).parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def check_port(host: str, port: int) -> None:
    """Raise InputError unless a server can listen on host:port."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except ValueError:  # of the coding of names, before anything is asked
        raise InputError(f"--host is a name or an address: got {shown(host)}") from None
    except OSError as error:
        raise InputError(
            f"the dashboard's port must be free: {host}:{port} is not ({error.strerror}); "
            f"choose another with --port"
        ) from error
