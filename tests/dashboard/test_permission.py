"""Who may act: the person at the machine, and elsewhere who has logged in or has the token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard.actions.permission import Asker, why_not

HOME = Asker(
    address="127.0.0.1",
    host="127.0.0.1:8501",
    origin="http://127.0.0.1:8501",
    remote="",
    forwarded=False,
)
TOKEN_SAID = "Actions are off: type the token in the sidebar to turn them on."


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"host": "localhost:8501", "origin": "http://localhost:8501"},
        {"address": "::1", "host": "[::1]:8501", "origin": "http://[::1]:8501"},
        {"address": "localhost"},
        {"origin": ""},  # no browser
    ],
)
def test_on_loopback_the_person_at_the_machine_acts(change):
    assert why_not(replace(HOME, **change)) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"address": ""},  # all of the machine's addresses
        {"address": "0.0.0.0"},
        {"address": "10.0.0.7"},
        {"remote": "10.0.0.8"},
        {"forwarded": True},  # a proxy on this machine
        {"host": "nas.example.com"},
        {"host": ""},
        {"host": "localhost.example.com:8501"},
        {"host": "127.0.0.1@example.com"},
        {"host": "[::g]:1"},
        # DNS rebinding: a stranger's name that leads to this machine.
        {"host": "evil.example:8501", "origin": "http://evil.example:8501"},
        # A stranger's page that opens a connection to this machine.
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "file:///home"},
    ],
)
def test_whatever_is_not_surely_of_this_machine_only_reads(change):
    said = why_not(replace(HOME, **change))
    assert said.startswith("Actions are off, for this page is not open on the server's own machine")
    assert "NAS_DASHBOARD_TOKEN" in said and "st.login" in said


@pytest.mark.parametrize("where", [HOME, replace(HOME, address="0.0.0.0", remote="10.0.0.8")])
def test_a_token_that_is_set_is_asked_for_everywhere(where):
    asked = replace(where, token="set")
    assert why_not(asked) == TOKEN_SAID
    assert why_not(replace(asked, given=True)) == ""
    short = replace(where, token="short")
    assert "at least 16 characters" in why_not(short)
    assert "at least 16 characters" in why_not(replace(short, given=True))
    assert why_not(replace(where, given=True, address="0.0.0.0")) != ""  # of a token taken away


@pytest.mark.parametrize("where", [HOME, replace(HOME, address="0.0.0.0", remote="10.0.0.8")])
def test_where_people_can_log_in_they_do(where):
    assert why_not(replace(where, login="out")) == (
        "Actions are off: log in in the sidebar to turn them on."
    )
    assert why_not(replace(where, login="in")) == ""
    both = replace(where, login="out", token="set")
    assert "type the token in the sidebar or log in" in why_not(both)
