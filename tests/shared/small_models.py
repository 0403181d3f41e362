"""Networks that are small enough to follow by hand, with weights that are the same every time."""

import torch
from torch import nn

UNITS = ["attention_layers", "heads", "ffn_layers", "ffn"]
START = {"attention_layers": 1.0, "heads": 0.5, "ffn_layers": 1.0, "ffn": 0.0, "hidden": 1.5}
"""log(alpha) of the gates of each kind of unit of an encoder."""

TOKENS = {"input_ids": torch.arange(3, 13).view(2, 5)}
"""Inputs of `bert`: two texts of five tokens."""


def bert():
    """Three layers with three heads of width 4 and 20 FFN units, in float64, no bias zero."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=30, max_position_embeddings=16, **sizes, **dropout)
    model = BertForSequenceClassification(config).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model


def linear(*rows):
    """A linear layer without bias that has these rows of weights."""
    model = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model
