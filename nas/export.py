"""A finished trial as a directory that transformers loads without this project.

The weights are safetensors, the tokenizer is the corpus's, and the code is the very code that
trained: `workers.hf` and all it imports from this project, flattened into modules beside the
config and loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nas.store import StudyRecord, TrialRecord
from search_space.errors import InputError, require

ROOT_MODULE = "workers.hf"
OURS = ("workers", "search_space")
TOLERANCE = 1e-4  # largest difference in a float32 logit between proxy and export


def module_name(dotted: str) -> str:
    """The name of a module inside the export: transformers wants one flat folder."""
    return "modeling_ffn_nas" if dotted == ROOT_MODULE else dotted.replace(".", "_")


def bundle_sources(root: str = ROOT_MODULE) -> dict[str, str]:
    """File name -> text of `root` and every module of this project that it imports."""
    waiting, sources = [root], {}
    while waiting:
        dotted = waiting.pop()
        name = f"{module_name(dotted)}.py"
        if name in sources:
            continue
        text = _source(dotted)
        imported = [
            node.module
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        ]
        ours = [module for module in imported if module.split(".")[0] in OURS]
        for module in ours:
            pattern = rf"^(\s*)from {re.escape(module)} import"
            text = re.sub(pattern, rf"\1from .{module_name(module)} import", text, flags=re.M)
        sources[name] = text
        waiting.extend(ours)
    return sources


def _source(dotted: str) -> str:
    spec = importlib.util.find_spec(dotted)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source for {dotted}")
    return Path(spec.origin).read_text()


def export_trial(
    study: StudyRecord, trial: TrialRecord, folder: str | Path, *, verify: bool = True
) -> Path:
    """Write the trial's model to a new or empty `folder`; nothing is left there on failure.

    verify: load it in a fresh process without this project and compare logits and generation.
    """
    target = Path(folder)
    require(
        not target.exists() or (target.is_dir() and not any(target.iterdir())),
        f"export needs a new or empty directory: {target} holds files; choose another --to",
    )
    result = trial.result
    if result is None or not result.checkpoint:
        raise InputError(
            f"only a finished trial with a checkpoint can be exported: trial {trial.number} of "
            f"{study.name!r} is {trial.status.value}; see: nas show {study.name}"
        )
    weights = Path(result.checkpoint) / "model.safetensors"
    require(weights.exists(), f"the checkpoint of trial {trial.number} is gone: {weights}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"export cannot write to {target.parent}: {error.strerror}") from error
    try:
        logits = _write(draft, study, trial, weights)
        if verify:
            _verify(draft, logits)
        if target.exists():
            target.rmdir()
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _write(folder: Path, study: StudyRecord, trial: TrialRecord, weights: Path) -> Any:
    """Write every file; return the proxy's own logits on `probe_ids`."""
    import torch
    from safetensors.torch import load_model
    from transformers import GenerationConfig
    from transformers.utils import logging

    from workers.hf import FFNNASConfig, FFNNASForCausalLM
    from workers.model import ProxyLM

    logging.disable_progress_bar()
    facts = json.loads((weights.parent / "trial.json").read_text())
    eos_id = int(study.facts["corpus"]["eos_id"])
    ends = {"eos_token_id": eos_id, "pad_token_id": eos_id}
    config = FFNNASConfig(facts["spec"], facts["backbone"], **ends)
    config.auto_map = {
        "AutoConfig": "modeling_ffn_nas.FFNNASConfig",
        "AutoModelForCausalLM": "modeling_ffn_nas.FFNNASForCausalLM",
    }
    model = FFNNASForCausalLM(config).eval()
    load_model(model.model, str(weights))
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    for name, text in bundle_sources().items():
        (folder / name).write_text(text)
    _write_tokenizer(folder, study)
    (folder / "README.md").write_text(model_card(study, trial))
    proxy: ProxyLM = model.model
    ids = torch.tensor([probe_ids(config.vocab_size, config.max_position_embeddings)])
    with torch.no_grad():
        return proxy.logits(proxy(ids).hidden_NLD)[0]


def _write_tokenizer(folder: Path, study: StudyRecord) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    path = Path(study.facts["corpus_dir"]) / "tokenizer.json"
    require(path.exists(), f"the corpus of {study.name!r} is gone: {path}; launch it again")
    tokenizer = Tokenizer.from_file(str(path))
    eos = tokenizer.id_to_token(int(study.facts["corpus"]["eos_id"]))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token=eos, clean_up_tokenization_spaces=False
    )
    fast.save_pretrained(folder)


def probe_ids(vocab_size: int, length: int) -> list[int]:
    """Token ids that the export is checked on: fixed, spread over the vocabulary."""
    return [(7919 * i + 13) % vocab_size for i in range(min(length, 64))]


def model_card(study: StudyRecord, trial: TrialRecord) -> str:
    """README.md of the export."""
    result = trial.result
    assert result is not None
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [ffn-nas]
---
# {study.name}, trial {trial.number}: {trial.spec.label}

A proxy language model from an FFN architecture search.

| | |
| --- | --- |
| bits per byte (validation) | {result.bits_per_byte:.4f} ± {result.bits_per_byte_se:.4f} |
| training tokens | {result.tokens:,} |
| training FLOPs | {result.flops:.3g} |
| active FLOPs a token | {result.active_flops:.3g} |
| parameters | {trial.cost["total_params"]:,.0f} |
| design | `{json.dumps(trial.spec.to_dict())}` |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
```

The Python files beside the weights are the code that trained them; they need torch and
transformers only.
"""


# Runs in a fresh interpreter that refuses this project's packages.
_VERIFY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nas", "workers", "search_space", "dashboard"}:
            raise ImportError(f"{name} must not be needed by an export")
sys.meta_path.insert(0, Refuse())
import json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, ids, expected = sys.argv[1], json.loads(sys.argv[2]), torch.load(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
ids = torch.tensor([ids])
with torch.no_grad():
    error = float((model(ids).logits[0] - expected).abs().max())
options = dict(do_sample=False, max_new_tokens=16, attention_mask=torch.ones_like(ids[:, :8]))
same = bool((model.generate(ids[:, :8], use_cache=True, **options)
             == model.generate(ids[:, :8], use_cache=False, **options)).all())
open(sys.argv[4], "w").write(json.dumps({"logits_error": error, "cached_equals_uncached": same}))
"""


def _verify(folder: Path, expected: Any) -> None:
    """Raise unless a process without this project computes the same logits."""
    import torch

    config = json.loads((folder / "config.json").read_text())
    ids = probe_ids(config["vocab_size"], config["max_position_embeddings"])
    with tempfile.TemporaryDirectory() as scratch:
        logits, answer_file = Path(scratch) / "logits.pt", Path(scratch) / "answer.json"
        torch.save(expected, logits)
        # transformers copies remote code into its module cache: a throw-away one here.
        env = os.environ | {"HF_MODULES_CACHE": scratch, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-I", "-c", _VERIFY, str(folder.absolute()), json.dumps(ids)]
            + [str(logits), str(answer_file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=env,
            cwd=scratch,
        )
        if done.returncode:
            raise RuntimeError(f"the export does not load: {done.stderr.strip().splitlines()[-1:]}")
        answer = json.loads(answer_file.read_text())
    if not (answer["logits_error"] <= TOLERANCE and answer["cached_equals_uncached"]):
        raise RuntimeError(f"the export differs from the trained proxy: {answer}")
