"""What a change must leave as it is: keys, costs and losses of every preset, to the last bit.

`python -m benchmarks.recorded --json FILE` writes them; with `--against FILE`, written by another
commit on the same machine, a row holds where nothing differs. Losses are those of STEPS steps of
one seed on one thread, by their SHA-256: another processor multiplies in another order.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.recipe import DEMO
from benchmarks.report import Row, parser, publish
from nas.config import StudyConfig
from search_space.contract import EvalRequest
from search_space.cost import model_cost, step_flops
from search_space.presets import PRESETS
from search_space.rates import Rates
from search_space.spec import FFNSpec
from workers.corpus import Corpus, prepare
from workers.training.loop import build_proxy, train_step
from workers.training.optimizers import Optimizers

RATES = Rates(matrix_lr=0.0125, lr=0.018)  # fixed, so that a record outlives the rule
STEPS = 20
WHAT = ("key", "cost", "losses")


def losses(spec: FFNSpec, config: StudyConfig, corpus: Corpus) -> list[float]:
    """Cross-entropy in nats of each of STEPS steps of seed 0."""
    recipe, backbone = config.recipe, config.backbone
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=backbone,
        recipe=recipe,
        corpus_dir=str(corpus.dir),
        until_flops=STEPS * step_flops(spec, backbone, recipe.batch_size),
    )
    model = build_proxy(request, corpus)
    optimizers = Optimizers(model, recipe, RATES, spec.lr_multiplier)
    found = []
    for step in range(STEPS):
        batch = corpus.batch(step, request.seed, recipe.batch_size, backbone.seq_len)
        found.append(float(train_step(model, *batch, request.device)))
        optimizers.step(min(1.0, (step + 1) / 10))
    return found


def record(name: str, config: StudyConfig, corpus: Corpus) -> dict[str, str]:
    """By what: a preset's key, and a digest of its costs and of its losses."""
    spec = PRESETS[name](config.backbone)
    cost = json.dumps(model_cost(spec, config.backbone).to_dict(), sort_keys=True)
    nats = losses(spec, config, corpus)
    return {
        "key": spec.key,
        "cost": _digest(cost.encode()),
        "losses": f"{_digest(struct.pack(f'{len(nats)}d', *nats))} (last {nats[-1]:.6f})",
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def rows(before: Mapping[str, str]) -> Iterator[Row]:
    """A row a preset and thing.

    before: values by row name; a name that is not in it is new.
    """
    torch.set_num_threads(1)
    config = StudyConfig.load(DEMO)
    backbone = config.backbone
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare(config.corpus, backbone.vocab_size, backbone.seq_len, folder)
        for name in PRESETS:
            found = record(name, config, corpus)
            for what in WHAT:
                row, value = f"{name}: {what}", found[what]
                known = before.get(row, "")
                yield Row(row, value, bar=known and f"= {known}", holds=known in ("", value))


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--against", type=Path, metavar="FILE", help="what another commit wrote")
    options = arguments.parse_args()
    before = {}
    if options.against is not None:
        found = json.loads(options.against.read_text())["rows"]
        before = {row["name"]: row["value"] for row in found}
    sys.exit(publish(rows(before), options.json))


if __name__ == "__main__":
    main()
