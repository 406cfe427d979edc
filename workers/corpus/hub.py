"""What the Hub is asked for: the commit behind a name, and a tokenizer's files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from search_space.errors import InputError


class HubUnreachable(InputError):
    """The Hub did not answer; a corpus that was prepared before can still be used."""


def resolve_commit(repo_id: str, revision: str, kind: Literal["dataset", "model"]) -> str:
    """The commit hash that `revision` (empty: the default branch) names now.

    Raises InputError for an unknown id or revision, HubUnreachable when there is no answer.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    # Imported here because a corpus from files needs neither the client nor its start-up time.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().repo_info(repo_id, repo_type=kind, revision=revision or None)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"corpus: the Hub has no {kind} {repo_id!r}{at}; check the id, and set HF_TOKEN if "
            "it is private or gated"
        ) from error
    except Exception as error:  # The client lets its HTTP library's errors through, as they are.
        raise unreachable(repo_id, kind, error) from error
    return str(info.sha)


def unreachable(repo_id: str, kind: str, error: Exception) -> HubUnreachable:
    """The error for a Hub that does not answer, with its way out."""
    return HubUnreachable(
        f"corpus: the Hub did not answer for {kind} {repo_id!r} ({_short(error)}); check the "
        "network, or use a local file or folder"
    )


def fetch_tokenizer(repo_id: str, cache_dir: Path) -> Path:
    """Download a model's tokenizer.json (and tokenizer_config.json); the folder they lie in."""
    commit = resolve_commit(repo_id, "", "model")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    folder = Path()
    for name in ("tokenizer_config.json", "tokenizer.json"):
        try:
            folder = Path(
                hf_hub_download(repo_id, name, revision=commit, cache_dir=cache_dir / "hub")
            ).parent
        except LocalEntryNotFoundError as error:
            raise unreachable(repo_id, "model", error) from error
        except EntryNotFoundError as error:
            if name == "tokenizer.json":
                raise InputError(
                    f"corpus: {repo_id!r} on the Hub has no tokenizer.json; name a model with a "
                    "fast tokenizer, or leave tokenizer empty to train one"
                ) from error
    return folder


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
