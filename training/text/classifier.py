"""BERT with a linear head on the mean of its tokens."""

from __future__ import annotations

from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPooledClassifier(BertForSequenceClassification):
    """forward: input_ids, attention_mask int64 (batch, length) → logits float32 (batch, classes).

    The encoders we start from were trained to mean something in the mean of their tokens, not in
    BERT's pooler: the head starts from more, and a few labelled lines tell it more.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert.pooler = None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        real = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * real).sum(dim=1) / real.sum(dim=1).clamp_min(1)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(mean)))
