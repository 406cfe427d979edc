"""An export compared with what was trained, in a process without this project."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.models.windows import Windows
from nas.process.child import run_child
from search_space.errors import WorkFailed

# The largest difference in a float32 logit between proxy and export, and in the loss on windows, as
# a share of it: other forms of the operations may pick another expert where two are nearly alike.
TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-3
# The same of weights in half precision; the mean difference of logits, as a share of their size.
HALF_TOLERANCE, HALF_LOSS_TOLERANCE = 0.05, 0.02


@dataclass(frozen=True)
class Checked:
    """What the check found.

    logits_error: the largest difference of a logit; in half precision the mean one, as a share.
    loss_error: of the loss on validation windows, as a share; None where there were none to read.
    windows: how many were read.
    parameters: of the loaded model.
    """

    logits_error: float
    loss_error: float | None
    windows: int
    parameters: int

    @property
    def words(self) -> str:
        """In a sentence."""
        loss = "the corpus is not at hand, so that losses were not compared"
        if self.loss_error is not None:
            loss = (
                f"the loss on {self.windows} validation windows differs from the run's by "
                f"{self.loss_error:.1e} of it"
            )
        return (
            "Loaded in a fresh process without the code of the search: logits differ by "
            f"{self.logits_error:.1e} from the trained model's; {loss}; "
            f"{self.parameters:,} parameters."
        )


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
folder, ids, given = sys.argv[1], json.loads(sys.argv[2]), torch.load(sys.argv[3])
config = json.load(open(folder + "/config.json"))
trust = {"trust_remote_code": True} if "auto_map" in config else {}
model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **trust)
lost = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])
if lost:
    raise ValueError(f"its weights and its model differ in {lost[:3]}")
model.eval()
half = model.dtype != torch.float32
AutoTokenizer.from_pretrained(folder, **trust)
ids, expected = torch.tensor([ids]), given["logits"]
answer = {"loss_error": None, "windows": 0}
with torch.no_grad():
    error = (model(ids).logits[0].float() - expected).abs()
    answer["logits_error"] = float(error.mean() / expected.abs().mean() if half else error.max())
    if "inputs" in given:
        logits = model(given["inputs"]).logits.float().transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, given["targets"], reduction="none")
        own, run = float(losses.double().sum()), float(given["nats"].double().sum())
        answer |= {"loss_error": abs(own - run) / run, "windows": len(given["inputs"])}
options = dict(do_sample=False, max_new_tokens=16, attention_mask=torch.ones_like(ids[:, :8]))
answer["cached_equals_uncached"] = half or bool(
    (model.generate(ids[:, :8], use_cache=True, **options)
     == model.generate(ids[:, :8], use_cache=False, **options)).all())
answer["parameters"] = sum(p.numel() for p in model.parameters())
answer["half"] = half
open(sys.argv[4], "w").write(json.dumps(answer))
"""


def verify_export(
    folder: Path,
    expected: Any,
    plug_in: set[str],
    *,
    windows: Windows | None = None,
    parameters: float | None = None,
) -> Checked:
    """Raise WorkFailed unless a process without this project and the plug-in computes the same.

    expected: logits on `probe_ids`.
    windows: of the corpus, with what the run had on them.
    parameters: that the model has by the record; None where its class adds some of its own.
    """
    import torch

    config = json.loads((folder / "config.json").read_text())
    ids = probe_ids(config["vocab_size"], config["max_position_embeddings"])
    given = {"logits": expected}
    if windows is not None:
        given |= {
            "inputs": torch.as_tensor(windows.inputs),
            "targets": torch.as_tensor(windows.targets),
            "nats": torch.tensor(windows.nats),
        }
    with tempfile.TemporaryDirectory() as scratch:
        given_file, answer_file = Path(scratch) / "given.pt", Path(scratch) / "answer.json"
        torch.save(given, given_file)
        # transformers copies remote code into its module cache: a throw-away one here.
        env = os.environ | {"HF_MODULES_CACHE": scratch, "HF_HUB_OFFLINE": "1"}
        done = run_child(
            [sys.executable, "-I", "-c", _VERIFY, str(folder.absolute()), json.dumps(ids)]
            + [str(given_file), str(answer_file), *sorted(plug_in)],
            env=env,
            cwd=scratch,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise WorkFailed(f"the export does not load: {last}")
        answer = json.loads(answer_file.read_text())
    check(answer, parameters)
    return Checked(**{name: answer[name] for name in Checked.__dataclass_fields__})


def check(answer: dict[str, Any], parameters: float | None) -> None:
    """Raise WorkFailed where the process's answer is not the trained model's.

    parameters: as `verify_export` takes them.
    """
    half = answer["half"]
    logits, loss = (HALF_TOLERANCE, HALF_LOSS_TOLERANCE) if half else (TOLERANCE, LOSS_TOLERANCE)
    same = answer["logits_error"] <= logits and answer["cached_equals_uncached"]
    same = same and (answer["loss_error"] is None or answer["loss_error"] <= loss)
    if not same:
        raise WorkFailed(f"the export differs from the trained proxy: {answer}")
    if parameters is not None and answer["parameters"] != parameters:
        raise WorkFailed(
            f"the export has {answer['parameters']:,} parameters, the trained proxy "
            f"{parameters:,.0f}"
        )
