"""Access refused: modes, read-only mounts, forbidden operations, 401 and 403."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_DENIED = "Permission_Denied"
# A file of somebody else's; the program runs without the privileges of root.
_READ_ONLY = (
    "mkdir -p {0} && mount -t tmpfs tmpfs {0} && echo 1 > {0}/shard.bin && mount -o remount,ro {0}"
)
SERVER = """
import http.server, json, sys, threading

def serve(status, body=b"denied", headers=()):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
"""

SCENARIOS = (
    python(
        "open-data",
        "permission-denied",
        {_DENIED: r"PermissionError: \[Errno 13\] Permission denied: 'data/train.bin'"},
        """
        import os
        import numpy as np
        from joblog import start, say
        os.makedirs("data")
        np.zeros(10, np.uint16).tofile("data/train.bin")
        os.chmod("data/train.bin", 0o000)
        start("plain")
        say("mapping data/train.bin")
        np.memmap("data/train.bin", dtype=np.uint16, mode="r")
        """,
        needs=("namespaces",),
    ),
    python(
        "save-checkpoint",
        "permission-denied",
        {_DENIED: r"(Permission denied|open file failed with strerror)"},
        """
        import torch
        from joblog import start, steps
        start("bracket")
        steps(5)
        torch.save({"step": 500}, "ckpts/ckpt_500.pt")
        """,
        prepare="mkdir ckpts && chown 65534 ckpts && chmod 755 ckpts",
        needs=("namespaces",),
    ),
    python(
        "makedirs",
        "permission-denied",
        {_DENIED: r"PermissionError: \[Errno 13\] Permission denied: '/opt/results'"},
        """
        import os
        from joblog import start, steps
        start("zh")
        steps(3)
        os.makedirs("/opt/results/exp7")
        """,
        prepare="mount -t tmpfs -o mode=755,uid=65534 tmpfs /opt",
        needs=("namespaces",),
    ),
    python(
        "hf-cache",
        "permission-denied",
        {_DENIED: r"PermissionError: \[Errno 13\] Permission denied: .*shared_cache"},
        """
        import os
        os.environ["HF_HOME"] = "shared_cache"
        from transformers import BertConfig, BertModel
        model = BertModel(BertConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1))
        print("saving to the shared cache")
        model.save_pretrained("shared_cache/models--team--bert")
        """,
        prepare="mkdir shared_cache && chown 65534 shared_cache && chmod 755 shared_cache",
        needs=("namespaces",),
    ),
    ranks(
        "rank-log-file",
        "permission-denied",
        {
            _DENIED: r"PermissionError: \[Errno 13\] Permission denied: .*logs/rank1.log",
            "Network_Timeout": r"Connection closed by peer",
        },
        """
        import logging
        import torch
        import torch.distributed as dist
        dist.init_process_group("gloo")
        logging.basicConfig(filename=f"logs/rank{dist.get_rank()}.log")
        dist.all_reduce(torch.ones(4))
        """,
        prepare="mkdir logs && touch logs/rank1.log && chown 65534 logs/rank1.log"
        " && chmod 644 logs/rank1.log",
        needs=("namespaces",),
    ),
    python(
        "read-only-checkpoint",
        "read-only",
        {_DENIED: r"OSError: \[Errno 30\] Read-only file system: 'shared/index.lock'"},
        """
        from joblog import start, say
        start("json")
        say("building the index cache in shared")
        open("shared/index.lock", "w")
        """,
        prepare=_READ_ONLY.format("shared"),
        needs=("namespaces",),
    ),
    shell(
        "read-only-cp",
        "read-only",
        {_DENIED: r"cp: cannot create regular file 'dataset/.*': Read-only file system"},
        """
        set -e
        echo "[stage] copying preprocessed shards back"
        echo data > shard_0001.bin
        cp shard_0001.bin dataset/shard_0001.bin
        """,
        prepare=_READ_ONLY.format("dataset"),
        needs=("namespaces",),
    ),
    shell(
        "coreutils-denied",
        "permission-denied",
        {_DENIED: r"mkdir: cannot create directory .*: Permission denied"},
        """
        set -e
        echo "[init] output folder: results/exp12"
        mkdir results/exp12
        python train.py
        """,
        prepare="mkdir results && chown 65534 results && chmod 755 results",
        needs=("namespaces",),
    ),
    shell(
        "script-not-executable",
        "permission-denied",
        {_DENIED: r"run.sh: line 3: ./launch.sh: Permission denied"},
        """
        set -e
        printf 'echo started\\n' > launch.sh
        ./launch.sh
        """,
    ),
    shell(
        "redirect-denied",
        "permission-denied",
        {_DENIED: r"train.log: Permission denied"},
        """
        set -e
        echo "launching, output in train.log"
        python -c 'print(1)' > train.log
        """,
        prepare="touch train.log && chown 65534 train.log && chmod 644 train.log",
        needs=("namespaces",),
    ),
    shell(
        "chown-not-permitted",
        "operation-not-permitted",
        {_DENIED: r"chown: changing ownership of 'workdir': Operation not permitted"},
        """
        set -e
        mkdir workdir
        chown 1000:1000 workdir
        python train.py
        """,
        needs=("namespaces",),
    ),
    python(
        "set-affinity",
        "operation-not-permitted",
        {_DENIED: r"PermissionError: \[Errno 1\] Operation not permitted"},
        """
        import os
        from joblog import start, say
        start("logging")
        say("raising the priority of the loader")
        os.nice(-10)
        """,
        needs=("namespaces",),
    ),
    shell(
        "mount-denied",
        "permission-denied",
        {_DENIED: r"mount: .*: (must be superuser to use mount|permission denied)"},
        """
        set -e
        mkdir cache
        echo "[init] mounting the shard cache"
        mount -t tmpfs -o size=1g tmpfs cache
        """,
        needs=("namespaces",),
    ),
    python(
        "socket-port-80",
        "permission-denied",
        {_DENIED: r"PermissionError: \[Errno 13\] Permission denied"},
        """
        import http.server
        from joblog import start, say
        start("plain")
        say("metrics endpoint on port 80")
        http.server.HTTPServer(("127.0.0.1", 80), http.server.SimpleHTTPRequestHandler)
        """,
        needs=("namespaces",),
        prepare="echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
    ),
    python(
        "requests-403",
        "http-403",
        {_DENIED: r"requests.exceptions.HTTPError: 403 Client Error: Forbidden for url"},
        """
        import requests
        from fake import serve
        from joblog import start, say
        start("bracket")
        url = serve(403) + "/buckets/pile/shard-0001.tar"
        say(f"fetching {url}")
        requests.get(url, timeout=5).raise_for_status()
        """,
        files={"fake.py": SERVER},
    ),
    python(
        "requests-401",
        "http-401",
        {_DENIED: r"requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url"},
        """
        import requests
        from fake import serve
        from joblog import start, say
        start("zh")
        url = serve(401) + "/api/datasets/sft-v3"
        say("下载数据集 sft-v3")
        requests.get(url, timeout=5).raise_for_status()
        """,
        files={"fake.py": SERVER},
    ),
    python(
        "urllib-403",
        "http-403",
        {_DENIED: r"urllib.error.HTTPError: HTTP Error 403: Forbidden"},
        """
        import torch
        from fake import serve
        from joblog import start
        start("plain")
        torch.hub.load_state_dict_from_url(serve(403) + "/resnet50-0676ba61.pth", progress=False)
        """,
        files={"fake.py": SERVER},
    ),
    python(
        "httpx-401",
        "http-401",
        {_DENIED: r"httpx.HTTPStatusError: Client error '401 Unauthorized' for url"},
        """
        import httpx
        from fake import serve
        from joblog import start, say
        start("json")
        httpx.get(serve(401) + "/v2/artifacts/llama-7b").raise_for_status()
        """,
        files={"fake.py": SERVER},
    ),
    python(
        "hub-gated",
        "hub-gated",
        {_DENIED: r"(Cannot access gated repo|Access to model .* is restricted)"},
        """
        import os
        from fake import serve
        os.environ["HF_ENDPOINT"] = serve(403, headers=[("X-Error-Code", "GatedRepo"),
            ("X-Error-Message", "Access to model team/llama-8b is restricted.")])
        from transformers import AutoConfig
        AutoConfig.from_pretrained("team/llama-8b", token="hf_x")
        """,
        files={"fake.py": SERVER},
    ),
    python(
        "hub-repository-401",
        "http-401",
        {_DENIED: r"401 Client Error"},
        """
        import os
        from fake import serve
        os.environ["HF_ENDPOINT"] = serve(401)
        from huggingface_hub import snapshot_download
        print("fetching team/private-model")
        snapshot_download("team/private-model")
        """,
        files={"fake.py": SERVER},
    ),
    shell(
        "curl-403",
        "http-403",
        {_DENIED: r"curl: \(22\) The requested URL returned error: 403"},
        """
        set -e
        python -c 'import fake, time; print(fake.serve(403), flush=True); time.sleep(20)' > url &
        while [ ! -s url ]; do sleep 0.1; done
        echo "[data] fetching vocab.json"
        curl -fsSL "$(cat url)/vocab.json" -o vocab.json
        """,
        files={"fake.py": SERVER},
    ),
    shell(
        "wget-401",
        "wget-authentication",
        {_DENIED: r"(401 Unauthorized|Username/Password Authentication Failed)"},
        """
        set -e
        python -c 'import fake, time; print(fake.serve(401), flush=True); time.sleep(20)' > url &
        while [ ! -s url ]; do sleep 0.1; done
        wget -nv "$(cat url)/corpus.tar.gz"
        """,
        files={"fake.py": SERVER},
    ),
)
