"""One cause and what follows from it: other ranks, wrappers and retries report it, too."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell
from training.train_failure_rca.corpus.provoke.scenarios.permissions import SERVER

_NET = "Network_Timeout"
_CLOSED = r"Connection (closed|reset) by peer|Timed out waiting \d+ms for (recv|send)"
_JOB = """
import datetime, json, os, sys, time
import torch
import torch.distributed as dist
from torch import nn
from joblog import say, start, steps
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=15))
rank, world = dist.get_rank(), dist.get_world_size()
start("{0}")

def fail():
{1}

for step in range(6):
    steps(1)
    if rank == {2} and step == 3:
        time.sleep(0.5)
        fail()
    dist.all_reduce(torch.ones(16))
"""


def _cascade(
    name: str,
    family: str,
    label: str,
    pattern: str,
    fail: str,
    *,
    style: str = "bracket",
    rank: int = 1,
    processes: int = 2,
    options: tuple[str, ...] = (),
    **more: object,
):
    body = "\n".join(f"    {line}" for line in fail.strip("\n").split("\n"))
    return ranks(
        name,
        family,
        {label: pattern, _NET: _CLOSED},
        _JOB.format(style, body, rank),
        processes=processes,
        options=options,
        **more,
    )


SCENARIOS = (
    _cascade(
        "cascade-index-error",
        "target-out-of-bounds",
        "Model_Code_Error",
        r"IndexError: Target \d+ is out of bounds",
        "torch.nn.functional.cross_entropy(torch.randn(2, 5), torch.tensor([1, 7]))",
        style="megatron",
    ),
    _cascade(
        "cascade-attribute-three",
        "no-attribute",
        "Model_Code_Error",
        r"AttributeError: 'Linear' object has no attribute 'wieght'",
        "nn.Linear(2, 2).wieght.sum()",
        processes=3,
        rank=2,
        style="plain",
    ),
    _cascade(
        "cascade-key-json",
        "batch-key",
        "Model_Code_Error",
        r"KeyError: 'labels'",
        "{'input_ids': 1}['labels']",
        style="json",
    ),
    _cascade(
        "cascade-module",
        "no-module",
        "Image_Env_Error",
        r"ModuleNotFoundError: No module named 'wandb_team'",
        "import wandb_team",
        rank=0,
        style="logging",
        options=("--standalone", "--tee", "3"),
    ),
    _cascade(
        "cascade-checkpoint",
        "zip-central-directory",
        "Checkpoint_Error",
        r"PytorchStreamReader failed reading zip archive",
        "torch.save(torch.zeros(9000), 'shard1.pt')\n"
        "os.truncate('shard1.pt', 3000)\ntorch.load('shard1.pt')",
        style="zh",
    ),
    _cascade(
        "cascade-config",
        "no-such-file",
        "Config_Error",
        r"FileNotFoundError: .*'/data/eval/mmlu.json'",
        "json.load(open('/data/eval/mmlu.json'))",
        style="plain",
        rank=0,
    ),
    _cascade(
        "cascade-disk",
        "no-space-left",
        "Disk_Full",
        r"OSError: \[Errno 28\] No space left on device",
        "with open('/dev/full', 'w') as file:\n    file.write('metrics' * 4000)",
        rank=0,
    ),
    _cascade(
        "cascade-memory",
        "cannot-allocate-memory",
        "OOM",
        r"DefaultCPUAllocator: (can't allocate memory|not enough memory)",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "torch.zeros(1 << 33)",
        style="plain",
    ),
    _cascade(
        "cascade-permission",
        "permission-denied",
        "Permission_Denied",
        r"PermissionError: \[Errno 13\] Permission denied: 'metrics/rank1.csv'",
        "open('metrics/rank1.csv', 'w')",
        prepare="mkdir metrics && chown 65534 metrics && chmod 755 metrics",
        needs=("namespaces",),
        style="zh",
    ),
    _cascade(
        "cascade-service",
        "http-403",
        "Permission_Denied",
        r"urllib.error.HTTPError: HTTP Error 403: Forbidden",
        "import urllib.request\nfrom fake import serve\n"
        "urllib.request.urlopen(serve(403) + '/shards/0007')",
        files={"fake.py": SERVER},
        style="bracket",
    ),
    _cascade(
        "cascade-loader-timeout",
        "worker-timeout",
        "DataLoader_Stuck",
        r"RuntimeError: DataLoader timed out after 2 seconds",
        "class Slow(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, index): time.sleep(30)\n"
        "next(iter(torch.utils.data.DataLoader(Slow(), num_workers=1, timeout=2)))",
        style="megatron",
    ),
    shell(
        "retry-then-config",
        "no-such-file",
        {
            "Config_Error": r"FileNotFoundError: .*'/data/tokenizer.json'",
        },
        """
        for attempt in 1 2 3; do
          echo "[launcher] attempt $attempt of 3"
          python train.py && exit 0
          echo "[launcher] attempt $attempt failed with $?, retrying"
        done
        echo "[launcher] giving up"
        exit 1
        """,
        files={
            "train.py": "from joblog import start, steps\nstart('plain')\n"
            "open('/data/tokenizer.json')\n"
        },
    ),
    shell(
        "missing-checkpoint-after-failed-download",
        "failed-to-connect",
        {
            _NET: r"curl: \(7\) Failed to connect",
            "Checkpoint_Error": r"FileNotFoundError: No such file or directory: "
            r"\"?base.safetensors",
        },
        """
        echo "[init] downloading the base weights"
        curl -sS http://127.0.0.1:8099/base.safetensors -o base.safetensors
        echo "[init] starting training"
        python train.py
        """,
        files={
            "train.py": """
            from safetensors.torch import load_file
            from joblog import start
            start("bracket")
            load_file("base.safetensors")
            """
        },
    ),
    shell(
        "pip-then-module",
        "pip-no-distribution",
        {
            "Image_Env_Error": (
                r"ERROR: No matching distribution found for xformers",
                r"ModuleNotFoundError: No module named 'xformers'",
            )
        },
        """
        mkdir wheels
        python -m pip install --no-index --find-links wheels --target site xformers
        echo "[launch] training"
        python -c "import xformers.ops"
        """,
    ),
    python(
        "finally-hides-nothing",
        "matmul-shapes",
        {
            "Model_Code_Error": r"RuntimeError: mat1 and mat2 shapes cannot be multiplied",
            "Disk_Full": r"OSError: \[Errno 28\] No space left on device",
        },
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("plain")
        try:
            steps(4)
            nn.Linear(8, 8)(torch.randn(2, 9))
        finally:
            with open("/dev/full", "w") as file:
                file.write("crash dump" * 2000)
        """,
    ),
)
