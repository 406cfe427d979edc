"""Sample from an exported directory, as any transformers user would."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_space.backbone import Backbone
from search_space.checks import TOKENS, whole
from search_space.cost import model_cost
from search_space.errors import InputError, require, shown
from search_space.native import DENSE, SIGMOID, SOFTMAX
from search_space.plain import read_json
from search_space.spec import FFNSpec

# Of the weights' bytes that the configuration may claim in parameters of at least a byte; the rest
# is for buffers that are no parameters.
_ROOM = 2.0
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # of experts, by class

COLDEST, HOTTEST = 0.01, 100.0  # beyond them logits overflow, or all tokens are alike


def sample(
    folder: Path, prompt: str, *, tokens: int = 120, temperature: float = 0.8, seed: int = 0
) -> str:
    """The prompt and `tokens` more tokens. temperature 0 is greedy.

    The directory's own code runs: InputError unless it is a local export.
    """
    require(
        os.path.isfile(folder / "config.json"),  # Path.is_file raises for a name that is too long
        f"a model directory holds config.json: {folder} does not; make one with nas export",
    )
    # A pipe would be waited for, and a device read, without end.
    odd = next((path for path in folder.iterdir() if not (path.is_file() or path.is_dir())), None)
    require(odd is None, f"a model directory holds files: {odd} is a pipe, device or broken link")
    require(prompt != "", "a prompt needs at least one character: got an empty one")
    require(
        not any("\ud800" <= character <= "\udfff" for character in prompt),
        f"a prompt must be text in UTF-8: got {shown(prompt)}",
    )
    require(
        temperature == 0 or COLDEST <= temperature <= HOTTEST,
        f"a temperature is 0, for the likeliest token, or from {COLDEST:g} to {HOTTEST:g}: got "
        f"{temperature:g}",
    )
    check_size(folder)
    try:
        return _sample(folder, prompt, tokens, temperature, seed)
    except InputError:
        raise
    except Exception as error:  # Its code, its weights and its tokenizer are all the user's.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{folder} does not work as a model: {reason[0][:300]}; make it again with nas export"
        ) from error


def check_size(folder: Path) -> None:
    """Raise InputError where config.json names a model that its weights cannot fill.

    Without this, a digit too many in a configuration would take the machine's memory.
    """
    config = read_json(folder / "config.json")
    require(isinstance(config, dict), f"{folder / 'config.json'} is not a JSON object")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if config.get("model_type") == "ffn_nas":
        spec = FFNSpec.from_dict(config.get("spec"))
        backbone = Backbone.from_dict(config.get("backbone"))
        parameters = model_cost(spec, backbone).total_params
    elif config.get("architectures") in ([DENSE], [SOFTMAX], [SIGMOID]):
        parameters = _least_parameters(config)
    else:
        return
    require(
        parameters <= _ROOM * weights,
        f"{folder} is not whole: config.json names {parameters:,.0f} parameters, its weights have "
        f"{weights:,} bytes; make it again with nas export",
    )


def _least_parameters(config: Mapping[str, Any]) -> int:
    """Those of the tables, the experts and two of attention's matrices, of which any model with
    this configuration of a native form's class has more."""
    width, layers = _size(config, "hidden_size"), _size(config, "num_hidden_layers")
    heads = _size(config, "num_attention_heads") * _size(config, "head_dim")
    if "moe_intermediate_size" in config:
        name = next((n for n in _COUNTS if n in config), _COUNTS[0])
        units = _size(config, "moe_intermediate_size") * _size(config, name)
    else:
        units = _size(config, "intermediate_size")
    return width * (2 * _size(config, "vocab_size") + layers * (2 * heads + 3 * units))


def _size(config: Mapping[str, Any], name: str) -> int:
    whole(name, config.get(name), 1, TOKENS)
    return int(config[name])


def _sample(folder: Path, prompt: str, tokens: int, temperature: float, seed: int) -> str:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = str(folder.absolute())
    model, report = AutoModelForCausalLM.from_pretrained(
        path, trust_remote_code=True, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    # transformers would draw them at random, and sample noise without a word.
    require(not missing, f"{folder} is not whole: its weights lack {', '.join(missing[:3])}")
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
    inputs = tokenizer(prompt, return_tensors="pt")
    # Rotary positions past the trained length are noise.
    room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
    require(room > 0, f"the prompt fills the model's {model.config.max_position_embeddings} tokens")
    torch.manual_seed(seed)
    options: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        options["temperature"] = temperature
    with torch.no_grad():
        ids = model.eval().generate(**inputs, max_new_tokens=min(tokens, room), **options)
    text: str = tokenizer.decode(ids[0], skip_special_tokens=True)
    return text
