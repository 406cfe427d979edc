"""What the tests of exports share: a design that was trained in a small study, and directories."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.base_model import read_base
from nas.models.checkpoints import find_checkpoint
from nas.models.custom import new_model
from nas.models.custom import write_model as write_custom
from nas.models.export import export_trial
from nas.models.forms import as_transformers, save
from nas.store import Store, StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.contract import EvalResult
from search_space.methods.topk import TopK
from search_space.native import NativeForm, native_form
from search_space.spec import FFNSpec
from workers.corpus import Corpus
from workers.corpus.tokenizer import train_bpe
from workers.exported import drawn
from workers.pretrained.model import PretrainedLM, cut_ffns, put_in

TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(3000))
BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
TOPK = FFNSpec(d_ff=128, expert_width=32, selection=TopK(k=2, bias_rate=0.01, balance_weight=0.01))
DENSE = FFNSpec(d_ff=128)
EVAL_TOKENS = 1024
ENDS = {"eos_token_id": 0, "pad_token_id": 0}


@dataclass(frozen=True)
class SmallStudy:
    """A study with one finished trial, and its corpus. url: of its database."""

    url: str
    folder: Path
    study: StudyRecord
    trial: TrialRecord
    result: EvalResult
    corpus: Corpus
    source: Path

    def export(self, folder: Path) -> Path:
        """The trial as a model directory."""
        with Store.open(self.url) as store:
            checkpoint = find_checkpoint(store, self.study, self.trial)
            return export_trial(checkpoint, self.study, self.trial, folder, verify=False)


def write_model(folder: Path, spec: FFNSpec, backbone: Backbone = BACKBONE, seed: int = 0) -> Path:
    """An export with the initial weights of a seed, without a study."""
    folder.mkdir()
    model = new_model(spec.to_dict(), backbone.to_dict(), ENDS, drawn(spec, backbone, seed))
    write_custom(folder, model)
    put_tokenizer(folder, backbone.vocab_size)
    return folder


def write_form(folder: Path, model, spec: FFNSpec, backbone: Backbone, dtype=torch.float32) -> Path:
    """A trained model in its native form, or with code where it has none, without a study."""
    folder.mkdir()
    form = native_form(spec, backbone)
    native = form if isinstance(form, NativeForm) else None
    written = as_transformers(model, spec, backbone, native, ENDS)
    save(folder, written.to(dtype), spec, backbone, native)
    put_tokenizer(folder, backbone.vocab_size)
    return folder


def put_tokenizer(folder: Path, vocab_size: int) -> None:
    """A small one of TEXT."""
    train_bpe([TEXT], vocab_size).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )


@torch.no_grad()
def stirred(model):
    """With no tensor at its initial value."""
    torch.manual_seed(1)
    for p in model.parameters():
        if p.ndim == 1:
            p.copy_(1 + 0.1 * torch.randn_like(p))
        else:
            p.normal_(std=p.shape[-1] ** -0.5)
    return model.eval()


def small_llama(folder: Path):
    """A base model of random weights in a folder, and its backbone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        max_position_embeddings=64,
        **ENDS,
    )
    llama = stirred(LlamaForCausalLM(config))
    llama.save_pretrained(folder)
    return llama, read_base(str(folder), 32)


def cut_of(llama, spec: FFNSpec, backbone: Backbone) -> PretrainedLM:
    """A base model of another's shape with random FFNs of a design."""
    lm = type(llama)(llama.config)
    put_in(lm, cut_ffns(spec, backbone))
    return stirred(PretrainedLM(lm, backbone))
