"""A recorded flap: fake tree → exporter → Prometheus → evidence in the diagnosis of a job."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.exporter_process import COLLECTORS, ScriptExporter
from tests.fixtures.jobs_process import JobsProcess
from tests.fixtures.node_tree import NodeTree
from tests.fixtures.prometheus_stack import Prometheus
from tests.integration.job_diagnosis.conftest import Triton

LOG = "step 100 loss 2.1\nRuntimeError: NCCL communicator was aborted on rank 3\n"


def test_a_flap_of_its_node_is_in_the_diagnosis_of_a_job(triton: Triton, tmp_path: Path) -> None:
    node = NodeTree(tmp_path / "node")
    node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0", link_layer="Ethernet")
    script = {"script_path": str(COLLECTORS / "infiniband.py"), "args": ["--root", str(node.root)]}
    exporter = ScriptExporter(tmp_path / "exporter", {"infiniband": script})
    found = {"static_configs": [{"targets": [exporter.target], "labels": {"node": "gpu-1"}}]}
    prometheus = Prometheus(tmp_path / "prometheus", scrape={"script_exporter": found})
    with exporter, prometheus:
        prometheus.wait_for("node_infiniband_link_downed_total == 0")
        node.flap("mlx5_0", cause="Cable unplugged")
        prometheus.wait_for("infiniband_link_flap_last_timestamp_seconds > 0")
        with JobsProcess(
            tmp_path / "service",
            triton.url,
            f"sqlite:///{tmp_path}/service/jobs.sqlite",
            *("--prometheus-url", prometheus.url),
        ) as jobs:
            flap = b"gpu-1 kernel: mlx5_core 0000:5c:00.0 ens1np0: Link down, Port module event"
            jobs.fail("train-2", LOG, node="gpu-2")
            jobs.wait_stored(1)
            assert flap not in jobs.text_at_rest(), "it is another node's"
            told = jobs.fail("train-1", LOG, node="gpu-1").json()
            jobs.wait_stored(2)
            # What a model of random weights makes of it is chance; that it reads it is not.
            assert flap in jobs.text_at_rest()
            again = jobs.fail("train-1", LOG, node="gpu-1")
            assert again.json()["result_id"] == told["result_id"], "the same log is known again"

            prometheus.kill()
            assert "result_id" in jobs.fail("train-3", LOG, node="gpu-1").json()
