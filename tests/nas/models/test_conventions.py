"""An export keeps the conventions of transformers' own models, whatever its selection method."""

from __future__ import annotations

import drawn
import pytest
import torch
from transformers import AutoModel, DynamicCache, StaticCache

pytestmark = pytest.mark.slow

every_kind = pytest.mark.parametrize("name", drawn.KINDS)
NEEDS_IDS = {name for name, spec in drawn.SPECS.items() if spec.method == "hash"}


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every_kind
def test_the_vocabulary_grows_and_what_depends_on_it_follows(load, ids, tmp_path, name):
    model = load(name)
    before, old = model(ids).logits, model.config.vocab_size
    assert model.get_input_embeddings().weight.shape[0] == old
    assert model.get_output_embeddings() is model.lm_head

    model.resize_token_embeddings(old + 10)
    new = torch.tensor([[old + 5, 1, 2]])
    assert torch.isfinite(model(new, labels=torch.tensor([[old + 5, 1, old + 9]])).loss)
    close(model(ids).logits[..., :old], before)

    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config.backbone["vocab_size"] == again.config.vocab_size == old + 10
    assert again.lm_head.weight is again.get_input_embeddings().weight
    close(again(new).logits, model(new).logits)

    model.resize_token_embeddings(200)  # and shrinks
    assert model(ids % 200).logits.shape == (1, 12, 200)


@every_kind
def test_embeddings_in_place_of_ids(load, ids, name):
    model = load(name)
    embeds = model.get_input_embeddings()(ids)
    if name in NEEDS_IDS:
        with pytest.raises(ValueError, match="picks experts by token id"):
            model(inputs_embeds=embeds)
        with pytest.raises(ValueError, match="picks experts by token id"):
            model.generate(inputs_embeds=embeds, max_new_tokens=2)
        return
    close(model(inputs_embeds=embeds).logits, model(ids).logits)
    tokens = model.generate(inputs_embeds=embeds, max_new_tokens=3, do_sample=False)
    assert (
        tokens.tolist() == model.generate(ids, max_new_tokens=3, do_sample=False)[:, 12:].tolist()
    )


@every_kind
def test_hidden_states_tuples_and_the_model_without_its_head(exports, load, ids, name):
    model = load(name)
    out = model(ids, output_hidden_states=True)
    assert [state.shape for state in out.hidden_states] == [(1, 12, 32)] * 3
    close(model.lm_head(out.hidden_states[-1]), out.logits)
    assert model(ids).hidden_states is None

    as_tuple = model(ids, labels=ids, return_dict=False)
    assert isinstance(as_tuple, tuple)
    close(as_tuple[1], out.logits)

    bare = AutoModel.from_pretrained(exports(name), trust_remote_code=True)
    close(bare(ids)[0], out.hidden_states[-1])
    assert isinstance(bare(ids, return_dict=False), tuple)


