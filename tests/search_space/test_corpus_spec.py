"""CorpusSpec: what it refuses, and that it survives JSON."""

import dataclasses
import json

import pytest

from search_space.corpus import HUB_DEFAULT_MAX_BYTES, CorpusSpec
from search_space.errors import InputError


def test_round_trips_through_json():
    spec = CorpusSpec(source="hub:owner/set", name="en", revision="main", test=0.1, max_bytes=7)
    assert CorpusSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_from_dict_fills_defaults_and_refuses_unknown_keys():
    assert CorpusSpec.from_dict({}) == CorpusSpec()
    with pytest.raises(InputError, match="unknown key 'sorce'; did you mean 'source'"):
        CorpusSpec.from_dict({"sorce": "x"})
    with pytest.raises(InputError, match="mapping"):
        CorpusSpec.from_dict("stdlib")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"source": " "}, "source must not be empty"),
        ({"source": 3}, "source must be text: got 3"),
        ({"text_field": ""}, "text_field must not be empty; the default is 'text'"),
        ({"split": ""}, "split must not be empty"),
        ({"max_bytes": -1}, "max_bytes must be a whole number of at least 0"),
        ({"max_bytes": True}, "max_bytes must be a whole number"),
        ({"validation": 0}, "validation is a share of the bytes, above 0 and below 0.5: got 0"),
        ({"test": 0.5}, "test is a share"),
        ({"test": float("nan")}, "test is a share"),
        ({"test": "5%"}, "test is a share"),
        ({"source": "hub:"}, "hub:owner/name"),
        ({"source": "hub:a/b/c"}, "hub:owner/name"),
        ({"name": "en"}, "name is for Hub datasets only"),
        ({"revision": "main", "source": "a.txt"}, "revision is for Hub datasets only"),
    ],
)
def test_refuses(change, rule):
    with pytest.raises(InputError, match=rule) as caught:
        CorpusSpec(**change)
    assert "\n" not in str(caught.value)


def test_the_byte_cap_is_for_the_hub_unless_given():
    assert CorpusSpec().byte_cap is None
    assert CorpusSpec(max_bytes=10).byte_cap == 10
    hub = CorpusSpec(source="hub:owner/set")
    assert hub.byte_cap == HUB_DEFAULT_MAX_BYTES
    assert dataclasses.replace(hub, max_bytes=10).byte_cap == 10
    assert (hub.is_hub, hub.hub_id) == (True, "owner/set")


@pytest.mark.parametrize(
    "source",
    [
        "https://me:hunter2@host/x.txt",
        "https://hunter2@host/x.txt",
        "https://host/x.txt?token=hunter2",
        "https://bucket/x.txt?X-Amz-Credential=a&X-Amz-Signature=hunter2",
        "s3://key:hunter2@bucket/x.txt",
        "simplecache::https://me:hunter2@host/x.txt",
    ],
)
def test_a_secret_in_the_source_is_refused_and_not_shown(source):
    with pytest.raises(InputError, match=r"no password, key or token: got .*netrc") as caught:
        CorpusSpec(source=source)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InputError, match="no NUL character"):
        CorpusSpec(source="a\0b")
