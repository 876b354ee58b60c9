"""The text classifier that is exported: token ids in, calibrated probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, PreTrainedModel
from transformers.utils import logging

from contract.errors import ArtifactCorruptError
from training.artifact import Artifact
from training.text.classifier import MeanPooledClassifier

LABEL_CLASSES = "label_classes"
"""Manifest setting: {label: the head's classes that it stands for}; none where they are one."""

# It warns about every class it did not write, on every load.
logging.set_verbosity_error()


class ProbabilityClassifier(PreTrainedModel):
    """BERT, head, temperature and softmax (or, multi-label, sigmoid) in one graph.

    forward: input_ids, attention_mask int64 (batch, length) → (probabilities float32
    (batch, labels),). A label may stand for several of the head's classes: ``classes_per_label``
    says how many, in their order. A PreTrainedModel, so that optimum exports it as any other.
    """

    config_class = BertConfig
    base_model_prefix = "classifier_model"

    def __init__(
        self,
        classifier_model: MeanPooledClassifier,
        temperature: float = 1.0,
        classes_per_label: Sequence[int] | None = None,
    ) -> None:
        super().__init__(classifier_model.config)
        self.classifier_model = classifier_model
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.multi_label = classifier_model.config.problem_type == "multi_label_classification"
        self.classes_per_label = None if classes_per_label is None else list(classes_per_label)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """float32 (batch, classes), before temperature."""
        answer = self.classifier_model(input_ids=input_ids, attention_mask=attention_mask)
        return answer.logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        scaled = self.logits(input_ids, attention_mask) / self.temperature
        if self.multi_label:
            return (torch.sigmoid(scaled),)
        classes = torch.softmax(scaled, dim=-1)
        if self.classes_per_label is None:
            return (classes,)
        parts = classes.split(self.classes_per_label, dim=-1)
        return (torch.cat([part.sum(dim=-1, keepdim=True) for part in parts], dim=-1),)


def load_classifier(artifact: Artifact) -> ProbabilityClassifier:
    """The eval-mode network of a finished run; temperature from its manifest.

    Raises:
        ArtifactCorruptError: the weights cannot be read, or do not fit the manifest.
    """
    network = read_network(artifact.path)
    manifest = artifact.manifest
    classes = tuple(network.config.id2label[index] for index in range(network.config.num_labels))
    of_label = manifest.settings.get(LABEL_CLASSES) or {label: [label] for label in manifest.labels}
    expected = tuple(name for label in manifest.labels for name in of_label.get(label, ()))
    if classes != expected:
        raise ArtifactCorruptError(
            "the network's labels are not the manifest's",
            where=str(artifact.path),
            expected=", ".join(expected),
            got=", ".join(classes),
            next_command=f"train again: python -m training train {manifest.model}",
        )
    temperature = float(manifest.settings.get("temperature", 1.0))
    sizes = [len(of_label[label]) for label in manifest.labels]
    merged = sizes if LABEL_CLASSES in manifest.settings else None
    return ProbabilityClassifier(network, temperature, merged).eval()


def read_network(folder: Path) -> MeanPooledClassifier:
    """MeanPooledClassifier of a ``save_pretrained`` folder, never from a hub."""
    try:
        config = BertConfig.from_pretrained(folder)
        config._attn_implementation = "eager"
        network = MeanPooledClassifier(config)
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
