"""The bundled scripts, each run as it is on a node, on a fake tree and a recorded kernel log."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from script_exporter.exposition import parse
from tests.fixtures.node_tree import NodeTree

COLLECTORS = Path(__file__).parents[3] / "script_exporter/collectors"
SCRIPTS = sorted(
    file.name
    for file in COLLECTORS.glob("*.py")
    if file.name not in ("metric_text.py", "kernel_log.py")
)


@pytest.fixture
def node(tmp_path: Path) -> NodeTree:
    return NodeTree(tmp_path / "root")


def run(script: str, node: NodeTree, *words: object) -> subprocess.CompletedProcess[str]:
    """From another folder, without the environment of the tests."""
    return subprocess.run(
        [
            sys.executable,
            "-S",
            str(COLLECTORS / script),
            "--root",
            str(node.root),
            *map(str, words),
        ],
        capture_output=True,
        text=True,
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
        timeout=60,
    )


def series(script: str, node: NodeTree, *words: object) -> dict[tuple[str, ...], float]:
    """(name, label values…) → value, of output that the exporter takes."""
    result = run(script, node, *words)
    assert result.returncode == 0, result.stderr
    parse(result.stdout.encode(), series_limit=1000)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(result.stdout)
        for sample in family.samples
    }


def test_ports_are_told_in_node_exporters_names(node: NodeTree) -> None:
    node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0", link_layer="Ethernet")
    node.add_port("mlx5_1", pci="0000:86:00.0")
    node.write("sys/class/infiniband/mlx5_1/ports/1/state", "1: DOWN\n")
    node.write("sys/class/infiniband/mlx5_1/ports/1/counters/symbol_error", "junk\n")
    found = series("infiniband.py", node)
    assert found["node_infiniband_state_id", "mlx5_0", "1"] == 4
    assert found["node_infiniband_state_id", "mlx5_1", "1"] == 1
    assert found["node_infiniband_physical_state_id", "mlx5_0", "1"] == 5
    assert found["node_infiniband_rate_bytes_per_second", "mlx5_0", "1"] == 25e9
    assert found["node_infiniband_link_downed_total", "mlx5_0", "1"] == 0
    assert found["node_infiniband_link_error_recovery_total", "mlx5_0", "1"] == 0
    assert ("node_infiniband_symbol_error_total", "mlx5_1", "1") not in found
    info = ("infiniband_port_info", "mlx5_0", "1", "0000:5c:00.0", "ens1np0", "Ethernet")
    assert found[info] == 1


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("Cable unplugged", "cable_unplugged"),
        ("Cable error, High Temperature", "high_temperature"),
        ("Cable error, Bad or shorted cable/module", "bad_cable"),
        ("Cable error, Unknown identifier", "cable_error"),
        ("", "unknown"),
    ],
)
def test_a_flap_has_the_cause_that_the_driver_gave(node: NodeTree, said: str, cause: str) -> None:
    node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0")
    node.flap("mlx5_0", cause=said, seconds_ago=30)
    found = series("infiniband.py", node)
    labels = ("mlx5_0", "0000:5c:00.0", "ens1np0", cause)
    assert found["infiniband_link_flaps_total", *labels] == 1
    newest = found["infiniband_link_flap_last_timestamp_seconds", *labels]
    assert newest == pytest.approx(time.time() - 30, abs=5)
    assert found["node_infiniband_link_downed_total", "mlx5_0", "1"] == 1
    assert len([key for key in found if key[0] == "infiniband_link_flaps_total"]) == 1


def test_causes_of_other_cards_and_other_hours_are_not_taken(node: NodeTree) -> None:
    node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0")
    node.add_port("mlx5_1", pci="0000:86:00.0", netdev="ens2np0")
    node.log(
        "mlx5_core 0000:5c:00.0: poll_health:825:(pid 0): device's health compromised",
        seconds_ago=9000,
    )
    node.log(
        "mlx5_core 0000:86:00.0: mlx5_pcie_event:299:(pid 1): "
        "Detected insufficient power on the PCIe slot (27W).",
        seconds_ago=60,
    )
    node.flap("mlx5_0", seconds_ago=59)
    found = {
        key[1:]: value
        for key, value in series("infiniband.py", node).items()
        if key[0] == "infiniband_link_flaps_total"
    }
    assert found == {
        ("mlx5_0", "0000:5c:00.0", "ens1np0", "unknown"): 1,
        ("mlx5_0", "0000:5c:00.0", "ens1np0", "firmware"): 1,
    }, "too little power at a slot is a cause, but no flap by itself"


def test_a_card_of_infiniband_proper_says_only_why(node: NodeTree) -> None:
    node.add_port("mlx5_0", pci="0000:5c:00.0")
    node.log("mlx5_core 0000:5c:00.0: Port module event: module 0, Cable unplugged")
    node.log("mlx5_core 0000:5c:00.0: Port module event: module 0, Cable plugged")
    node.log(
        "mlx5_port_module_event:1131:(pid 0): "
        "Port module event[error]: module 1, Cable error, High Temperature"
    )
    found = series("infiniband.py", node)
    assert (
        found["infiniband_link_flaps_total", "mlx5_0", "0000:5c:00.0", "", "cable_unplugged"] == 1
    )
    assert found["infiniband_link_flaps_total", "", "", "", "high_temperature"] == 1


def test_a_port_without_a_cable_does_not_flap_at_boot(node: NodeTree) -> None:
    node.add_port("mlx5_0", pci="0000:5c:00.0")
    line = "mlx5_core 0000:5c:00.0: Port module event: module 1, Cable unplugged"
    node.log(line, seconds_ago=86_400 - 3)
    assert not [key for key in series("infiniband.py", node) if "flap" in key[0]]


def test_counts_outlive_the_kernel_log_but_not_the_boot(node: NodeTree, tmp_path: Path) -> None:
    state = ("--state", tmp_path / "state")
    node.add_port("mlx5_0", pci="0000:5c:00.0", netdev="ens1np0")
    labels = ("infiniband_link_flaps_total", "mlx5_0", "0000:5c:00.0", "ens1np0", "unknown")
    node.flap("mlx5_0", seconds_ago=50)
    assert series("infiniband.py", node, *state)[labels] == 1
    assert series("infiniband.py", node, *state)[labels] == 1, "the same line counts once"
    node.flap("mlx5_0", seconds_ago=20)
    assert series("infiniband.py", node, *state)[labels] == 2
    node.write("dev/kmsg", "")
    assert series("infiniband.py", node, *state)[labels] == 2, "the ring has gone on"
    node.flap("mlx5_0", seconds_ago=1)
    assert series("infiniband.py", node, *state)[labels] == 3
    assert series("infiniband.py", node)[labels] == 1, "without a state: what the log holds"
    node.write("proc/sys/kernel/random/boot_id", "another\n")
    assert series("infiniband.py", node, *state)[labels] == 1


def test_a_state_file_that_is_broken_is_started_anew(node: NodeTree, tmp_path: Path) -> None:
    node.log("NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.")
    for text in (
        "",
        "[]",
        '{"boot": 1}',
        "\x00",
        json.dumps({"boot": 1, "events": 3, "marks": []}),
    ):
        (tmp_path / "gpu_events.json").write_text(text)
        result = run("gpu_events.py", node, "--state", tmp_path)
        assert result.returncode == 0
        assert result.stdout.count("gpu_xid_events_total{") == 1


@pytest.mark.parametrize(
    "log",
    [
        "6,77,{micros},-;{line}\n SUBSYSTEM=pci\n",
        "[{uptime:.6f}] {line}\n",
        "<4>[{uptime:.6f}] {line}\n",
        "[{dated}] {line}\n",
        "{syslog} gpu-1 kernel: [{uptime:.6f}] {line}\n",
        "{iso} gpu-1 kernel: {line}\n",
    ],
)
def test_every_format_of_a_kernel_log_is_read(node: NodeTree, log: str) -> None:
    when = time.time() - 100
    uptime = when - int(node.booted)
    local = time.localtime(when)
    text = log.format(
        line="NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.",
        micros=int(uptime * 1e6),
        uptime=uptime,
        dated=time.strftime("%a %b %e %H:%M:%S %Y", local),
        syslog=time.strftime("%b %e %H:%M:%S", local),
        iso=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(when)),
    )
    (node.root / "dev/kmsg").unlink()
    node.write("var/log/dmesg", "some line without a stamp\n" + text)
    found = series("gpu_events.py", node)
    (newest,) = [
        value for key, value in found.items() if key[0] == "gpu_xid_last_timestamp_seconds"
    ]
    assert newest == pytest.approx(when, abs=2)


def test_xids_have_their_meaning(node: NodeTree) -> None:
    node.log(
        "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:AF:00.0): 48, pid=811, name=python, DBE (double bit error) occurred",
        "NVRM: Xid (0000:03:00): 31, Ch 00000010, intr 10000000. MMU Fault",
        "NVRM: Xid (PCI:0000:3b:00): 999, something new",
        "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
        "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Data {0x50610002, 0x10100030}",
        "python: Xid 79 was mentioned",
    )
    found = series("gpu_events.py", node)
    told = {key[1:4]: key[4:] for key in found if key[0] == "gpu_xid_events_total"}
    assert told["0000:3b:00", "79", "fatal"] == (
        *("hardware", "reboot_node", "The GPU has fallen off the PCIe bus"),
        "GPU 掉卡（从 PCIe 总线脱离）",
    )
    assert told["0000:03:00", "31", "error"][0] == "application"
    assert told["0000:3b:00", "999", "error"][:2] == ("unknown", "look_up")
    assert told["nvidia-nvswitch3", "S20034", "fatal"][0] == "link"
    assert len(told) == 5
    assert found["gpu_ecc_events_total", "0000:af:00", "uncorrected"] == 1
    assert {value for key, value in found.items() if key[0].endswith("events_total")} == {1}


def test_the_catalogue_is_whole() -> None:
    lines = (COLLECTORS / "xid_catalogue.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert len({row[0] for row in rows}) == len(rows)
    for row in rows:
        assert len(row) == 7
        assert row[1] in {"fatal", "error", "warning", "info"}
        assert row[2] in {"hardware", "link", "driver", "application"}
        assert all(row[3:])
        assert any("\u4e00" <= letter <= "\u9fff" for letter in row[6])
    # What the diagnosis of jobs calls a fault of the hardware must not be the application's here.
    origin = {row[0]: row[2] for row in rows}
    for xid in ("48", "63", "64", "74", "79", "92", "94", "95", "119", "120"):
        assert origin[xid] != "application"
    assert {origin[xid] for xid in ("13", "31", "43")} == {"application"}


def test_ecc_counters_of_gpus_and_of_the_hosts_memory(node: NodeTree) -> None:
    rows = "00000000:3B:00.0, 3, 0\\n00000000:AF:00.0, [N/A], [N/A]\\n"
    node.add_program("usr/bin/nvidia-smi", f"printf '{rows}'")
    node.write("sys/devices/system/edac/mc/mc0/ce_count", "7\n")
    node.write("sys/devices/system/edac/mc/mc0/ue_count", "1\n")
    found = series("gpu_events.py", node)
    assert found["gpu_ecc_errors_total", "0000:3b:00", "corrected"] == 3
    assert found["gpu_ecc_errors_total", "0000:3b:00", "uncorrected"] == 0
    assert not [key for key in found if "0000:af:00" in key]
    assert found["node_edac_correctable_errors_total", "0"] == 7
    assert found["node_edac_uncorrectable_errors_total", "0"] == 1


def test_an_nvidia_smi_that_fails_costs_only_its_own_series(node: NodeTree) -> None:
    node.add_program("usr/bin/nvidia-smi", "echo Unable to determine the device handle; exit 15")
    node.log("NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.")
    result = run("gpu_events.py", node)
    assert result.returncode == 0
    assert "gpu_xid_events_total{" in result.stdout
    assert "nvidia-smi" in result.stderr


def test_carriers_of_physical_cards(node: NodeTree) -> None:
    node.add_interface("ens1np0", pci="0000:5c:00.0")
    node.add_interface("docker0")
    node.write("sys/class/net/ens1np0/carrier_down_count", "4\n")
    node.write("sys/class/net/ens1np0/operstate", "down\n")
    node.write("sys/class/net/bonding_masters", "\n")
    (node.root / "sys/class/net/ens1np0/carrier").unlink()
    (node.root / "sys/devices/pci0000:5b/0000:5c:00.0").mkdir(parents=True)
    found = series("nic.py", node)
    assert found["node_network_carrier_down_changes_total", "ens1np0"] == 4
    assert found["node_network_carrier_changes_total", "ens1np0"] == 2
    assert found["node_network_up", "ens1np0"] == 0
    assert found["node_network_speed_bytes", "ens1np0"] == 25e9
    assert ("node_network_carrier", "ens1np0") not in found, "the kernel refuses to tell it"
    assert {key[1] for key in found} == {"ens1np0"}
    assert {key[1] for key in series("nic.py", node, "--all")} == {"ens1np0", "docker0"}


HCCN = r"""
case "$2 $3" in
"0 -link") echo "link status: UP" ;;
"0 -link_stat") printf '%s\n' \
    "[device 0]current time        : Wed Jun  7 10:08:28 2023" \
    "[device 0]link up count       : 2" \
    "[device 0]link down count     : 1" \
    "[device 0]link change records :" \
    "[device 0]    Wed Jun  7 10:07:30 2023    LINK UP" \
    "[device 0]    Wed Jun  7 10:07:28 2023    LINK DOWN" \
    "[device 0]    Tue Jun  6 16:31:55 2023    LINK UP" ;;
