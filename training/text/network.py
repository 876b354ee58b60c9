"""The text classifier that is exported: token ids in, calibrated probabilities out."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel
from transformers.utils import logging

from contract.errors import ArtifactCorruptError
from training.artifact import Artifact

# It warns about every class it did not write, on every load.
logging.set_verbosity_error()


class ProbabilityClassifier(PreTrainedModel):
    """BERT, head, temperature and softmax (or, multi-label, sigmoid) in one graph.

    forward: input_ids, attention_mask int64 (batch, length) → (probabilities float32
    (batch, labels),). A PreTrainedModel, so that optimum exports it as any other.
    """

    config_class = BertConfig
    base_model_prefix = "classifier_model"

    def __init__(
        self, classifier_model: BertForSequenceClassification, temperature: float = 1.0
    ) -> None:
        super().__init__(classifier_model.config)
        self.classifier_model = classifier_model
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.multi_label = classifier_model.config.problem_type == "multi_label_classification"

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """float32 (batch, labels), before temperature."""
        answer = self.classifier_model(input_ids=input_ids, attention_mask=attention_mask)
        return answer.logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        scaled = self.logits(input_ids, attention_mask) / self.temperature
        return (torch.sigmoid(scaled) if self.multi_label else torch.softmax(scaled, dim=-1),)


def load_classifier(artifact: Artifact) -> ProbabilityClassifier:
    """The eval-mode network of a finished run; temperature from its manifest.

    Raises:
        ArtifactCorruptError: the weights cannot be read, or do not fit the manifest.
    """
    network = read_network(artifact.path)
    labels = tuple(network.config.id2label[index] for index in range(network.config.num_labels))
    if labels != artifact.manifest.labels:
        raise ArtifactCorruptError(
            "the network's labels are not the manifest's",
            where=str(artifact.path),
            expected=", ".join(artifact.manifest.labels),
            got=", ".join(labels),
            next_command=f"train again: python -m training train {artifact.manifest.model}",
        )
    temperature = float(artifact.manifest.settings.get("temperature", 1.0))
    return ProbabilityClassifier(network, temperature).eval()


def read_network(folder: Path) -> BertForSequenceClassification:
    """BertForSequenceClassification of a ``save_pretrained`` folder, never from a hub."""
    try:
        config = BertConfig.from_pretrained(folder)
        config._attn_implementation = "eager"
        network = BertForSequenceClassification(config)
        network.load_state_dict(load_file(folder / "model.safetensors"))
    except Exception as error:
        # safetensors, json and torch each have their own error for a broken file.
        raise ArtifactCorruptError(
            "text network cannot be read",
            where=str(folder),
            expected="config.json and model.safetensors of one run",
            got=str(error).splitlines()[0],
        ) from error
    return network.eval()
