"""From a finished run to a proven version in the model repository."""

import os

# ONNX Runtime's wheels would tell their maker of each session.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
