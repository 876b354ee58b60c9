"""Job logs to learn from: a catalogue of failure signatures, and logs composed of it."""

from training.train_failure_rca.corpus.catalogue import Catalogue, Family, hold_out, load_catalogue
from training.train_failure_rca.corpus.compose import ComposedLog, Mix, compose_logs
from training.train_failure_rca.corpus.labels import LABELS
from training.train_failure_rca.corpus.messages import LabelledLine

__all__ = [
    "LABELS",
    "Catalogue",
    "ComposedLog",
    "Family",
    "LabelledLine",
    "Mix",
    "compose_logs",
    "hold_out",
    "load_catalogue",
]
