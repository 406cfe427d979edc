"""An export compared with what was trained, in a process without this project."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.models.probe import Probe, probe_ids
from nas.models.windows import Windows
from nas.process.child import run_child
from search_space.errors import WorkFailed

# The largest difference in a float32 logit between proxy and export, and in the loss on windows, as
# a share of it: other forms of the operations may pick another expert where two are nearly alike.
TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-3
# The same of weights in half precision; the mean difference of logits, as a share of their size.
HALF_TOLERANCE, HALF_LOSS_TOLERANCE = 0.05, 0.02
# Of FLOPs, as a share: what one pick in a hundred changes.
FLOPS_TOLERANCE, HALF_FLOPS_TOLERANCE = 0.01, 0.05


@dataclass(frozen=True)
class Checked:
    """What the check found.

    logits_error: the largest difference of a logit; in half precision the mean one, as a share.
    loss_error: of the loss on validation windows, as a share; None where there were none to read.
    windows: how many were read.
    parameters: of the loaded model.
    flops: that it computes a token of the tokens it was checked on, counted by torch.
    expected_flops: of the trained model there, by the closed form.
    """

    logits_error: float
    loss_error: float | None
    windows: int
    parameters: int
    flops: float
    expected_flops: float

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
            f"{self.parameters:,} parameters; {self._work}."
        )

    @property
    def _work(self) -> str:
        counted = f"{self.flops:,.0f} FLOPs a token of a short sequence, as torch counts them"
        ratio = self.flops / self.expected_flops
        if abs(ratio - 1) <= FLOPS_TOLERANCE:
            return f"{counted} and the record's closed form has them"
        return (
            f"{counted}, {ratio:.2f} times the {self.expected_flops:,.0f} of the record's closed "
            "form: this code multiplies in another way"
        )


# Runs in a fresh interpreter that refuses this project's packages and the method's.
_VERIFY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nas", "workers", "search_space", "dashboard", *sys.argv[6:]}:
            raise ImportError(f"{name} must not be needed by an export")
sys.meta_path.insert(0, Refuse())
import contextlib, json, runpy, torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
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
# Torch's own forms of the operations, which its counter sees, but for a few that a file tells.
rules, named = runpy.run_path(sys.argv[5])["torch_flops"](), dict(sys.modules)
own = next((m for name, m in named.items() if name.endswith("workers_kernels_settings")), None)
with contextlib.ExitStack() as stack:
    if own is not None:
        stack.enter_context(own.override(own.Backend.TORCH))
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    stack.enter_context(torch.no_grad())
    counted = stack.enter_context(FlopCounterMode(display=False, custom_mapping=rules))
    model(ids)
answer["flops"] = counted.get_total_flops() / ids.numel()
answer["parameters"] = sum(p.numel() for p in model.parameters())
answer["half"] = half
open(sys.argv[4], "w").write(json.dumps(answer))
"""


def verify_export(
    folder: Path,
    expected: Probe,
    plug_in: set[str],
    *,
    windows: Windows | None = None,
    parameters: float | None = None,
) -> Checked:
    """Raise WorkFailed unless a process without this project and the plug-in computes the same.

    expected: of the trained model.
    windows: of the corpus, with what the run had on them.
    parameters: that the model has by the record; None where its class adds some of its own.
    """
    import torch

    from workers.kernels.api import torch_flops

    config = json.loads((folder / "config.json").read_text())
    ids = probe_ids(config["vocab_size"], config["max_position_embeddings"])
    given = {"logits": expected.logits}
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
            + [str(given_file), str(answer_file), torch_flops.__file__, *sorted(plug_in)],
            env=env,
            cwd=scratch,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise WorkFailed(f"the export does not load: {last}")
        answer = json.loads(answer_file.read_text())
    answer["expected_flops"] = expected.flops
    check(answer, parameters, exact=expected.exact)
    return Checked(**{name: answer[name] for name in Checked.__dataclass_fields__})


def check(answer: dict[str, Any], parameters: float | None, *, exact: bool = True) -> None:
    """Raise WorkFailed where the process's answer is not the trained model's.

    parameters: as `verify_export` takes them.
    exact: whether FLOPs must be those that are expected.
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
    far = abs(answer["flops"] / answer["expected_flops"] - 1)
    if exact and far > (HALF_FLOPS_TOLERANCE if half else FLOPS_TOLERANCE):
        raise WorkFailed(
            f"the export computes {answer['flops']:,.0f} FLOPs a token, the trained proxy "
            f"{answer['expected_flops']:,.0f}"
        )
