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
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.models.checkpoints import Checkpoint
from nas.models.new_folder import new_folder
from nas.process.child import run_child
from nas.store import StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.design import Method
from search_space.errors import InputError, WorkFailed, require
from search_space.placement import reference
from search_space.spec import FFNSpec

ROOT_MODULE = "workers.hf"
OURS = {"workers", "search_space"}
FINDING = "search_space.finding"  # an export has another module of this name: _FOUND
TOLERANCE = 1e-4  # largest difference in a float32 logit between proxy and export


def module_name(dotted: str) -> str:
    """The name of a module inside the export: transformers wants one flat folder."""
    return "modeling_ffn_nas" if dotted == ROOT_MODULE else dotted.replace(".", "_")


def bundle_sources(*methods: type[Method]) -> dict[str, str]:
    """File name -> text of ROOT_MODULE and every module that it imports, of this project and of
    the plug-ins that methods may be. Of the methods these alone are there, with their layers.

    Raises InputError for a method whose modules cannot be copied.
    """
    found = _found(methods)
    ours = OURS.union(*map(plug_in_packages, methods))
    waiting, sources = [ROOT_MODULE], dict[str, str]()
    while waiting:
        dotted = waiting.pop()
        name = f"{module_name(dotted)}.py"
        if name not in sources:
            text, package = (found, "") if dotted == FINDING else _source(dotted)
            sources[name], imported = _flattened(text, package, ours)
            waiting.extend(imported)
    return sources


def methods_of(spec: FFNSpec, backbone: Backbone) -> list[type[Method]]:
    """The methods of a model's layers: the design's, and the reference's where not all have it."""
    everywhere = spec.placement == "all"
    used = [spec] if everywhere else [reference(backbone), spec]
    return list(dict.fromkeys(type(each.selection) for each in used))


def plug_in_packages(method: type[Method]) -> set[str]:
    """The packages from outside this project that a method and its layer are in."""
    return {place.split(".")[0] for place in (method.__module__, method.layer.split(":")[0])} - OURS


def _flattened(text: str, package: str, ours: set[str]) -> tuple[str, list[str]]:
    """A module's text with imports from one flat folder, and which modules it imports there.

    Raises InputError for an import of a module itself, which has another name there.
    """
    lines, imported = text.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            _refuse([each.name for each in node.names if each.name.split(".")[0] in ours])
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            module = importlib.util.resolve_name("." * node.level + module, package)
        if module.split(".")[0] in ours:
            _refuse([d for each in node.names if _is_module(d := f"{module}.{each.name}")])
            line, flat = node.lineno - 1, f"from .{module_name(module)} import"
            lines[line] = re.sub(r"from\s+[.\w]+\s+import", flat, lines[line], count=1)
            imported.append(module)
    return "".join(lines), imported


def _refuse(modules: list[str]) -> None:
    require(
        not modules,
        "an export puts the code of its selection method into one flat folder, so that code "
        f"imports names, no modules: got {', '.join(modules)}; write from MODULE import NAME",
    )


