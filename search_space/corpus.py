"""`CorpusSpec`: which text the proxies are trained and measured on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os.path import isabs
from typing import Any

from search_space.checks import is_real, section, text, whole
from search_space.errors import require, shown
from search_space.secrets import has_secret, redacted

STDLIB = "stdlib"
HUB_PREFIX = "hub:"

# A Hub dataset can be terabytes and a proxy sees a few million tokens of it.
HUB_DEFAULT_MAX_BYTES = 200_000_000

_LONGEST_SOURCE = 4096  # as Linux has it for a path

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Where the text is, how it is tokenized and how much of it is held out.

    source: `stdlib` (source of the running Python's standard library, without its tests); a
        path, glob or fsspec URL of text (.txt .md .py ...), .jsonl or .parquet files, .gz too;
        a folder (every supported file below it); or `hub:owner/name`, a dataset on the Hub. What
        exists under that very name is that path, and no pattern or URL. It may hold no secret.
    name, revision: of a Hub dataset: its configuration, and its commit, branch or tag.
    split: of a Hub dataset, the split that is read (and split anew by this spec).
    text_field: field of .jsonl, .parquet and Hub rows that holds the text.
    max_bytes: UTF-8 bytes read, in the source's order; 0 means all of it for files and
        `HUB_DEFAULT_MAX_BYTES` for the Hub.
    tokenizer: empty trains a byte-level BPE on the train split; else a tokenizer.json, a folder
        that holds one, or a model id on the Hub.
    validation, test: shares of the bytes that are held out.
    """

    source: str = STDLIB
    name: str = ""
    split: str = "train"
    revision: str = ""
    text_field: str = "text"
    max_bytes: int = 0
    tokenizer: str = ""
    validation: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        for key in ("source", "name", "split", "revision", "text_field", "tokenizer"):
            value = getattr(self, key)
            text(f"corpus: {key}", value)
        for key in ("source", "split", "text_field"):
            default = type(self).__dataclass_fields__[key].default
            filled = bool(getattr(self, key).strip())
            require(filled, f"corpus: {key} must not be empty; the default is {default!r}")
        whole("corpus: max_bytes", self.max_bytes, 0)
        for key in ("validation", "test"):
            _check_share(key, getattr(self, key))
        self._check_source()
        self._check_hub()

    def _check_source(self) -> None:
        require(
            len(self.source) <= _LONGEST_SOURCE,
            f"corpus: source is a path or URL of at most {_LONGEST_SOURCE:,} characters: got "
            f"{len(self.source):,}",
        )
        # A study's configuration is stored and shown, so a secret must never be part of it.
        require(
            not has_secret(self.source),
            f"corpus: source must hold no password, key or token: got {redacted(self.source)!r}; "
            "put a password for http(s) into ~/.netrc and others into the environment that the "
            "protocol's package reads (or fsspec's configuration), or download the text",
        )
        require(
            "\0" not in self.source,
            f"corpus: source must hold no NUL character: got {self.source!r}",
        )

    def _check_hub(self) -> None:
        if self.is_hub:
            require(
                _HUB_ID.fullmatch(self.hub_id) is not None,
                f"corpus: a Hub source is hub:owner/name: got {shown(self.source)}",
            )
            return
        for key in ("name", "revision"):
            require(
                not getattr(self, key),
                f"corpus: {key} is for Hub datasets only: got {shown(getattr(self, key))} with "
                f"source {shown(self.source)}; leave {key} out or write source: hub:owner/name",
            )

    @property
    def is_hub(self) -> bool:
        """Whether the text comes from a dataset on the Hub."""
        return self.source.startswith(HUB_PREFIX)

    @property
    def is_relative(self) -> bool:
        """Whether the source is a path or pattern that another working directory has not."""
        named = self.is_hub or self.source == STDLIB or "://" in self.source
        return not named and not isabs(self.source)

    @property
    def hub_id(self) -> str:
        """`owner/name` of a Hub source; the source itself for any other."""
        return self.source.removeprefix(HUB_PREFIX)

    @property
    def byte_cap(self) -> int | None:
        """UTF-8 bytes to read at most; None means no limit."""
        if self.max_bytes:
            return self.max_bytes
        return HUB_DEFAULT_MAX_BYTES if self.is_hub else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CorpusSpec:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        return section(cls, "corpus", data)


def _check_share(key: str, value: object) -> None:
    # Below a half each, so that some text is always left to train on.
    require(
        is_real(value) and 0 < value < 0.5,  # type: ignore[operator]
        f"corpus: {key} is a share of the bytes, above 0 and below 0.5: got {shown(value)}",
    )
