"""A flap on a node's tree: collector → exporter → Prometheus (by http_sd) → Alertmanager."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.endpoints import Webhook, wait_until
from tests.fixtures.exporter_process import COLLECTORS, CmdbDiscovery, ScriptExporter
from tests.fixtures.node_tree import NodeTree
from tests.fixtures.prometheus_stack import Alertmanager, Prometheus

RELABELLED = [
    {"source_labels": ["__meta_cmdb_collectors"], "regex": ".*,infiniband,.*", "action": "keep"},
    {"source_labels": ["__meta_cmdb_name"], "target_label": "instance"},
    {"source_labels": ["__meta_cmdb_cards"], "regex": ",([^,]+),.*", "target_label": "card"},
    {"source_labels": ["__meta_cmdb_tag_env"], "target_label": "env"},
]
HOSTS = [
    {"hostname": "gpu-1", "ip": "127.0.0.1", "card": "NVIDIA A800-SXM4-80GB", "tags": ["env=prod"]},
    {"hostname": "npu-1", "ip": "127.0.0.2", "card": "Ascend 910B3", "tags": ["env=prod"]},
    {"hostname": "web-1", "ip": "127.0.0.3", "card": "", "tags": []},
]


class Site:
    """One node with its exporter, the CMDB's discovery, Prometheus and Alertmanager."""

    def __init__(self, folder: Path, root: Path, stack: contextlib.ExitStack) -> None:
        self.node = NodeTree(folder / "node")
        self.node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0", link_layer="Ethernet")
        self.node.add_port("mlx5_1", pci="0000:86:00.0", netdev="ens2np0", link_layer="Ethernet")
        collectors = ("infiniband", "nic", "gpu_events")
        flags = ["--root", str(self.node.root)]
        self.exporter = ScriptExporter(
            folder / "exporter",
            {name: {"script_path": str(COLLECTORS / f"{name}.py"), "args": flags} for name in collectors},  # noqa: E501
        )  # fmt: skip
        stack.enter_context(self.exporter)
        self.cmdb_file = folder / "hosts.json"
        self.cmdb_file.write_text(json.dumps({"data": {"items": HOSTS}}))
        settings = {
            "cmdb": {
                "file": str(self.cmdb_file),
                "hosts": "data.items",
                "fields": {"name": "hostname", "address": "ip", "cards": "card", "tags": "tags"},
                "interval": 0.5,
            },
            "assignments": [
                {"match": {"cards": ["A800", "A100"]}, "run": list(collectors)},
                {"match": {"cards": ["910B"]}, "run": ["npu_optical"]},
            ],
        }
        self.discovery = stack.enter_context(
            CmdbDiscovery(folder / "discovery", settings, self.exporter.port)
        )
        self.webhook = stack.enter_context(Webhook())
        alertmanager = Alertmanager(folder / "alertmanager", self.webhook.url)
        stack.enter_context(alertmanager)
        found = {"url": self.discovery.url + "/sd", "refresh_interval": "1s"}
        self.prometheus = Prometheus(
            folder / "prometheus",
            scrape={
                "script_exporter": {"http_sd_configs": [found], "relabel_configs": RELABELLED},
                "cmdb_discovery": self.discovery.target,
            },
            rules=[root / "deploy/prometheus/rules/script_exporter.yml"],
            alertmanager=alertmanager.target,
        )
        stack.enter_context(self.prometheus)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository_root: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("site"), repository_root, stack)


def test_nodes_are_found_by_card_and_relabelled(site: Site) -> None:
    (up,) = site.prometheus.wait_for('up{job="script_exporter"} == 1')
    assert up["metric"] == {
        "__name__": "up",
        "job": "script_exporter",
        "instance": "gpu-1",
        "card": "A800",
        "env": "prod",
    }
    site.prometheus.wait_for('cmdb_discovery_hosts{state="assigned"} == 2')
    assert site.prometheus.query('cmdb_discovery_requests_total{result="ok"}')


def test_a_flap_is_told_with_device_and_cause(site: Site) -> None:
    site.prometheus.wait_for("count_over_time(node_infiniband_link_downed_total[1m]) > 2")
    assert not site.webhook.alerts()
    site.node.flap("mlx5_0", cause="Cable error, High Temperature")
    alert = site.webhook.wait_for("InfinibandLinkFlap")
    assert alert["labels"]["instance"] == "gpu-1"
    assert alert["labels"]["device"] == "mlx5_0"
    assert alert["labels"]["card"] == "A800"
    site.prometheus.wait_for('infiniband_link_flaps_total{device="mlx5_0"} == 1')
    for words in ("gpu-1: the link of mlx5_0 port 1 went down", "(cause: high_temperature)"):
        assert words in alert["annotations"]["summary"]
    assert "high_temperature" in alert["annotations"]["summary_zh"]
    assert not site.webhook.alerts("NicLinkFlap"), "the port's interface is no second alert"
    assert not site.webhook.alerts("InfinibandLinkFlap", device="mlx5_1")


def test_a_card_that_falls_off_the_bus_is_told_at_its_first_event(site: Site) -> None:
    site.node.log("NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.")
    alert = site.webhook.wait_for("GpuXidFatal")
    assert alert["labels"]["action"] == "reboot_node"
    assert "Xid 79: The GPU has fallen off the PCIe bus" in alert["annotations"]["summary"]
    assert "掉卡" in alert["annotations"]["summary_zh"]


def test_targets_outlive_the_cmdb_and_the_discovery(site: Site) -> None:
    site.cmdb_file.rename(site.cmdb_file.with_suffix(".gone"))
    series = 'cmdb_discovery_requests_total{result="unreachable"}'
    wait_until(lambda: site.discovery.metric(series) >= 2)
    assert len(site.discovery.get("/sd").json()) == 2
    assert site.discovery.metric("cmdb_discovery_answer_age_seconds") > 0

    # Started again while the CMDB is away: by the answer that it kept.
    site.discovery.stop()
    site.discovery.start()
    assert len(site.discovery.get("/sd").json()) == 2
    assert site.prometheus.value('up{job="script_exporter"}') == 1

    # An empty CMDB is a fault of the CMDB, not the end of all nodes.
    site.cmdb_file.write_text('{"data": {"items": []}}')
    series = 'cmdb_discovery_requests_total{result="shrunk"}'
    wait_until(lambda: site.discovery.metric(series) >= 1)
    assert len(site.discovery.get("/sd").json()) == 2
    assert site.prometheus.value('up{job="script_exporter"}') == 1
