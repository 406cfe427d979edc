"""An export compared with what was trained, in a process without this project."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from nas.process.child import run_child
from search_space.errors import WorkFailed

TOLERANCE = 1e-4  # largest difference in a float32 logit between proxy and export


def probe_ids(vocab_size: int, length: int) -> list[int]:
    """Token ids that the export is checked on: fixed, spread over the vocabulary."""
    return [(7919 * i + 13) % vocab_size for i in range(min(length, 64))]


# Runs in a fresh interpreter that refuses this project's packages and the method's.
_VERIFY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nas", "workers", "search_space", "dashboard", *sys.argv[5:]}:
            raise ImportError(f"{name} must not be needed by an export")
sys.meta_path.insert(0, Refuse())
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, ids, expected = sys.argv[1], json.loads(sys.argv[2]), torch.load(sys.argv[3])
config = json.load(open(folder + "/config.json"))
trust = {"trust_remote_code": True} if "auto_map" in config else {}
model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **trust)
lost = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])
if lost:
    raise ValueError(f"its weights and its model differ in {lost[:3]}")
model.eval()
AutoTokenizer.from_pretrained(folder, **trust)
ids = torch.tensor([ids])
with torch.no_grad():
    error = float((model(ids).logits[0] - expected).abs().max())
options = dict(do_sample=False, max_new_tokens=16, attention_mask=torch.ones_like(ids[:, :8]))
same = bool((model.generate(ids[:, :8], use_cache=True, **options)
             == model.generate(ids[:, :8], use_cache=False, **options)).all())
open(sys.argv[4], "w").write(json.dumps({"logits_error": error, "cached_equals_uncached": same}))
"""


def verify_export(folder: Path, expected: Any, plug_in: set[str]) -> None:
    """Raise unless a process without this project and the plug-in computes the same logits."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    ids = probe_ids(config["vocab_size"], config["max_position_embeddings"])
    with tempfile.TemporaryDirectory() as scratch:
        logits, answer_file = Path(scratch) / "logits.pt", Path(scratch) / "answer.json"
        torch.save(expected, logits)
        # transformers copies remote code into its module cache: a throw-away one here.
        env = os.environ | {"HF_MODULES_CACHE": scratch, "HF_HUB_OFFLINE": "1"}
        done = run_child(
            [sys.executable, "-I", "-c", _VERIFY, str(folder.absolute()), json.dumps(ids)]
            + [str(logits), str(answer_file), *sorted(plug_in)],
            env=env,
            cwd=scratch,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise WorkFailed(f"the export does not load: {last}")
        answer = json.loads(answer_file.read_text())
    if not (answer["logits_error"] <= TOLERANCE and answer["cached_equals_uncached"]):
        raise WorkFailed(f"the export differs from the trained proxy: {answer}")
