"""What a log line may hold: no secret, nothing that a database or a reader trips over, not much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from search_space.log_text import MOST, log_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("step 3: **bold** :smile: <b>", "step 3: **bold** :smile: <b>"),
        ("two\r\nlines\n\tand a tab\n", "two\nlines\n    and a tab"),
        ("a\0b \ud800 c\x1b[31m d\u202e", "a\\x00b \\ud800 c\\x1b[31m d\\u202e"),
        ("größer ✓ 表", "größer ✓ 表"),
        ("kept in s3://me:pass@word@host/x", "kept in s3://me:***@host/x"),
        ("https://tok\u200ben@host", "https://***@host"),
        ("PUT https://h/x?X-Amz-Signature=abc&y=1", "PUT https://h/x?X-Amz-Signature=***&y=1"),
    ],
)
def test_a_text_is_shown_as_it_is_but_for_secrets_and_what_cannot_be_printed(text, shown):
    assert log_text(text) == shown


def test_a_secret_is_hidden_before_the_text_is_cut():
    url = "https://user:verysecretpassword@host/"
    for most in range(10, 60):
        assert "very" not in log_text(url, most)
    assert log_text("x" * (MOST + 1)) == "x" * (MOST - 1) + "…"
    assert log_text("x" * MOST) == "x" * MOST


@given(some.text(some.characters(), max_size=300), some.integers(1, 200))
def test_any_text_fits_a_database_and_its_bound(text, most):
    shown = log_text(text, most)
    assert len(shown) <= most and "\0" not in shown
    shown.encode()  # no lone surrogate
    assert log_text(log_text(text, 9_999), 9_999) == log_text(text, 9_999), "said again, the same"