"0 -optical") printf '%s\n' "optical info:" \
    "present              : present" "Vendor Name : X" "temperature          : 45 C" \
    "Vcc                  : 3288.10 mV" "Tx Power0            : 1.2035 mW" \
    "Rx Power0            : 1.0189 mW" "TxPower High Thres   : 3.5481 mW" \
    "RxPower Low Thres    : 0.1445 mW" "Temp High Thres      : 70 C" \
    "Tx Los Flag          : 0x0" "Rx Los Flag          : 0xff" "..." ;;
"1 -link") echo "link status: DOWN" ;;
"1 -optical") echo "present : not present" ;;
*) echo "[ERROR] hccn_tool: operation failed"; exit 1 ;;
esac
"""


def test_links_and_modules_of_npus(node: NodeTree) -> None:
    node.add_program("usr/local/Ascend/driver/tools/hccn_tool", HCCN)
    for name in ("davinci0", "davinci1", "davinci_manager"):
        node.write(f"dev/{name}", "")
    result = run("npu_optical.py", node)
    assert "NPU 1: hccn_tool -link_stat: [ERROR]" in result.stderr
    found = series("npu_optical.py", node)
    assert found["npu_link_up", "0"] == 1
    assert found["npu_link_up", "1"] == 0
    assert found["npu_link_down_changes_total", "0"] == 1
    assert found["npu_link_up_changes_total", "0"] == 2
    assert found["npu_link_last_outage_seconds", "0"] == 2
    newest = found["npu_link_last_down_timestamp_seconds", "0"]
    assert newest == pytest.approx(time.time() - 60, abs=5), "by the device's own clock"
    assert found["npu_optical_present", "0"] == 1
    assert found["npu_optical_present", "1"] == 0
    assert found["npu_optical_loss_of_signal", "0", "rx"] == 1
    assert found["npu_optical_loss_of_signal", "0", "tx"] == 0
    assert found["npu_optical_power_milliwatts", "0", "tx", "0"] == 1.2035
    assert found["npu_optical_power_high_milliwatts", "0", "tx"] == 3.5481
    assert found["npu_optical_power_low_milliwatts", "0", "rx"] == 0.1445
    assert found["npu_optical_temperature_celsius", "0"] == 45
    assert found["npu_optical_voltage_volts", "0"] == 3.2881


def test_a_host_without_npus_is_a_failure(node: NodeTree) -> None:
    assert run("npu_optical.py", node).returncode == 1
    node.add_program("usr/local/Ascend/driver/tools/hccn_tool", "exit 1")
    assert run("npu_optical.py", node).returncode == 1, "no NPU answers"


def test_a_process_is_stuck_when_it_hung_before_too(node: NodeTree, tmp_path: Path) -> None:
    flags = ("--state", tmp_path / "state", "--seconds", "0.2")
    node.add_process(10, "python3) D (x", state="D", switches=7, where="rpc_wait_bit_killable")
    node.add_process(11, "dd", state="D", switches=100)
    node.add_process(12, "bash")
    found = series("stuck_processes.py", node, *flags)
    assert found["node_processes_state", "D"] == 2
    assert found["node_processes_state", "S"] == 1
    assert found["node_stuck_processes",] == 0, "seen once is not stuck"
    time.sleep(0.3)
    node.add_process(11, "dd", state="D", switches=101)
    found = series("stuck_processes.py", node, *flags)
    assert found["node_stuck_processes",] == 1, "dd was given a CPU in between"
    labels = ("10", "python3) D (x", "rpc_wait_bit_killable")
    assert found["node_stuck_process_seconds", *labels] >= 0
    node.add_process(10, "python3) D (x", state="S")
    time.sleep(0.3)
    found = series("stuck_processes.py", node, *flags)
    assert ("node_stuck_process_seconds", *labels) not in found


def test_stuck_processes_of_this_machine() -> None:
    """Of real /proc: only that it can be read."""
    result = subprocess.run(
        [sys.executable, str(COLLECTORS / "stuck_processes.py")], capture_output=True, timeout=60
    )
    assert result.returncode == 0
    parse(result.stdout, series_limit=1000)
    assert b'node_processes_state{state="' in result.stdout


QUOTAS = {
    "code": "0000",
    "data": [
        {"clu_name": "train28", "group_name": "cog8", "size_used": 960, "size_sum": 1000},
        {"clu_name": "train28", "group_name": "", "size_used": 5, "size_sum": 0},
        {"group_name": "视觉", "size_used": "1", "size_sum": "4", "use_rate": "25%"},
    ],
}


def test_quotas_from_the_answer_of_the_api(node: NodeTree, tmp_path: Path) -> None:
    file = tmp_path / "quota.json"
    file.write_text(json.dumps(QUOTAS))
    found = series("storage_quota.py", node, "--file", file, "--cluster", "train9")
    assert found["quota_group_use_ratio", "train28", "cog8"] == 0.96
    assert found["quota_group_use_ratio", "train9", "视觉"] == 0.25
    assert found["quota_group_used_bytes", "train28", "cog8"] == 960
    assert ("quota_group_use_ratio", "train28", "unknown") not in found, "no quota, no share"
    percent = series("storage_quota.py", node, "--file", file, "--unit", "percent")
    assert percent["quota_group_use_ratio", "train28", "cog8"] == 96


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "<html>", '{"code": "9999", "data": []}', '{"data": [{"size_used": 1}]}'],
)
def test_an_api_that_fails_is_no_zero(node: NodeTree, tmp_path: Path, answer: str) -> None:
    file = tmp_path / "quota.json"
    file.write_text(answer)
    result = run("storage_quota.py", node, "--file", file)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_quotas_of_lustre_and_of_repquota(node: NodeTree) -> None:
    node.add_program(
        "usr/bin/lfs",
        'echo "/lustre/very/long\n  1048576*  0  2097152  -  12  0  0  -"; [ "$4" = cog8 ]',
    )
    words = ("--lustre", "/lustre", "--groups", "cog8", "--cluster", "t")
    found = series("storage_quota.py", node, *words)
    assert found["quota_group_use_ratio", "t", "cog8"] == 0.5
    assert found["quota_group_limit_bytes", "t", "cog8"] == 2097152 * 1024
    assert run("storage_quota.py", node, *words[:3], "other").returncode == 1
    node.add_program(
        "usr/sbin/repquota",
        'printf "*** Report\\nGroup used soft hard\\n-----\\nroot -- 20 0 0 2 0 0\\n'
        'cog8 +- 900 1000 0 7days 3 0 0\\n"',
    )
    found = series("storage_quota.py", node, "--repquota", "/data", "--cluster", "t")
    assert found["quota_group_use_ratio", "t", "cog8"] == 0.9
    assert ("quota_group_use_ratio", "t", "root") not in found


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bare_tree_breaks_no_script(node: NodeTree, script: str) -> None:
    for file in (node.root / "dev/kmsg", node.root / "proc/stat"):
        file.unlink()
    words = ("--file", "/no/such") if script == "storage_quota.py" else ()
    result = run(script, node, *words)
    assert "Traceback" not in result.stderr
    parse(result.stdout.encode(), series_limit=10)


@pytest.mark.parametrize("file", sorted(COLLECTORS.glob("*.py")), ids=lambda file: file.name)
def test_old_pythons_can_read_the_scripts(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    own = {file.stem for file in COLLECTORS.glob("*.py")}
    assert imported <= set(sys.stdlib_module_names) | own
