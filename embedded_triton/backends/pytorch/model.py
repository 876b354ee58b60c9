"""Stand-in for Triton's native ``pytorch`` (LibTorch) backend: the same config.pbtxt.

Runs inside Triton's Python stub. Inputs are matched by the names of forward's arguments or by
``<name>__<index>``; outputs are ``<name>__<index>``, as the native backend requires.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
import triton_python_backend_utils as pb_utils


def _option(config, key, default):
    value = config.get("parameters", {}).get(key, {}).get("string_value", "")
    return int(value) if value.lstrip("-").isdigit() else default


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """TorchScript does not hold its tensors' shapes: nothing to fill in, as natively."""
        return auto_complete_model_config

    def initialize(self, args):
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"numpy {np.__version__} makes this server answer wrong data; install numpy<2"
            )
        self.device = "cpu"
        if args["model_instance_kind"] == "GPU":
            if not torch.cuda.is_available():
                raise pb_utils.TritonModelException(
                    "instance kind GPU asked for, but this server's torch has no CUDA: use the"
                    " container, or install a CUDA build in its environment"
                )
            self.device = f"cuda:{args['model_instance_device_id']}"
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.pt"
        path = Path(args["model_repository"]) / str(args["model_version"]) / name
        if not path.is_file():
            raise pb_utils.TritonModelException(f"no model file {path}")
        # 1 thread, not torch's default of all cores: several instances would fight over them.
        torch.set_num_threads(_option(config, "INTRA_OP_THREAD_COUNT", 1))
        try:
            self.module = torch.jit.load(str(path), map_location=self.device).eval()
        except RuntimeError as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from error
        self.batched = int(config.get("max_batch_size", 0)) > 0
        self.inputs = self._order([tensor["name"] for tensor in config["input"]])
        self.outputs = {}
        for tensor in config["output"]:
            found = re.fullmatch(r".+__(\d+)", tensor["name"])
            if not found:
                raise pb_utils.TritonModelException(
                    f"output {tensor['name']!r} must be named <name>__<index>"
                )
            self.outputs[tensor["name"]] = int(found.group(1))

    def _order(self, names):
        """Config's input names in the order of forward's arguments."""
        arguments = [a.name for a in self.module.forward.schema.arguments if a.name != "self"]
        if set(names) <= set(arguments):
            return sorted(names, key=arguments.index)
        indexes = [re.fullmatch(r".+__(\d+)", name) for name in names]
        if all(indexes):
            return sorted(names, key=lambda name: int(name.rsplit("__", 1)[1]))
        raise pb_utils.TritonModelException(
            f"inputs {names} are neither forward's arguments {arguments} nor <name>__<index>"
        )

    def execute(self, requests):
        rows = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs]
            for request in requests
        ]
        responses = [None] * len(requests)
        groups = {}
        for i, arrays in enumerate(rows):
            key = tuple(a.shape[1:] for a in arrays) if self.batched else i
            groups.setdefault(key, []).append(i)
        for group in groups.values():
            self._answer(group, requests, rows, responses)
        return responses

    def _answer(self, group, requests, rows, responses):
        try:
            feed = (
                [
                    torch.from_numpy(np.concatenate([rows[i][k] for i in group]))
                    for k in range(len(self.inputs))
                ]
                if self.batched
                else [torch.from_numpy(a.copy()) for a in rows[group[0]]]
            )
            with torch.inference_mode():
                outputs = self.module(*(tensor.to(self.device) for tensor in feed))
        except Exception as error:
            if len(group) > 1:
                # One bad request must not take its neighbours with it.
                for i in group:
                    self._answer([i], requests, rows, responses)
                return
            reason = str(error).strip().splitlines()[-1]
            responses[group[0]] = pb_utils.InferenceResponse(
                error=pb_utils.TritonError(f"pytorch: {reason}")
            )
            return
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        outputs = [tensor.cpu() for tensor in outputs]
        start = 0
        for i in group:
            stop = start + (rows[i][0].shape[0] if self.batched else 0)
            requested = set(requests[i].requested_output_names())
            responses[i] = pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(
                        name,
                        np.ascontiguousarray(
                            (outputs[k][start:stop] if self.batched else outputs[k]).numpy()
                        ),
                    )
                    for name, k in self.outputs.items()
                    if name in requested
                ]
            )
            start = stop
