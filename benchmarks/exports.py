"""Exports of many designs, each held against the proxy that it was written from.

Every preset and specs drawn from the search space with code beside them, those that have a class of
transformers as that class, and cuts of every family of base models in both ways; with drawn
weights, so that routers are busy. One fresh process that cannot import this project loads them all.
It compares logits in float32, and greedy generation with a cache, in a batch, and padded on the
left, with that of one prompt without a cache.
`python -m benchmarks.exports --specs 100 --json FILE`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.exports_cases import BACKBONE, FORMS, Case, cases, drawn_model
from benchmarks.report import Row, at_most, parser, publish
from nas.models.forms import save
from nas.models.probe import probe_ids
from nas.models.verify import TOLERANCE
from nas.process.child import run_child
from search_space.errors import WorkFailed

LONG, SHORT, NEW = 9, 5, 6  # tokens of two prompts, and of what follows them
KINDS = ("cached", "batched", "padded")


# In a fresh interpreter that refuses this project's packages.
_CHECK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nas", "workers", "search_space", "dashboard", "benchmarks"}:
            raise ImportError(f"{name} must not be needed by an export")
sys.meta_path.insert(0, Refuse())
import json, pathlib, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
root, long, short, new = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5])
for folder in sorted(root.iterdir()):
    code = "auto_map" in json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=code).eval()
    told = torch.load(folder / "told.pt")
    ids, short_ids = told["ids"][:, :long], told["ids"][:, -short:]
    options = dict(do_sample=False, max_new_tokens=new, min_new_tokens=new)
    def after(prompt, **given):
        return model.generate(prompt, **options, **given)[:, prompt.shape[1]:]
    with torch.no_grad():
        error = float((model(told["ids"]).logits - told["logits"]).abs().max())
    one, other = (after(p, use_cache=False) for p in (ids, short_ids))
    alone = torch.cat((one, other))
    same_length = after(torch.cat((ids, ids.flip(1))))[:1]
    filled = torch.cat((torch.full((1, long - short), 7), short_ids), 1)
    mask = torch.ones(2, long, dtype=torch.long)
    mask[1, : long - short] = 0
    padded = after(torch.cat((ids, filled)), attention_mask=mask)
    answer = {
        "error": error,
        "cached": bool((torch.cat([after(p) for p in (ids, short_ids)]) == alone).all()),
        "batched": bool((same_length == one).all()),
        "padded": bool((padded == alone).all()),
    }
    (folder / "answer.json").write_text(json.dumps(answer))
"""


def compare(designs: Mapping[str, Case]) -> dict[str, dict[str, Any]]:
    """By name: its `form`, the largest `error` of a logit, and whether generation is the same in
    KINDS.

    Raises WorkFailed when an export does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root, modules = Path(scratch, "exports"), Path(scratch, "modules")
        folders = {name: root / f"e{place:04}" for place, name in enumerate(designs)}
        for name, folder in folders.items():
            _write(folder, designs[name])
        done = run_child(
            [sys.executable, "-I", "-c", _CHECK, str(root), *map(str, (LONG, SHORT, NEW))],
            env=os.environ | {"HF_MODULES_CACHE": str(modules), "HF_HUB_OFFLINE": "1"},
            cwd=scratch,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise WorkFailed(f"an export does not load: {last}")
        return {
            name: json.loads((folder / "answer.json").read_text()) | {"form": designs[name].form}
            for name, folder in folders.items()
        }


def _write(folder: Path, case: Case) -> None:
    model, written = drawn_model(case)
    folder.mkdir(parents=True)
    ids = torch.tensor([probe_ids(BACKBONE.vocab_size, BACKBONE.seq_len)])
    with torch.no_grad():
        told = {"ids": ids, "logits": model.logits(model(ids).hidden_NLD)}
    save(folder, written, case.spec, case.backbone, case.native)
    torch.save(told, folder / "told.pt")


def rows(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Counts over all designs of each form, then those that differ."""
    for form in FORMS:
        own = {name: answer for name, answer in answers.items() if answer["form"] == form}
        if not own:
            continue
        yield Row(f"{form}: designs", len(own))
        largest = max(answer["error"] for answer in own.values())
        yield at_most(f"{form}: largest error of a logit", largest, TOLERANCE)
        for kind in KINDS:
            differ = [name for name, answer in own.items() if not answer[kind]]
            yield at_most(f"{form}: {kind} generation differs", len(differ), 0, "designs")
            yield from (Row(f"{kind}: {name}", "differs", holds=False) for name in differ)


def main() -> None:
    """The command."""
    command = parser(__doc__)
    command.add_argument("--specs", type=int, default=100, help="designs drawn from the space")
    options = command.parse_args()
    sys.exit(publish(_measured(options.specs), options.json))


def _measured(n: int) -> Iterable[Row]:
    return rows(compare(cases(n)))


if __name__ == "__main__":
    main()
