"""The trained branch that reads companion signals: closed at first, and silent without any.

Its share of the decoder's hidden state passes a gate that starts at 0; it adds one expert, the
window's regression, and a learned share of what the companions add to that regression. Where no
companion is known, all three are exactly nothing, and the network is the plain one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.metric_forecast.companion_evidence import PATH, Regression
from training.metric_forecast.window import compress

_ENCODED = 32
_WORST_RECORD = 5.0
_FACTS = 6
_NEVER = 1e4


class CompanionEvidence(NamedTuple):
    """Values in the window's own counting, float32.

    forecast, lift: (batch, steps), the regression's, and how much of it is the companions'
    record: (batch, steps, 2), see ``Evidence``; below 0 where it beat the best expert
    facts: (batch, steps, facts), what the decoder reads of the regression
    paths: (batch, companions, …), what the encoder reads; known: (batch, companions), 0/1
    """

    forecast: Tensor
    lift: Tensor
    record: Tensor
    facts: Tensor
    paths: Tensor
    known: Tensor


class Scales(NamedTuple):
    """Of ``Evidence``, each float32 (batch, steps)."""

    unit: Tensor
    best: Tensor
    best_day: Tensor
    least: Tensor


def companion_evidence(
    found: Regression, between: Tensor, of: Scales, last: Tensor
) -> CompanionEvidence:
    """between: float32 (steps, judged), from the judged steps to those ahead; last: (batch, 1)"""

    def spread(judged: Tensor) -> Tensor:
        return judged @ between.T

    least = of.least
    errors, day, alone = spread(found.errors), spread(found.errors_day), spread(found.alone)
    record = torch.stack(
        [
            torch.log((errors + least) / (of.best + least)),
            torch.log((day + least) / (of.best_day + least)),
        ],
        -1,
    )
    change, lift = spread(found.change), spread(found.lift)
    share = found.known.mean(1, keepdim=True).expand_as(lift)
    facts = [
        compress(change / of.unit),
        compress(lift / of.unit),
        torch.log((errors + least) / (alone + least)),
        share,
    ]
    clamped = record.clamp(-_WORST_RECORD, _WORST_RECORD)
    # The first step's unit: a companion's share in the steps ahead, as large as they are wrong.
    parts = compress(found.parts / of.unit[:, :1].unsqueeze(-1))
    return CompanionEvidence(
        forecast=last + change,
        lift=lift,
        record=record,
        facts=torch.cat([torch.stack(facts, -1), clamped], -1),
        paths=torch.cat([compress(found.paths), parts], -1),
        known=found.known,
    )


class CompanionBranch(nn.Module):
    def __init__(self, judged: int, hidden: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(PATH + judged, _ENCODED), nn.GELU(), nn.Linear(_ENCODED, _ENCODED), nn.GELU()
        )
        self.attend = nn.Linear(_ENCODED, 1)
        self.combine = nn.Linear(_ENCODED, hidden, bias=False)
        self.read = nn.Linear(_FACTS, hidden)
        self.gate = nn.Parameter(torch.zeros(1))
        self.decide = nn.Linear(hidden, 2)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)

    def hidden(self, evidence: CompanionEvidence) -> Tensor:
        """What is added to the decoder's hidden state, (batch, steps, hidden)."""
        encoded = self.encode(evidence.paths)
        known = evidence.known.unsqueeze(-1)
        # Attention over those that are known, and one that says nothing.
        weight = torch.exp(self.attend(encoded).clamp(-8.0, 8.0)) * known
        met = (weight * encoded).sum(1) / (1.0 + weight.sum(1))
        read = F.gelu(self.read(evidence.facts) + self.combine(met).unsqueeze(1))
        return torch.tanh(self.gate) * self.there(evidence) * read

    def outlook(self, hidden: Tensor, evidence: CompanionEvidence) -> tuple[Tensor, Tensor]:
        """The expert's logit before its record (batch, steps, 1), and what the companions add to
        the median (batch, steps).
        """
        decided, there = self.decide(hidden), self.there(evidence)
        logit = decided[..., :1] - _NEVER * (1.0 - there)
        return logit, there[..., 0] * decided[..., 1] * evidence.lift

    @staticmethod
    def there(evidence: CompanionEvidence) -> Tensor:
        """1 where any companion is known: (batch, 1, 1)."""
        return evidence.known.amax(1).reshape(-1, 1, 1)
