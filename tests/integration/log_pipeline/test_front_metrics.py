"""The text front's cache: told on Triton's /metrics, bounded, and empty after every change."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from clients import LogAnomalyClient
from embedded_triton import EmbeddedServer
from export.gate import Ascent
from export.version_folder import version_folders

# A front that was asked just before tells its counters up to so much later.
_LATE_SECONDS = 0.4
TEXT = "machine check interrupt: L2 dcache unit read return parity error"


def metric(server: EmbeddedServer, name: str, **labels: str) -> float:
    """Sum over the front's instances; 0 where there is no such series."""
    time.sleep(_LATE_SECONDS)
    page = httpx.get(f"http://{server.metrics_url}/metrics", trust_env=False).text
    total = 0.0
    for line in page.splitlines():
        found = re.match(rf"{name}{{(.*)}} (\S+)$", line)
        if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
            total += float(found[2])
    return total


def rows(server: EmbeddedServer, by: str, version: str = "1") -> float:
    name = "presage_text_rows_total"
    return metric(server, name, model="log_anomaly", by=by, version=version)


@pytest.fixture
def client(own_triton: EmbeddedServer) -> LogAnomalyClient:
    return LogAnomalyClient(f"grpc://{own_triton.grpc_url}")


def test_rows_tokens_and_cache_are_told(
    own_triton: EmbeddedServer, client: LogAnomalyClient
) -> None:
    before = {by: rows(own_triton, by) for by in ("classifier", "cache", "repeat")}
    client.classify([f"error {number} on core {number}" for number in range(1, 11)])
    assert rows(own_triton, "classifier") - before["classifier"] == 1
    assert rows(own_triton, "repeat") - before["repeat"] == 9
    # Every instance learns the line once; with three of them a fourth call is a hit for certain.
    for _ in range(6):
        client.classify(["error 5 on core 5"])
    assert rows(own_triton, "cache") > before["cache"]
    assert rows(own_triton, "classifier") - before["classifier"] <= 3
    entries = metric(own_triton, "presage_text_cache_entries", model="log_anomaly")
    assert 1 <= entries <= rows(own_triton, "classifier")
    client.classify(["a", "much longer line than the one before, so that it is padded"])
    assert metric(own_triton, "presage_text_tokens_total", kind="padding") > 0
    assert metric(own_triton, "presage_text_tokens_total", kind="text") > 0
    assert 0 < metric(own_triton, "presage_text_padding_ratio") < 3
    assert metric(own_triton, "presage_text_cache_hit_ratio") > 0


def test_another_version_starts_with_an_empty_cache(
    own_triton: EmbeddedServer, client: LogAnomalyClient, ascents: tuple[Ascent, Ascent]
) -> None:
    (before,) = client.classify([TEXT])
    stage_second(ascents[1], own_triton.settings.repository)
    own_triton.load("log_anomaly_classifier")
    own_triton.load("log_anomaly")
    (after,) = client.classify([TEXT])
    assert abs(after.score - before.score) > 1e-3
    assert after.threshold == pytest.approx(
        ascents[1].candidate.artifact.manifest.thresholds["anomaly"]
    )
    assert rows(own_triton, "cache", version="2") == 0


def test_a_new_threshold_empties_the_cache_and_decides_anew(
    own_triton: EmbeddedServer, client: LogAnomalyClient
) -> None:
    (before,) = client.classify([TEXT])
    file = own_triton.settings.repository / "log_anomaly/1/manifest.json"
    manifest = json.loads(file.read_text())
    flipped = before.score / 2 if before.label == "normal" else (1 + before.score) / 2
    manifest["thresholds"]["anomaly"] = flipped
    file.write_text(json.dumps(manifest))
    own_triton.unload("log_anomaly")
    own_triton.load("log_anomaly")
    assert metric(own_triton, "presage_text_cache_entries", model="log_anomaly") == 0
    (after,) = client.classify([TEXT])
    assert after.label != before.label
    assert rows(own_triton, "classifier") >= 1


def test_the_manifest_carries_the_masking_rules(client: LogAnomalyClient) -> None:
    masking = client.describe()["masking"]
    assert masking[0]["type"] == "BertNormalizer"
    replaced = [step["content"] for step in masking if step["type"] == "Replace"]
    assert "<num>" in replaced
    assert all("Regex" in step["pattern"] for step in masking if step["type"] == "Replace")


def stage_second(ascent: Ascent, repository: Path) -> None:
    """Version 2 beside version 1."""
    for model in version_folders(ascent.candidate):
        folder = repository / model.triton_name / "2"
        folder.mkdir()
        model.write(folder)
