"""A masked encoder that computes with what is left: the same outputs and gradients."""

import pytest
import torch

from pruneexp.groups import Norm
from pruneexp.masks import apply_masks_, mask_gradients_
from pruneexp.models.encoder_layers import unit_groups
from pruneexp.nesting import Nesting
from pruneexp.surgery.compact import compact_, expand_

TOKENS = {"input_ids": torch.arange(3, 13).view(2, 5), "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}
KINDS = ("attention_layers", "heads", "ffn_layers", "ffn")


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
    return BertForSequenceClassification(BertConfig(vocab_size=30, max_position_embeddings=16, **sizes)).double().eval()


def distilbert():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=30, max_position_embeddings=16, dim=12, n_layers=2, n_heads=3, hidden_dim=20)
    return DistilBertForSequenceClassification(config).double().eval()


def masked(build, sparsity, seed):
    model = build()
    groups = [group for kind in KINDS for group in unit_groups(model, kind, Norm("l2"))]
    parameters = dict(model.named_parameters())
    total = sum(parameters[name].numel() for name in {name for group in groups for name in group.parameters})
    nesting = Nesting(groups, total)
    openness = torch.rand(len(nesting.own), generator=torch.Generator().manual_seed(seed))
    masks = nesting.masks(nesting.closest(openness, sparsity))
    apply_masks_(parameters, masks)
    return model, masks


@pytest.mark.parametrize("build", [bert, distilbert])
@pytest.mark.parametrize("sparsity", [0.3, 0.8, 1.0])
def test_outputs_and_gradients_are_those_of_the_masked_network(build, sparsity):
    model, masks = masked(build, sparsity, seed=1)
    found = []
    for compact in (False, True):
        changed = compact_(model, masks) if compact else []
        logits = model(**TOKENS).logits
        model.zero_grad()
        logits.square().sum().backward()
        parameters = dict(model.named_parameters())
        mask_gradients_(parameters, masks)
        found.append((logits.detach(), {name: parameter.grad.clone() for name, parameter in parameters.items()}))
    assert changed
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-12)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], rtol=1e-9, atol=1e-12), name


def test_the_layers_compute_with_what_is_left_until_they_are_expanded():
    model, masks = masked(bert, 0.8, seed=1)
    seen = []
    projection = model.bert.encoder.layer[0].output.dense
    projection.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-1]))
    keys = list(model.state_dict())
    changed = compact_(model, masks)
    assert list(model.state_dict()) == keys
    model(**TOKENS)
    expand_(changed)
    model(**TOKENS)
    left = int(masks["bert.encoder.layer.0.output.dense.weight"].any(dim=0).sum())
    assert seen == [max(1, left), 20]
    assert left < 20
    assert changed == []


def test_a_network_without_pruned_units_is_left_as_it_is():
    model = bert()
    assert compact_(model, {}) == []
    ones = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    assert compact_(model, ones) == []
