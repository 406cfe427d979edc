"""`nas eval`: what a model directory is worth on a text, whoever wrote it."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models.directory import read_config
from nas.models.generate import check_size
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed, require
from search_space.places import corpora_dir

if TYPE_CHECKING:
    from workers.training.measure import Quality, Windows

log = logging.getLogger(__name__)
LONGEST = 2048  # tokens of a window, where the model reads more and none were asked for


@dataclass(frozen=True, kw_only=True)
class Question:
    """What `nas eval` is asked.

    model: a directory that transformers loads; code in it runs.
    corpus: the text; its tokenizer is the directory's.
    split: validation or test.
    tokens: about so many are read, in windows spread evenly over the split.
    batch: windows at once.
    seq_len: tokens of a window; 0 for what the model was trained with, `LONGEST` at most.
    threads: of torch, on the CPU; 0 for torch's own number.
    """

    model: Path
    corpus: CorpusSpec
    split: str = "validation"
    tokens: int = 65_536
    batch: int = 16
    seq_len: int = 0
    device: str = "auto"
    threads: int = 0


def evaluate_model(question: Question) -> dict[str, Any]:
    """Bits per byte with its standard error over windows, and what it took, as plain data.

    The windows and the formula are a study's, so the figure of an exported trial on the study's
    corpus is the trial's. Raises InputError for what is no causal language model or does not fit
    the text, WorkFailed where the memory does not suffice.
    """
    folder = question.model
    read_config(folder)
    odd = next((path for path in folder.iterdir() if not (path.is_file() or path.is_dir())), None)
    require(odd is None, f"a model directory holds files: {odd} is a pipe, device or broken link")
    check_size(folder)
    import torch

    from workers.corpus import prepare
    from workers.device import present_device
    from workers.kernels.dispatch import chosen_products
    from workers.training.measure import Windows

    device = present_device(question.device)
    if question.threads and device == "cpu":
        torch.set_num_threads(question.threads)
    model = _load(folder)
    config = model.config.get_text_config()
    seq_len = _seq_len(question, config)
    spec = dataclasses.replace(question.corpus, tokenizer=str(folder.absolute()))
    corpus = prepare(spec, config.vocab_size, seq_len, corpora_dir())
    if not corpus.meta["lossless"]:
        log.warning(
            "the model's tokenizer changes this text, or does not know a part of it: bits per byte "
            "compare with those of other tokenizers in part alone"
        )
    windows = Windows.of(corpus, question.split, question.tokens, seq_len)
    model = model.to(device).eval()
    began = time.monotonic()
    with chosen_products(device):
        quality = _measured(model, windows, device, question.batch)
    seconds = time.monotonic() - began
    return {
        "model": str(folder),
        "split": question.split,
        "bits_per_byte": quality.bits_per_byte,
        "bits_per_byte_se": quality.standard_error,
        "loss": quality.loss,
        "perplexity": _perplexity(quality.loss),
        "tokens": int(windows.targets.size),
        "windows": len(quality.windows),
        "seq_len": seq_len,
        "seconds": seconds,
        "tokens_per_second": windows.targets.size / max(seconds, 1e-9),
        "peak_memory_bytes": _peak(device),
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_type": config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "corpus": corpus.meta["source"],
        "corpus_hash": corpus.meta["hash"],
    }


def _load(folder: Path) -> Any:
    """The causal language model of a directory, as any transformers user loads it."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder.absolute()), trust_remote_code=True, output_loading_info=True
        )
    except Exception as error:  # its code and its weights are the user's
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{folder} does not load as a causal language model: {reason[0][:300]}"
        ) from error
    missing = sorted(report["missing_keys"])
    # transformers would draw them at random, and noise would be measured without a word.
    require(not missing, f"{folder} is not whole: its weights lack {', '.join(missing[:3])}")
    return model


def _measured(model: Any, windows: Windows, device: str, batch: int) -> Quality:
    import torch

    try:
        return windows.quality(
            lambda ids_NL: model(input_ids=ids_NL, use_cache=False).logits.float(), device, batch
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise WorkFailed(
            f"the memory of {device} does not suffice ({error}); lower --batch or --seq-len"
        ) from None


def _seq_len(question: Question, config: Any) -> int:
    longest = getattr(config, "max_position_embeddings", None) or LONGEST
    require(
        question.seq_len <= longest,
        f"--seq-len is at most what {question.model} reads, {longest} tokens: got "
        f"{question.seq_len}; lower it",
    )
    return question.seq_len or min(longest, LONGEST)


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _peak(device: str) -> int:
    """Bytes of memory: of a GPU those of this evaluation, of a CPU the process's at its fullest."""
    import torch

    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
