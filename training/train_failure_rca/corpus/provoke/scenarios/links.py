"""Network links that go down and come up again: real interfaces of the program's own network."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, shell

_LINK = "Network_Link_Flap"
# Far ends that root takes down while the program runs.
_PAIR = (
    # /sys shows the interfaces of the network it was mounted in.
    "mount -t sysfs sysfs /sys; ip link add eth1 type veth peer name sw1"
    " && ip link set eth1 up && ip link set sw1 up"
)
_FLAP = (
    _PAIR + "; (for t in 1 1 1; do sleep 1; ip link set sw1 down; sleep 1; ip link set sw1 up;"
    " done) &"
)
_DOWN = _PAIR + "; (sleep 2; ip link set sw1 down) &"
_WATCH = """
import time
from joblog import say, start, steps
start("{0}")
changes, last = 0, None
for tick in range({2}):
    state = open("/sys/class/net/eth1/operstate").read().strip()
    if last and state != last:
        changes += 1
        say(f"{1}".format(state=state, last=last, changes=changes), "ERROR")
    last = state
    if tick % 10 == 0:
        steps(1)
    if changes >= {3}:
        raise SystemExit(1)
    time.sleep(0.1)
"""

SCENARIOS = (
    shell(
        "ip-monitor-flap",
        "interface-state",
        {_LINK: r"eth1@sw1: .*(state LOWERLAYERDOWN|state DOWN|NO-CARRIER)"},
        """
        python train.py &
        job=$!
        timeout 7 ip -o -t monitor link
        kill $job
        exit 1
        """,
        files={
            "train.py": "import time\nfrom joblog import start, steps\nstart('plain')\n"
            "for _ in range(60):\n    steps(1); time.sleep(0.5)\n"
        },
        prepare=_FLAP,
        needs=("namespaces",),
    ),
    python(
        "watcher-flap",
        "watcher-flap",
        {_LINK: r"eth1: link (lowerlayerdown|down) \(was up\)"},
        _WATCH.format("bracket", "eth1: link {state} (was {last}), change {changes}", 90, 4),
        prepare=_FLAP,
        needs=("namespaces",),
    ),
    python(
        "watcher-flap-zh",
        "watcher-flap",
        {_LINK: r"网卡 eth1 链路状态 up -> (lowerlayerdown|down)"},
        _WATCH.format("zh", "网卡 eth1 链路状态 {last} -> {state}，第 {changes} 次变化", 90, 3),
        prepare=_FLAP,
        needs=("namespaces",),
    ),
    python(
        "link-down-json",
        "link-down",
        {_LINK: r"interface eth1 went (lowerlayerdown|down)"},
        _WATCH.format("json", "interface eth1 went {state}", 60, 1),
        prepare=_DOWN,
        needs=("namespaces",),
    ),
    shell(
        "no-carrier-preflight",
        "no-carrier",
        {_LINK: r"eth1@sw1: <NO-CARRIER"},
        """
        echo "[preflight] checking the training network"
        sleep 1
        ip -br link show eth1
        ip link show eth1
        [ "$(cat /sys/class/net/eth1/carrier)" = 1 ] || { echo "[preflight] failed"; exit 1; }
        """,
        prepare=_PAIR + "; ip link set sw1 down",
        needs=("namespaces",),
    ),
    python(
        "bridge-port-down",
        "link-down",
        {
            _LINK: r"eth1: link lowerlayerdown",
            "Network_Timeout": r"(No route to host|Network is unreachable|timed out)",
        },
        """
        import socket, time
        from joblog import say, start, steps
        start("plain")
        steps(4)
        time.sleep(2.5)
        state = open("/sys/class/net/eth1/operstate").read().strip()
        say(f"eth1: link {state}")
        socket.create_connection(("10.9.0.2", 29500), timeout=4)
        """,
        prepare=_DOWN.replace("; (sleep", "; ip addr add 10.9.0.1/24 dev eth1; (sleep"),
        needs=("namespaces",),
    ),
)
