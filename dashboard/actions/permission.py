"""Who may act. Reading is for everybody who reaches the server; acting is not.

On loopback the person at the machine acts: the server listens there alone and the request says that
it came from there. Elsewhere they log in (`st.login`) or type a token. Where either is set up, it
is asked for on loopback, too: whoever set it up shares the machine, or has a proxy in front.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import streamlit as st

from dashboard.actions import TOKEN
from search_space.errors import InputError

LEAST_TOKEN = 16  # characters: fewer can be guessed
# Headers by which a proxy says that the request is another machine's.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_GIVEN = "action-token-given"
_FIELD = "action-token"


@dataclass(frozen=True, kw_only=True)
class Asker:
    """What is known of a session.

    address: that the server listens on, "" for all of the machine's.
    host, origin: headers of the request that opened the session; "" where it had none.
    remote: the other end's address, "" for loopback.
    forwarded: whether a proxy says that it passed the request on.
    token: whether actions ask for one, and whether it is long enough.
    given: whether the session has given it.
    login: whether people can log in, and whether this one has.
    """

    address: str
    host: str
    origin: str
    remote: str
    forwarded: bool
    token: str = "none"  # none | short | set
    given: bool = False
    login: str = "none"  # none | out | in


def why_not(asker: Asker | None = None) -> str:
    """Why the session may not act, and what would let it, in a sentence; "" when it may."""
    asker = asker or this_session()
    if asker.given and asker.token == "set":
        return ""
    if asker.login == "in":
        return ""
    if asker.token == "short":
        return (
            f"Actions are off: {TOKEN} must have at least {LEAST_TOKEN} characters; set a longer "
            "one and start the server again."
        )
    if asker.token == "set" or asker.login == "out":
        ways = ["type the token in the sidebar"] if asker.token == "set" else []
        ways += ["log in in the sidebar"] if asker.login == "out" else []
        return f"Actions are off: {' or '.join(ways)} to turn them on."
    if _is_loopback(asker):
        return ""
    return (
        "Actions are off, for this page is not open on the server's own machine: start the server "
        f"with a token in the environment variable {TOKEN}, or set up st.login, to turn them on."
    )


def require_permission() -> None:
    """Raise InputError unless the session may act; asked again when a button is pressed, for its
    page may have been drawn while the session might."""
    reason = why_not()
    if reason:
        raise InputError(reason)


def this_session() -> Asker:
    """The session whose page is being drawn."""
    headers = st.context.headers
    token = os.environ.get(TOKEN, "")
    login = "none"
    if "is_logged_in" in st.user:
        login = "in" if st.user.is_logged_in else "out"
    return Asker(
        address=str(st.get_option("server.address") or ""),
        host=headers.get("host", ""),
        origin=headers.get("origin", ""),
        remote=st.context.ip_address or "",
        forwarded=any(name in headers for name in FORWARDED),
        token="none" if not token else "set" if len(token) >= LEAST_TOKEN else "short",
        given=bool(st.session_state.get(_GIVEN)),
        login=login,
    )


def draw_ways_in() -> None:
    """In the sidebar: what a session must do before it may act, where there is such a thing."""
    asker = this_session()
    if not why_not(asker):
        return
    with st.sidebar:
        if asker.token == "set":
            st.text_input(
                "Token for actions",
                type="password",
                key=_FIELD,
                on_change=_take_token,
                help=f"What the server was started with in {TOKEN}. It is asked for once a "
                "session; reading needs none.",
            )
            if st.session_state.get(_GIVEN) is False:
                st.error("That is not the token.")
        if asker.login == "out":
            st.button("Log in", on_click=st.login, icon=":material/login:", key="action-login")


def _take_token() -> None:
    given = str(st.session_state.get(_FIELD, ""))
    # In constant time, so that nothing is learnt from how long a wrong one takes.
    right = hmac.compare_digest(given.encode(), os.environ.get(TOKEN, "").encode())
    st.session_state[_GIVEN] = right and len(given) >= LEAST_TOKEN
    st.session_state[_FIELD] = ""  # the session remembers that it was right, not what it was


def _is_loopback(asker: Asker) -> bool:
    """Whether the server and the request are both of this machine alone.

    The name that the browser asked for counts, not the connection alone. A stranger's page can name
    this machine (DNS rebinding), or open a connection to it (its origin tells); and a proxy on
    this machine passes on what comes from elsewhere.
    """
    origin = urlsplit(asker.origin).netloc if asker.origin else asker.host
    return (
        _names_loopback(asker.address)
        and _names_loopback(_hostname(asker.host))
        and _names_loopback(_hostname(origin))
        and not asker.remote
        and not asker.forwarded
    )


def _hostname(netloc: str) -> str:
    """The name in `name:port`; "" where it is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _names_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
