"""Sample from an exported directory, as any transformers user would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from search_space.errors import require


def sample(
    folder: Path, prompt: str, *, tokens: int = 120, temperature: float = 0.8, seed: int = 0
) -> str:
    """The prompt and `tokens` more tokens. temperature 0 is greedy.

    The directory's own code runs: InputError unless it is a local export.
    """
    require(
        (folder / "config.json").is_file(),
        f"a model directory holds config.json: {folder} does not; make one with nas export",
    )
    require(prompt != "", "a prompt needs at least one character: got an empty one")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = str(folder.absolute())
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True).eval()
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
        ids = model.generate(**inputs, max_new_tokens=min(tokens, room), **options)
    text: str = tokenizer.decode(ids[0], skip_special_tokens=True)
    return text