def test_what_is_not_supported_is_said(load, ids):
    model = load("switch")
    for arguments, message in [
        ({"input_ids": ids, "output_attentions": True}, "attention weights"),
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": ids, "attention_mask": torch.ones(1, 5)}, "5 columns for 12 tokens"),
        ({"input_ids": ids, "attention_mask": torch.ones(12)}, "a row for each of the 1 sequences"),
        ({"input_ids": ids, "attention_mask": torch.ones(1, 1, 12, 5)}, "5 columns for 12 keys"),
        ({"input_ids": ids, "past_key_values": ((ids, ids),)}, "a DynamicCache or a StaticCache"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(**arguments)
    config = model.config.to_dict() | {"vocab_size": 400}
    with pytest.raises(ValueError, match=r"vocab_size follows config\.backbone"):
        type(model)(type(model.config)(**config))


@every_kind
def test_static_and_dynamic_caches_agree_with_none(load, ids, name):
    model, short = load(name), ids[:, :5]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    want = model.generate(short, use_cache=False, **options).tolist()
    assert model.generate(short, **options).tolist() == want
    assert model.generate(short, cache_implementation="static", **options).tolist() == want
    both = torch.cat((short, short.flip(1)))
    mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
    padded = [
        model.generate(both, attention_mask=mask, cache_implementation=kind, **options).tolist()
        for kind in ("dynamic", "static")
    ]
    assert padded[0] == padded[1] and padded[0][0] == want[0]


@every_kind
@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
@torch.no_grad()
def test_a_cache_filled_by_hand(load, ids, name, kind):
    model = load(name)
    room = {"max_cache_len": 20} if kind is StaticCache else {}
    cache, parts = kind(config=model.config, **room), []
    for cut in ([0, 6], [6, 7], [7, 12]):
        out = model(ids[:, slice(*cut)], past_key_values=cache, use_cache=True)
        parts.append(out.logits)
    close(torch.cat(parts, 1), model(ids).logits, 1e-4)

    # The same with two padding tokens before.
    padded, mask = torch.cat((ids[:, :2], ids), 1), torch.tensor([[0] * 2 + [1] * 12])
    cache, parts = kind(config=model.config, **room), []
    for begin, end in ([0, 8], [8, 9], [9, 14]):
        arguments = {"attention_mask": mask[:, :end], "past_key_values": cache, "use_cache": True}
        parts.append(model(padded[:, begin:end], **arguments).logits)
    close(torch.cat(parts, 1)[:, 2:], model(ids).logits, 1e-4)


def test_a_cache_that_forgets_is_refused(load, ids):
    model = load("dense")
    model.config.sliding_window = 4
    model.config.layer_types = ["sliding_attention"] * 2
    cache = DynamicCache(config=model.config)
    model(ids[:, :8], past_key_values=cache, use_cache=True)
    with pytest.raises(ValueError, match="use a DynamicCache or a StaticCache"):
        model(ids[:, 8:10], past_key_values=cache, use_cache=True)


@every_kind
def test_packed_sequences_do_not_see_each_other(load, ids, name):
    model = load(name)
    places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2]])
    want = torch.cat([model(ids[:, slice(*cut)]).logits for cut in ([0, 5], [5, 9], [9, 12])], 1)
    close(model(ids, position_ids=places).logits, want)
    close(model(ids, position_ids=places, attention_mask=torch.ones_like(ids)).logits, want)
    masked = model(
        torch.cat((ids, ids[:, :3]), 1),
        position_ids=torch.cat((places, torch.tensor([[0, 1, 2]])), 1),
        attention_mask=torch.tensor([[1] * 12 + [0] * 3]),
    )
    close(masked.logits[:, :12], want)
    with pytest.raises(ValueError, match="packed sequences"):
        model(ids, position_ids=places, use_cache=True)
    # Places that go on, however far, are one sequence.
    far = model(ids, position_ids=torch.arange(12)[None] * 3).logits
    assert not torch.allclose(far[:, 5:9], model(ids[:, 5:9]).logits, atol=1e-3)


@every_kind
def test_a_mask_of_four_dims_is_taken_as_it_is(load, ids, name):
    model, causal = load(name), torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    close(model(ids, attention_mask=causal).logits, model(ids).logits)
    added = torch.zeros(1, 1, 12, 12).masked_fill(~causal, torch.finfo(torch.float32).min)
    close(model(ids, attention_mask=added).logits, model(ids).logits)


@every_kind
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_leaves_no_trace_in_training(load, ids, name, side):
    """Two rows, one of them padded by five: as if each were alone, in loss, gradients, states."""
    rows = ids, ids[:, :7].flip(1)
    filler = torch.full((1, 5), 3)
    parts = [filler, rows[1]] if side == "left" else [rows[1], filler]
    batch = torch.cat((rows[0], torch.cat(parts, 1)))
    mask = torch.ones_like(batch)
    mask[1, slice(0, 5) if side == "left" else slice(7, 12)] = 0
    labels = batch.masked_fill(mask == 0, -100)

    def trained(fill):
        model = load(name).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        out = model(batch.masked_fill(mask == 0, fill), attention_mask=mask, labels=labels)
        out.loss.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        optimizer.step()
        states = [b.clone() for _, b in model.named_buffers()]
        return out.loss.detach(), out.aux_loss, grads, states

    one, other = trained(3), trained(77)
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(one[3], other[3], strict=True))

    # The same tokens packed, without a single padding token.
    model = load(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    packed, places = torch.cat(rows, 1), torch.cat((torch.arange(12), torch.arange(7)))[None]
    labels = packed.clone()
    labels[0, 12] = -100  # no row's first token is a target
    out = model(packed, position_ids=places, labels=labels)
    out.loss.backward()
    close(one[0], out.loss.detach())
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    for a, b in zip(one[2], grads, strict=True):
        close(a, b)
    optimizer.step()
    for a, (_, b) in zip(one[3], model.named_buffers(), strict=True):
        close(a, b)


def test_a_row_of_padding_alone_has_no_loss_and_no_state(load, ids):
    model = load("bias").train()
    nothing = torch.zeros_like(ids)
    out = model(ids, attention_mask=nothing, labels=ids)
    assert out.aux_loss is None and torch.isfinite(out.logits).all()
