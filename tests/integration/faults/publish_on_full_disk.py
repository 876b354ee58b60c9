"""Run where the first argument is a small file system: publish onto it when it is full."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

from contract.errors import PublishError
from embedded_triton import EmbeddedServer, ServerSettings
from export.candidate import Candidate
from export.publish import publish, versions
from tests.fixtures import toy_model
from tests.integration.faults.private_mounts import filled
from tests.integration.promote.test_promotion import _proven

VALUES = np.linspace(-1, 1, 8, dtype=np.float32)[None]


def main(small: Path, elsewhere: Path) -> None:
    repository = small / "repository"
    repository.mkdir()
    with toy_model.toy_registered() as spec:
        first, second = (
            _proven(Candidate(spec, toy_model.train_toy(spec, elsewhere, seed)), elsewhere / "p")
            for seed in (0, 1)
        )
        publish(first, repository)
        settings = ServerSettings(repository, 0, 0, 0, run_folder=elsewhere / "run")
        with EmbeddedServer(settings) as server:
            [name] = [model.name for model in server.models]
            before = _ask(server.http_url, name)
            with filled(small, leave_bytes=4096):
                try:
                    publish(second, repository)
                except PublishError as error:
                    message = str(error)
                else:
                    raise AssertionError("published onto a full disk")
                assert versions(repository / name) == [1]
                server.load(name)
                assert np.array_equal(_ask(server.http_url, name), before)
            publish(second, repository)
            server.load(name)
            assert versions(repository / name) == [1, 2]
            assert not np.array_equal(_ask(server.http_url, name), before)
    print(f"version 1 served on, published once there was room; “{message}”")


def _ask(address: str, name: str) -> np.ndarray:
    with triton.InferenceServerClient(address) as client:
        config = client.get_model_config(name)
        tensor = triton.InferInput(config["input"][0]["name"], list(VALUES.shape), "FP32")
        tensor.set_data_from_numpy(VALUES)
        answer: np.ndarray = client.infer(name, [tensor]).as_numpy(config["output"][0]["name"])
        return answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
