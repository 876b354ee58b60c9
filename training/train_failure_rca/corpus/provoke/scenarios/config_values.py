"""Configuration that is read and wrong: paths, hyperparameters, batch and world sizes."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_CONFIG = "Config_Error"
SCENARIOS = (
    python(
        "data-path",
        "no-such-file",
        {_CONFIG: r"FileNotFoundError: .*: '/data/corpus/train.jsonl'"},
        """
        from joblog import start, say
        start("json")
        say("dataset: /data/corpus/train.jsonl")
        rows = open("/data/corpus/train.jsonl").readlines()
        """,
    ),
    python(
        "image-folder",
        "no-such-file",
        {_CONFIG: r"FileNotFoundError: .*: '/datasets/imagenet/"},
        """
        import os
        from joblog import start, say
        start("bracket", name="resnet50")
        classes = sorted(os.listdir("/datasets/imagenet/train"))
        """,
    ),
    python(
        "pandas-csv",
        "no-such-file",
        {_CONFIG: r"FileNotFoundError: .*labels_v2.csv"},
        """
        import pandas as pd
        from joblog import start, say
        start("zh")
        say("读取标注文件 labels_v2.csv")
        frame = pd.read_csv("labels_v2.csv")
        """,
    ),
    python(
        "dataset-empty",
        "empty-dataset",
        {_CONFIG: r"ValueError: num_samples should be a positive integer value"},
        """
        import glob
        from torch.utils.data import DataLoader
        from joblog import start, say
        start("plain")
        files = glob.glob("/data/shards/*.tar")
        say(f"found {len(files)} shards in /data/shards")
        DataLoader(files, batch_size=8, shuffle=True)
        """,
    ),
    python(
        "loader-options",
        "loader-options",
        {_CONFIG: r"ValueError: prefetch_factor option could only be specified in multiprocessing"},
        """
        from torch.utils.data import DataLoader
        from joblog import start
        start("plain")
        DataLoader(range(10), num_workers=0, prefetch_factor=4)
        """,
    ),
    python(
        "negative-lr",
        "hyperparameter-range",
        {_CONFIG: r"ValueError: Invalid learning rate: -0.001"},
        """
        import torch
        from joblog import start
        start("plain")
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=-1e-3)
        """,
    ),
    python(
        "one-cycle-steps",
        "scheduler-steps",
        {_CONFIG: r"ValueError: Tried to step 101 times"},
        """
        import torch
        from joblog import start, steps
        start("hf")
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=100)
        for step in range(120):
            optimizer.step()
            schedule.step()
            if step % 20 == 0:
                steps(1)
        """,
    ),
    python(
        "dropout-range",
        "hyperparameter-range",
        {_CONFIG: r"ValueError: dropout probability has to be between 0 and 1, but got 10"},
        """
        from torch import nn
        from joblog import start
        start("zh")
        nn.Dropout(10)
        """,
    ),
    ranks(
        "batch-not-divisible",
        "batch-arithmetic",
        {_CONFIG: r"AssertionError: global batch size \(30\) is not divisible by"},
        """
        import torch.distributed as dist
        from joblog import start, say
        dist.init_process_group("gloo")
        start("megatron")
        world, micro, total = dist.get_world_size(), 4, 30
        say(f"using world size: {world}, data-parallel size: {world}, micro batch: {micro}")
        assert total % (micro * world) == 0, (
            f"global batch size ({total}) is not divisible by micro batch size ({micro})"
            f" times data parallel size ({world})"
        )
        """,
    ),
    ranks(
        "tensor-parallel-world",
        "world-arithmetic",
        {_CONFIG: r"world_size \(2\) is not divisible by tensor_model_parallel_size \(4\)"},
        """
        import torch.distributed as dist
        from joblog import start, say
        dist.init_process_group("gloo")
        start("plain")
        world, tensor, pipeline = dist.get_world_size(), 4, 1
        if world % (tensor * pipeline):
            raise RuntimeError(
                f"world_size ({world}) is not divisible by tensor_model_parallel_size ({tensor})"
                f" x pipeline_model_parallel_size ({pipeline})"
            )
        """,
    ),
    ranks(
        "device-mesh-shape",
        "world-arithmetic-mesh",
        {_CONFIG: r"(Mesh should not be bigger than default world size|world size)"},
        """
        import torch.distributed as dist
        from torch.distributed.device_mesh import init_device_mesh
        from joblog import start, say
        dist.init_process_group("gloo")
        start("bracket")
        init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        """,
    ),
    python(
        "unknown-backend",
        "unknown-backend",
        {_CONFIG: r"AssertionError: Unknown backend type ncll"},
        """
        import torch.distributed as dist
        from joblog import start
        start("plain")
        dist.init_process_group("ncll", init_method="tcp://127.0.0.1:29500", rank=0, world_size=1)
        """,
    ),
    shell(
        "torchrun-nproc",
        "launcher-flag",
        {_CONFIG: r"Unsupported nproc_per_node value: two"},
        """
        python -m torch.distributed.run --nproc-per-node two train.py
        """,
    ),
    shell(
        "bash-unset-variable",
        "shell-unset-variable",
        {_CONFIG: r"run.sh: line 4: NUM_GPUS: unbound variable"},
        """
        #!/bin/bash
        set -eu
        echo "[launch] nodes: 1"
        echo "[launch] gpus per node: $NUM_GPUS"
        python train.py
        """,
    ),
    shell(
        "script-path",
        "no-such-file",
        {_CONFIG: r"can't open file '.*/scripts/pretrain.py': \[Errno 2\]"},
        """
        echo "[launch] $(date '+%F %T') starting"
        python scripts/pretrain.py --config configs/base.yaml
        """,
    ),
    shell(
        "source-env-file",
        "no-such-file",
        {_CONFIG: r"conf/cluster.env: No such file or directory"},
        """
        set -e
        echo "launching experiment pretrain-7b"
        source conf/cluster.env
        python train.py
        """,
    ),
)
