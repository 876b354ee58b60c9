"""Ranks that do not find, hear or outlive each other (Gloo and TCPStore on loopback)."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_NET = "Network_Timeout"
_CLOSED = r"Connection (closed|reset) by peer"
_INIT = """
import datetime, os, sys, time
import torch
import torch.distributed as dist
from joblog import say, start, steps
{0}
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds={1}))
rank = dist.get_rank()
start("{2}")
steps(3)
"""

SCENARIOS = (
    python(
        "store-client-timeout",
        "store-connect-timeout",
        {_NET: r"(The client socket has timed out|client socket has failed to connect|timed out)"},
        """
        import datetime
        import torch.distributed as dist
        from joblog import start, say
        start("plain")
        say("waiting for the master at 127.0.0.1:29500")
        dist.init_process_group(
            "gloo", init_method="tcp://127.0.0.1:29500", rank=1, world_size=2,
            timeout=datetime.timedelta(seconds=3),
        )
        """,
    ),
    python(
        "store-client-timeout-zh",
        "store-connect-timeout",
        {_NET: r"(The client socket has timed out|client socket has failed to connect)"},
        """
        import datetime, os
        import torch.distributed as dist
        from joblog import start, say
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="23456", RANK="3", WORLD_SIZE="4")
        start("zh")
        say("连接主节点 127.0.0.1:23456")
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=2))
        """,
    ),
    python(
        "store-peers-missing",
        "store-clients-joined",
        {_NET: r"Timed out after \d+ seconds waiting for clients. 1/4 clients joined"},
        """
        import datetime
        import torch.distributed as dist
        from joblog import start, say
        start("bracket")
        say("init_process_group: rank 0 of 4")
        dist.init_process_group(
            "gloo", init_method="tcp://127.0.0.1:29501", rank=0, world_size=4,
            timeout=datetime.timedelta(seconds=3),
        )
        """,
    ),
    python(
        "store-key-timeout",
        "store-key-timeout",
        {_NET: r"(wait timeout after \d+ms|Timeout waiting for key|timed out)"},
        """
        import datetime
        from torch.distributed import TCPStore
        from joblog import start, say
        start("plain")
        store = TCPStore("127.0.0.1", 29502, 1, True, datetime.timedelta(seconds=2))
        say("waiting for rank 1 to publish its shard list")
        store.get("shards/rank1")
        """,
    ),
    python(
        "store-address-unresolved",
        "name-resolution",
        {_NET: r"(Temporary failure in name resolution|Name or service not known|gai error)"},
        """
        import datetime
        import torch.distributed as dist
        from joblog import start, say
        start("logging")
        say("master: train-job-master-0")
        dist.init_process_group(
            "gloo", init_method="tcp://train-job-master-0:29500", rank=1, world_size=2,
            timeout=datetime.timedelta(seconds=3),
        )
        """,
        needs=("namespaces",),
    ),
    ranks(
        "monitored-barrier",
        "monitored-barrier",
        {_NET: r"(monitoredBarrier|failed to pass monitoredBarrier|Ranks? .* failed)"},
        _INIT.format("", 20, "bracket") + "if rank == 1:\n    time.sleep(8)\n    sys.exit(0)\n"
        "dist.monitored_barrier(timeout=datetime.timedelta(seconds=2))\n",
    ),
    ranks(
        "allreduce-timeout",
        "gloo-wait-timeout",
        {_NET: r"Timed out waiting \d+ms for (recv|send) operation to complete"},
        _INIT.format("", 3, "plain")
        + "if rank == 1:\n    time.sleep(12)\ndist.all_reduce(torch.ones(1000))\n",
    ),
    ranks(
        "broadcast-timeout-json",
        "gloo-wait-timeout",
        {_NET: r"Timed out waiting \d+ms for (recv|send) operation to complete"},
        _INIT.format("", 3, "json")
        + "if rank == 0:\n    time.sleep(12)\ndist.broadcast(torch.ones(8), src=0)\n",
    ),
    ranks(
        "three-ranks-timeout",
        "gloo-wait-timeout",
        {_NET: r"Timed out waiting \d+ms for (recv|send) operation to complete"},
        _INIT.format("", 3, "zh")
        + "if rank == 2:\n    time.sleep(12)\ndist.all_reduce(torch.ones(8))\n",
        processes=3,
    ),
    ranks(
        "recv-timeout",
        "gloo-wait-timeout",
        {_NET: r"Timed out waiting \d+ms for (recv|send) operation to complete"},
        _INIT.format("", 3, "megatron")
        + "say('pipeline stage %d: waiting for activations' % rank)\n"
        "if rank == 1:\n    dist.recv(torch.ones(8), src=0)\nelse:\n    time.sleep(12)\n",
    ),
    python(
        "socket-refused",
        "connection-refused",
        {_NET: r"ConnectionRefusedError: \[Errno 111\] Connection refused"},
        """
        import socket
        from joblog import start, say
        start("bracket")
        say("connecting to parameter server 127.0.0.1:7001")
        socket.create_connection(("127.0.0.1", 7001), timeout=3)
        """,
    ),
    python(
        "manager-refused",
        "connection-refused",
        {_NET: r"ConnectionRefusedError: \[Errno 111\] Connection refused"},
        """
        from multiprocessing.managers import BaseManager
        from joblog import start, say
        start("tqdm")
        BaseManager.register("get_queue")
        manager = BaseManager(address=("127.0.0.1", 50123), authkey=b"x")
        manager.connect()
        """,
    ),
    python(
        "socket-timeout",
        "socket-timeout",
        {_NET: r"TimeoutError: timed out"},
        """
        import socket
        from joblog import start, say
        start("plain")
        server = socket.create_server(("127.0.0.1", 0))
        say("asking the shuffle service for a permutation")
        client = socket.create_connection(server.getsockname(), timeout=2)
        client.sendall(b"next epoch")
        client.recv(1024)
        """,
    ),
    python(
        "socket-reset",
        "connection-reset",
        {_NET: r"ConnectionResetError: \[Errno 104\] Connection reset by peer"},
        """
        import socket, struct, threading
        from joblog import start, steps
        start("logging")
        server = socket.create_server(("127.0.0.1", 0))

        def hang_up():
            peer, _ = server.accept()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

        client = socket.create_connection(server.getsockname())
        worker = threading.Thread(target=hang_up)
        worker.start()
        worker.join()
        steps(2)
        client.recv(1024)
        """,
    ),
    python(
        "broken-pipe",
        "broken-pipe",
        {_NET: r"BrokenPipeError: \[Errno 32\] Broken pipe"},
        """
        import socket, time
        from joblog import start, steps
        start("json")
        ours, theirs = socket.socketpair()
        steps(2)
        theirs.close()
        ours.sendall(b"gradients")
        """,
    ),
    python(
        "no-route",
        "network-unreachable",
        {_NET: r"OSError: \[Errno 101\] Network is unreachable"},
        """
        import socket
        from joblog import start, say
        start("plain")
        say("contacting the scheduler at 10.12.0.3:6379")
        socket.create_connection(("10.12.0.3", 6379), timeout=3)
        """,
        needs=("namespaces",),
    ),
    shell(
        "rdzv-timeout",
        "elastic-rendezvous",
        {_NET: r"(RendezvousTimeoutError|RendezvousConnectionError|timed out)"},
        """
        echo "[launch] node 1 of 2, rendezvous at 127.0.0.1:29400"
        python -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id job7 \\
          --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29400 \\
          --rdzv-conf timeout=3,join_timeout=4,last_call_timeout=1,is_host=1 train.py
        """,
        files={"train.py": "print('never')\n"},
    ),
    shell(
        "rdzv-refused",
        "elastic-rendezvous-connection",
        {_NET: r"RendezvousConnectionError: The connection to the C10d store has failed"},
        """
        echo "[启动] 节点 2/2，连接 rendezvous 127.0.0.1:29400"
        python -m torch.distributed.run --nnodes 2 --nproc-per-node 1 --rdzv-id job7 \\
          --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29400 \\
          --rdzv-conf timeout=3,join_timeout=3,is_host=0,read_timeout=2 train.py
        """,
        files={"train.py": "print('never')\n"},
    ),
    ranks(
        "peer-killed",
        "peer-closed",
        {_NET: _CLOSED},
        _INIT.format("import signal", 20, "bracket")
        + "if rank == 1:\n    time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)\n"
        "for _ in range(4):\n    dist.all_reduce(torch.ones(4))\n",
        root_shown=False,
    ),
    ranks(
        "peer-killed-three",
        "peer-closed",
        {_NET: _CLOSED},
        _INIT.format("import signal", 20, "plain")
        + "if rank == 2:\n    time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)\n"
        "dist.all_reduce(torch.ones(4))\n",
        processes=3,
        root_shown=False,
    ),
)
