"""Tools that people use after an export: trainers, adapters, harnesses, pipelines."""

from __future__ import annotations

import math
import sys

import drawn
import pytest
import torch
import torch.nn.functional as F
from depth import leading
from transformers import Trainer, TrainingArguments, pipeline

pytestmark = pytest.mark.slow

# Designs with auxiliary losses; ReMoE's begins near zero.
WITH_LOSSES = {"switch", "dsmoe"}
every_kind = pytest.mark.parametrize("name", drawn.KINDS)


def options(folder, **others):
    """Arguments of a short training on the CPU."""
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "learning_rate": 0.0,
        "max_grad_norm": 1e9,  # measures the norm, and cuts nothing
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    } | others


def states(model):
    """The buffers by their names in the export."""
    return {name.replace("base_layer.", ""): state for name, state in model.named_buffers()}


def first(trainer):
    """Loss and gradient norm of its first step."""
    trainer.train()
    return next(
        (row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row
    )


@pytest.mark.parametrize("name", leading(drawn.METHODS, 3))
def test_accumulation_weighs_auxiliary_losses_by_their_share(load, ids, tmp_path, name):
    """One batch of four rows and four of one: the same loss and gradient."""
    rows = [{"input_ids": ids[0], "labels": ids[0], "attention_mask": torch.ones(12)}] * 4

    def run(size, steps):
        arguments = options(tmp_path, per_device_train_batch_size=size)
        arguments["gradient_accumulation_steps"] = steps
        return first(Trainer(load(name), TrainingArguments(**arguments), train_dataset=rows))

    # Trainer logs four places of a loss.
    assert run(1, 4) == pytest.approx(run(4, 1), abs=1e-4, rel=1e-4)


@every_kind
def test_parts_of_a_batch_add_up_to_it(load, ids, name):
    """As Trainer calls it, to float32's rounding, with padding in one of the parts."""
    row = torch.cat((ids, ids))
    grads, losses = [], []
    for parts in ([row], [row[:1], row[1:]]):
        model, total = load(name).train(), 0.0
        for part in parts:
            loss = model(part, labels=part, num_items_in_batch=torch.tensor(22)).loss
            loss.backward()
            total += float(loss.detach())
        losses.append(total)
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_part_with_more_labels_counts_for_more(load, ids):
    model = load("switch").train()
    labels = ids.clone()
    labels[0, 6:] = -100
    out = model(ids, labels=labels, num_items_in_batch=20)
    plain = F.cross_entropy(out.logits[0, :5], ids[0, 1:6], reduction="sum") / 20
    assert float(out.loss) == pytest.approx(float(plain + out.aux_loss * 5 / 20), rel=1e-6)


@pytest.mark.parametrize("name", leading(drawn.METHODS, 3))
def test_trl_with_its_defaults(load, tokenizer, tmp_path, name):
    import trl
    from datasets import Dataset

    data = Dataset.from_dict({"text": [drawn.TEXT] * 4})
    arguments = options(tmp_path, per_device_train_batch_size=2, bf16=False)

    class Tuner(trl.SFTTrainer):
        compute_loss = Trainer.compute_loss

    def run(cls, **others):
        settings = trl.SFTConfig(**arguments | others)
        model, given = load(name), {"train_dataset": data, "processing_class": tokenizer}
        return first(cls(model=model, args=settings, **given))

    whole, norm = run(Tuner)
    # TRL's own loss is made of hidden states, without what the model adds.
    bare, bare_norm = run(trl.SFTTrainer)
    if name in WITH_LOSSES:
        assert bare < whole - 1e-3
    else:
        assert (bare, bare_norm) == pytest.approx((whole, norm), rel=1e-4)
    if name == "remoe":
        want = pytest.approx((whole, norm), rel=1e-4)
        assert run(Tuner, gradient_checkpointing=False) == want
        parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
        assert run(Tuner, **parts) == want
        packed, _ = run(trl.SFTTrainer, packing=True, packing_strategy="bfd", max_length=64)
        assert packed == pytest.approx(bare, rel=0.02)


def test_a_loss_without_auxiliary_losses_is_told_of(load, ids, monkeypatch):
    model, told = load("switch").train(), []
    code = sys.modules[type(model).__module__]
    monkeypatch.setattr(code.logger, "warning_once", told.append, raising=False)
    model(ids, labels=ids)
    assert not told
    model.model(ids)
    assert "compute_loss = Trainer.compute_loss" in told[0]


@every_kind
def test_lora_on_attention_and_experts(load, ids, tmp_path, name):
    import peft

    targets = ["attention.qkv_3DD", "attention.out_DD", "experts.values_BGD"]
    if any(n.endswith("experts.keys_BGD") for n, _ in load(name).named_parameters()):
        targets.append("experts.keys_BGD")
    config = peft.LoraConfig(r=2, target_parameters=targets, init_lora_weights=True)
    torch.manual_seed(0)
    model = peft.get_peft_model(load(name), config).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(3):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    model.eval()
    model.save_pretrained(tmp_path)
    tuned = model(ids).logits
    assert not torch.allclose(tuned, load(name)(ids).logits, atol=1e-3)

    base = load(name)  # states have moved, which an adapter does not keep
    base.load_state_dict(states(model.get_base_model()), strict=False)
    again = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(again(ids).logits, tuned, rtol=1e-4, atol=1e-4)
    merged = again.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, tuned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", leading(drawn.METHODS, 3))
def test_the_evaluation_harness_sees_the_same_likelihoods(exports, load, tokenizer, name):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(exports(name)), trust_remote_code=True, device="cpu", batch_size=2)
    pairs = [("the cat", " sat on"), ("a mat and then", " ran"), ("some fish", " in the old house")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    for pair, (found, _) in zip(pairs, model.loglikelihood(requests), strict=True):
        context, rest = (tokenizer(text)["input_ids"] for text in pair)
        ids = torch.tensor([context + rest])
        logs = load(name)(ids).logits[0].log_softmax(1)
        want = sum(float(logs[len(context) + i - 1, t].detach()) for i, t in enumerate(rest))
        assert found == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("name", drawn.METHODS)
def test_pipelines(exports, load, tokenizer, name):
    given = {"model": str(exports(name)), "trust_remote_code": True, "device": "cpu"}
    made = pipeline("text-generation", **given)(["the cat", "a mat and then"], do_sample=False,
        max_new_tokens=4, batch_size=2)  # fmt: skip
    for prompt, answer in zip(["the cat", "a mat and then"], made, strict=True):
        ids = load(name).generate(
            **tokenizer(prompt, return_tensors="pt"), max_new_tokens=4, do_sample=False
        )
        assert answer[0]["generated_text"] == tokenizer.decode(ids[0], skip_special_tokens=True)
    features = pipeline("feature-extraction", **given)("the cat")
    n_tokens = len(tokenizer("the cat")["input_ids"])
    assert torch.tensor(features).shape == (1, n_tokens, 32)
    assert math.isfinite(features[0][-1][0])
