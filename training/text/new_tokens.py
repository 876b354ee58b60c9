"""Lets the rows that were added to a vocabulary learn while the rest of the table stays.

The table is half of the weights: trained as a whole, a step costs a third more. The new rows
(Chinese characters, placeholders) only start from a guess, so they have the most to learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.text.classifier import MeanPooledClassifier

# Few steps see each new row: its steps are this much longer than the network's.
_GAIN = 10.0


class GrowingEmbedding(nn.Module):
    """ids int64 (…) → embeddings (…, width): the table's own rows, and start + learnt step for ids
    from ``known`` on."""

    def __init__(self, table: nn.Embedding, known: int) -> None:
        super().__init__()
        self.table = table
        self.known = known
        self.table.weight.requires_grad_(False)
        added = table.num_embeddings - known
        self.steps = nn.Parameter(torch.zeros(added, table.embedding_dim))

    @property
    def weight(self) -> Tensor:
        """The table as transformers asks for it."""
        return self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        new = (ids >= self.known).unsqueeze(-1)
        steps = self.steps[(ids - self.known).clamp_min(0)]
        return self.table(ids) + new * _GAIN * steps

    def merged(self) -> nn.Embedding:
        """The table with what was learnt added to its rows."""
        with torch.no_grad():
            self.table.weight[self.known :] += _GAIN * self.steps
        self.table.weight.requires_grad_(True)
        return self.table


def let_new_tokens_learn(network: MeanPooledClassifier, known: int) -> None:
    """Freeze the word table but for its rows from ``known`` on, in place."""
    table = network.get_input_embeddings()
    if known < table.num_embeddings:
        network.set_input_embeddings(GrowingEmbedding(table, known))
    else:
        table.weight.requires_grad_(False)


def keep_new_tokens(network: MeanPooledClassifier) -> None:
    """Undo ``let_new_tokens_learn``; what was learnt stays."""
    table = network.get_input_embeddings()
    if isinstance(table, GrowingEmbedding):
        network.set_input_embeddings(table.merged())
    else:
        table.weight.requires_grad_(True)