def _is_module(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except (ImportError, ValueError):  # it would lie in what is no package, or in __main__
        return False


def _source(dotted: str) -> tuple[str, str]:
    """A module's text, and the package that its relative imports start from."""
    # What is __main__ here is another module in a process that loads the export.
    spec = None if dotted == "__main__" else importlib.util.find_spec(dotted)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError(
            f"an export copies the code of its selection method, and {dotted} is no module with a "
            "file; put the method into a module and import it from there"
        )
    return Path(spec.origin).read_text(encoding="utf-8"), spec.parent or ""


def export_trial(
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    folder: str | Path,
    *,
    verify: bool = True,
) -> Path:
    """Write the trial's model to a new or empty `folder`; nothing is left there on failure.

    checkpoint: of the trial, from `find_checkpoint`.
    verify: load it in a fresh process without this project and compare logits and generation.
    Raises InputError for a folder that cannot be used or a checkpoint that is no model, WorkFailed
    when the model cannot be written or differs from the proxy.
    """
    target = Path(folder)
    with new_folder(target) as draft:
        logits = _write(draft, checkpoint, study, trial)
        if verify:
            _verify(draft, logits, plug_in_packages(type(trial.spec.selection)))
    return target


def _write(folder: Path, checkpoint: Checkpoint, study: StudyRecord, trial: TrialRecord) -> Any:
    """Write every file; return the proxy's own logits on `probe_ids`."""
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    eos_id, pad_id = _end_and_pad(study)
    model = _load(checkpoint, {"eos_token_id": eos_id, "pad_token_id": pad_id})
    try:
        model.save_pretrained(folder)
        for name, text in bundle_sources(
            *methods_of(trial.spec, Backbone.from_dict(checkpoint.backbone))
        ).items():
            (folder / name).write_text(text, encoding="utf-8")
        _write_tokenizer(folder, checkpoint.tokenizer, eos_id, pad_id)
        (folder / "README.md").write_text(model_card(checkpoint, study, trial), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {folder.parent}: {error}") from error
    config = model.config
    ids = torch.tensor([probe_ids(config.vocab_size, config.max_position_embeddings)])
    with torch.no_grad():
        return model.model.logits(model.model(ids).hidden_NLD)[0]


def _load(checkpoint: Checkpoint, ends: dict[str, int]) -> Any:
    """The trained proxy as a transformers model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model
    from transformers import GenerationConfig

    from workers.hf import FFNNASConfig, FFNNASForCausalLM

    config = FFNNASConfig(checkpoint.spec, checkpoint.backbone, **ends)
    config.auto_map = {
        "AutoConfig": "modeling_ffn_nas.FFNNASConfig",
        "AutoModelForCausalLM": "modeling_ffn_nas.FFNNASForCausalLM",
    }
    model = FFNNASForCausalLM(config).eval()
    try:
        load_model(model.model, str(checkpoint.weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.weights} does not hold the weights of this design: {error}"
        ) from None
    model.generation_config = GenerationConfig(**ends)
    return model


def _write_tokenizer(folder: Path, path: Path, eos_id: int, pad_id: int) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_file(str(path))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=tokenizer.id_to_token(eos_id),
        pad_token=tokenizer.id_to_token(pad_id),
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)


def _end_and_pad(study: StudyRecord) -> tuple[int, int]:
    """Ids of end-of-text and padding; a tokenizer without padding pads with end-of-text."""
    corpus = study.facts.corpus
    if corpus.eos_id is None:
        raise InputError(
            f"an export needs the id of its tokenizer's end of text: study {study.name!r} has none "
            "stored; launch the study again under a new name"
        )
    return corpus.eos_id, corpus.eos_id if corpus.pad_id is None else corpus.pad_id


def probe_ids(vocab_size: int, length: int) -> list[int]:
    """Token ids that the export is checked on: fixed, spread over the vocabulary."""
    return [(7919 * i + 13) % vocab_size for i in range(min(length, 64))]


def model_card(checkpoint: Checkpoint, study: StudyRecord, trial: TrialRecord) -> str:
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
| training FLOPs | {checkpoint.flops:.3g} |
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


_FOUND = '''"""The selection methods of this model, and their layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def homes() -> Iterator[tuple[str, Any]]:
    """The methods."""
    # Not at the head: a home imports what imports this.
    {homes}


def plug_ins() -> Iterator[tuple[str, Any]]:
    """None beside them."""
    yield from ()


def load(place: str) -> Any:
    """The layer at `module:name`."""
    {layers}

    return {{{places}}}[place]
'''


def _found(methods: Sequence[type[Method]]) -> str:
    """The text of the module that finds these methods in an export."""
    homes, layers, places = [], [], []
    for number, method in enumerate(methods):
        home, layer = f"Home{number}", f"Layer{number}"
        module, _, name = method.layer.partition(":")
        homes.append(f"from {method.__module__} import {method.__name__} as {home}")
        layers.append(f"from {module} import {name} as {layer}")
        places.append(f'"{method.layer}": {layer}')
    yields = [f'yield "this model", Home{number}' for number in range(len(methods))]
    return _FOUND.format(
        homes="\n    ".join([*homes, "", *yields]),
        layers="\n    ".join(layers),
        places=", ".join(places),
    )


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


def _verify(folder: Path, expected: Any, plug_in: set[str]) -> None:
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
