"""No password or token of a URL is shown; what is no secret stays as it is."""

import time

import pytest

from search_space.secrets import has_secret, redacted


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://user:hunter2@host/x.txt", "https://user:***@host/x.txt"),
        ("https://hunter2@host/x", "https://***@host/x"),
        ("https://:hunter2@host/x", "https://:***@host/x"),
        ("https://user:hun@ter2@host/x", "https://user:***@host/x"),
        ("https://user:hun/te?r#2@host/x", "https://user:***@host/x"),
        ("https://user:12345@host/x", "https://user:***@host/x"),
        ("https://user:12?34@host/x", "https://user:***@host/x"),
        ("postgresql://nas:12/34@host/db", "postgresql://nas:***@host/db"),
        ("postgresql://nas:12?34@host/db", "postgresql://nas:***@host/db"),
        ("redis://nas:12#34@host/0", "redis://nas:***@host/0"),
        ("s3://nas:/34@bucket/x", "s3://nas:***@bucket/x"),
        ("1https://user:hunter2@host/x", "1https://user:***@host/x"),
        ("https://h/x?next=http://h?token=hunter2", "https://h/x?next=http://h?token=***"),
        ("s3://AKIA:hunter2@bucket/x", "s3://AKIA:***@bucket/x"),
        ("postgresql+psycopg://me:hunter2@db:5432/nas", "postgresql+psycopg://me:***@db:5432/nas"),
        (
            "postgresql://db/nas?user=me&password=hunter2",
            "postgresql://db/nas?user=me&password=***",
        ),
        ("https://host/x.txt?token=hunter2", "https://host/x.txt?token=***"),
        ("https://h/x?a=1&X-Amz-Signature=hunter2&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?access_token=hunter2#top", "https://h/x?access_token=***#top"),
        ("simplecache::https://me:hunter2@h/x", "simplecache::https://me:***@h/x"),
        ("error: 'https://me:hunter2@h/x' said no", "error: 'https://me:***@h/x' said no"),
        ("http://a:hunter2@p:1 and http://b:hunter2@q:2", "http://a:***@p:1 and http://b:***@q:2"),
    ],
)
def test_secrets_are_hidden(given, shown):
    assert redacted(given) == shown
    assert has_secret(given) and "hunter2" not in redacted(given)


@pytest.mark.parametrize(
    "plain",
    [
        "corpus.txt",
        "C:/me@home/x.txt",
        "mail me@host about a:b",
        "https://host/x@2.txt",
        "https://host:8080/x@2.txt",
        "https://host:8080?page=2",
        "https://host/x?author=me&page=2&keyboard=de",
        "ssh://me@host/x.txt",
        "postgresql+psycopg://me@db:5432/nas",
        "sqlite:///a b#c.db",
        "",
    ],
)
def test_what_is_no_secret_stays(plain):
    assert redacted(plain) == plain and not has_secret(plain)


@pytest.mark.parametrize(
    "long",
    ["x" * 200_000, "a://b:" * 30_000, "?" + "token" * 40_000, "?a=" * 60_000, "https://" * 25_000],
    ids=["letters", "schemes", "names", "parameters", "addresses"],
)
def test_a_long_word_takes_no_time_and_hides_no_less(long):
    begin = time.perf_counter()
    shown = redacted(f"{long} https://me:hunter2@host/x?token=hunter2 {long}")
    seconds = time.perf_counter() - begin
    assert shown == f"{long} https://me:***@host/x?token=*** {long}"
    assert redacted(f"{long}https://me:hunter2@host").endswith(":***@host")
    assert seconds < 1.0
