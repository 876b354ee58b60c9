"""Services that do not answer: HTTP, DNS, TLS, RPC, all of them thrown away on loopback."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, shell
from training.train_failure_rca.corpus.provoke.scenarios.permissions import SERVER

_NET = "Network_Timeout"
_SLOW = """
import socket, threading

def slow():
    # Accepts, reads, never answers.
    server = socket.create_server(("127.0.0.1", 0), backlog=16)
    kept = []

    def run():
        while True:
            kept.append(server.accept()[0])

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"

def half(body=b"x" * 100, promised=5000):
    # Promises more than it sends.
    server = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            peer, _ = server.accept()
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % promised + body)
            peer.close()

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"
"""
_FAKE = {"fake.py": SERVER, "slow.py": _SLOW}

SCENARIOS = (
    python(
        "requests-refused",
        "connection-refused",
        {_NET: r"requests.exceptions.ConnectionError: .*Connection refused"},
        """
        import requests
        from joblog import start, say
        start("plain")
        say("registering with the tracking server")
        requests.post("http://127.0.0.1:5000/api/2.0/runs/create", json={}, timeout=3)
        """,
    ),
    python(
        "requests-read-timeout",
        "http-read-timeout",
        {_NET: r"requests.exceptions.ReadTimeout: .*Read timed out"},
        """
        import requests
        from slow import slow
        from joblog import start, steps
        start("hf")
        steps(3)
        requests.get(slow() + "/datasets/pile/0001", timeout=2)
        """,
        files=_FAKE,
    ),
    python(
        "requests-retries",
        "connection-refused",
        {_NET: r"Max retries exceeded with url"},
        """
        import logging
        import requests
        from urllib3.util import Retry
        logging.basicConfig(level=logging.WARNING)
        session = requests.Session()
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=Retry(3)))
        session.get("http://127.0.0.1:8081/healthz", timeout=2)
        """,
    ),
    python(
        "requests-503",
        "http-5xx",
        {_NET: r"requests.exceptions.HTTPError: 503 Server Error: Service Unavailable"},
        """
        import requests
        from fake import serve
        from joblog import start, say
        start("bracket")
        url = serve(503) + "/v1/shards"
        say(f"listing shards from {url}")
        requests.get(url, timeout=3).raise_for_status()
        """,
        files=_FAKE,
    ),
    python(
        "httpx-504",
        "http-5xx",
        {_NET: r"httpx.HTTPStatusError: Server error '504 Gateway Timeout'"},
        """
        import httpx
        from fake import serve
        from joblog import start, steps
        start("zh")
        steps(2)
        httpx.get(serve(504) + "/reward/score").raise_for_status()
        """,
        files=_FAKE,
        script="ppo_train.py",
    ),
    python(
        "httpx-timeout",
        "http-read-timeout",
        {_NET: r"httpx.ReadTimeout: timed out"},
        """
        import httpx
        from slow import slow
        from joblog import start, steps
        start("logging")
        steps(2)
        httpx.get(slow() + "/reward/score", timeout=1.5)
        """,
        files=_FAKE,
    ),
    python(
        "httpx-refused",
        "connection-refused",
        {_NET: r"httpx.ConnectError: \[Errno 111\] Connection refused"},
        """
        import httpx
        from joblog import start, steps
        start("json")
        steps(2)
        httpx.post("http://127.0.0.1:8100/v1/completions", json={"prompt": "a"})
        """,
    ),
    python(
        "aiohttp-refused",
        "connection-refused",
        {_NET: r"Cannot connect to host 127.0.0.1:9100"},
        """
        import asyncio
        import aiohttp
        from joblog import start, say

        async def fetch():
            async with aiohttp.ClientSession() as session:
                async with session.get("http://127.0.0.1:9100/shard/7") as answer:
                    return await answer.read()

        start("plain")
        say("streaming shards from the cache service")
        asyncio.run(fetch())
        """,
    ),
    python(
        "aiohttp-disconnected",
        "server-disconnected",
        {_NET: r"aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected"},
        """
        import asyncio
        import aiohttp
        from joblog import start, steps

        async def hang_up(reader, writer):
            await reader.read(10)
            writer.close()

        async def main():
            server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            async with aiohttp.ClientSession() as session:
                await session.post(f"http://127.0.0.1:{port}/generate", json={})

        start("tqdm")
        steps(2)
        asyncio.run(main())
        """,
        script="rollout.py",
    ),
    python(
        "urllib-refused",
        "connection-refused",
        {_NET: r"urllib.error.URLError: <urlopen error \[Errno 111\] Connection refused>"},
        """
        import torch
        from joblog import start
        start("plain")
        torch.hub.load_state_dict_from_url("http://127.0.0.1:8000/resnet18-f37072fd.pth")
        """,
    ),
    python(
        "urllib-dns",
        "name-resolution",
        {_NET: r"urllib.error.URLError: <urlopen error \[Errno -[23]\] "},
        """
        import torch
        from joblog import start
        start("plain")
        torch.hub.load_state_dict_from_url("https://download.weights.internal/resnet18.pth")
        """,
        needs=("namespaces",),
    ),
    python(
        "requests-dns",
        "name-resolution",
        {_NET: r"(NameResolutionError|Failed to resolve)"},
        """
        import requests
        from joblog import start, say
        start("json")
        say("downloading the tokenizer")
        requests.get("https://mirror.train.internal/tokenizer.json", timeout=3)
        """,
        needs=("namespaces",),
    ),
    python(
        "hub-offline",
        "hub-unreachable",
        {_NET: r"(We couldn't connect to|Failed to resolve|name resolution)"},
        """
        from transformers import AutoConfig
        print("loading team/llama-7b")
        AutoConfig.from_pretrained("team/llama-7b")
        """,
        needs=("namespaces",),
    ),
    python(
        "hub-endpoint-refused",
        "hub-unreachable",
        {_NET: r"(We couldn't connect to|Connection refused)"},
        """
        import os
        os.environ["HF_ENDPOINT"] = "http://127.0.0.1:8090"
        from transformers import AutoConfig
        AutoConfig.from_pretrained("team/sft-base")
        """,
    ),
    python(
        "chunked-incomplete",
        "incomplete-read",
        {_NET: r"(IncompleteRead\(100 bytes read, 4900 more expected\))"},
        """
        import requests
        from slow import half
        from joblog import start, say
        start("bracket")
        say("downloading part 3 of 12")
        requests.get(half() + "/part-003.parquet", timeout=3)
        """,
        files=_FAKE,
    ),
    python(
        "grpc-unavailable",
        "grpc-unavailable",
        {_NET: r"status = StatusCode.UNAVAILABLE"},
        """
        import grpc
        from joblog import start, say
        start("logging")
        say("connecting to the parameter service")
        channel = grpc.insecure_channel("127.0.0.1:50051")
        call = channel.unary_unary("/params.Store/Pull")
        call(b"step 100", timeout=5)
        """,
    ),
    python(
        "grpc-deadline",
        "grpc-deadline",
        {_NET: r"StatusCode.DEADLINE_EXCEEDED"},
        """
        import grpc
        from slow import slow
        from joblog import start, steps
        start("megatron")
        steps(2)
        channel = grpc.insecure_channel(slow().removeprefix("http://"))
        channel.unary_unary("/data.Loader/Next")(b"", timeout=2, wait_for_ready=True)
        """,
        files=_FAKE,
    ),
    python(
        "zmq-timeout",
        "zmq-timeout",
        {_NET: r"zmq.error.Again: Resource temporarily unavailable"},
        """
        import zmq
        from joblog import start, say
        start("plain")
        say("waiting for the rollout workers on tcp://127.0.0.1:5557")
        socket = zmq.Context().socket(zmq.REQ)
        socket.setsockopt(zmq.RCVTIMEO, 1500)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect("tcp://127.0.0.1:5557")
        socket.send(b"ready")
        socket.recv()
        """,
    ),
    shell(
        "curl-refused",
        "failed-to-connect",
        {_NET: r"curl: \(7\) Failed to connect to 127.0.0.1 port 8000"},
        """
        set -e
        echo "[init] fetching the job spec"
        curl -fsS http://127.0.0.1:8000/jobs/71.json -o job.json
        """,
    ),
    shell(
        "curl-timeout",
        "curl-timeout",
        {_NET: r"curl: \(28\) Operation timed out after"},
        """
        python -c 'import slow, time; print(slow.slow(), flush=True); time.sleep(20)' > url &
        while [ ! -s url ]; do sleep 0.1; done
        echo "[data] pulling shard list"
        curl -sS --max-time 2 "$(cat url)/shards.txt"
        """,
        files=_FAKE,
    ),
    shell(
        "curl-dns",
        "curl-dns",
        {_NET: r"curl: \(6\) Could not resolve host: objects.train.internal"},
        """
        set -e
        curl -fsS https://objects.train.internal/pile/index.json -o index.json
        """,
        needs=("namespaces",),
    ),
    shell(
        "git-clone",
        "failed-to-connect",
        {_NET: r"fatal: unable to (access|connect|look up)"},
        """
        set -e
        echo "[init] cloning the training code"
        git clone http://127.0.0.1:3000/team/train.git code
        """,
    ),
    shell(
        "ssh-refused",
        "connection-refused",
        {_NET: r"ssh: connect to host 127.0.0.1 port 2222: Connection refused"},
        """
        set -e
        echo "[launch] starting workers over ssh"
        ssh -o BatchMode=yes -o StrictHostKeyChecking=no -p 2222 127.0.0.1 hostname
        """,
        needs=("namespaces",),
    ),
    shell(
        "pip-index-refused",
        "connection-refused",
        {
            _NET: r"Retrying .*Connection refused",
            "Image_Env_Error": r"ERROR: No matching distribution found for einops==0.8.0",
        },
        """
        unset PIP_NO_INDEX
        echo "[setup] installing requirements"
        python -m pip install --retries 2 --timeout 2 --index-url http://127.0.0.1:3141/simple \\
          --target site einops==0.8.0
        """,
    ),
    shell(
        "bash-tcp-refused",
        "connection-refused",
        {_NET: r"(connect: Connection refused|/dev/tcp/127.0.0.1/29500: Connection refused)"},
        """
        set -e
        echo "[wait] is the master up?"
        exec 3<>/dev/tcp/127.0.0.1/29500
        """,
    ),
)
