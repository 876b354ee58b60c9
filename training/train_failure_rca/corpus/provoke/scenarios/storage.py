"""Disks that are full: tmpfs mounts of a few hundred KiB, and /dev/full."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell
from training.train_failure_rca.corpus.provoke.scenarios._wheels import MAKE_WHEELS

_FULL = "Disk_Full"
_TINY = "mkdir -p {0} && mount -t tmpfs -o size={1}k tmpfs {0}"
_INODES = "mkdir -p {0} && mount -t tmpfs -o size=4m,nr_inodes=12 tmpfs {0}"
SCENARIOS = (
    shell(
        "torch-save-full",
        "torch-save-enospc",
        {_FULL: (r"(file write failed|unexpected pos)", r"^tmpfs .* 100% ")},
        """
        python train.py && exit 0
        echo "train.py failed; disk usage:"
        df -h output
        exit 1
        """,
        files={
            "train.py": """
            import torch
            from joblog import start, steps
            start("bracket")
            for step in range(3):
                steps(2)
                torch.save({"model": torch.randn(40_000)}, f"output/ckpt_{step}.pt")
            """
        },
        prepare=_TINY.format("output", 400),
        needs=("namespaces",),
    ),
    python(
        "python-write-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device"},
        """
        import json
        from joblog import start, steps
        start("plain")
        with open("cache/features.jsonl", "w") as file:
            for row in range(10_000):
                file.write(json.dumps({"row": row, "tokens": list(range(64))}) + "\\n")
        """,
        prepare=_TINY.format("cache", 256),
        needs=("namespaces",),
        script="tokenize_corpus.py",
    ),
    python(
        "safetensors-full",
        "no-space-left",
        {_FULL: r"No space left on device \(os error 28\)"},
        """
        import torch
        from safetensors.torch import save_file
        from joblog import start, steps
        start("hf")
        steps(4)
        save_file({"weight": torch.zeros(200_000)}, "ckpt/model.safetensors")
        """,
        prepare=_TINY.format("ckpt", 256),
        needs=("namespaces",),
    ),
    python(
        "numpy-save-full",
        "numpy-short-write",
        {_FULL: (r"requested and \d+ written", r"剩余空间 0 字节")},
        """
        import shutil
        import numpy as np
        from joblog import start, say
        start("zh")
        say("写入特征缓存 cache/features.npy")
        try:
            np.save("cache/features.npy", np.zeros(300_000))
        except OSError:
            say(f"写入失败，cache 剩余空间 {shutil.disk_usage('cache').free} 字节", "ERROR")
            raise
        """,
        prepare=_TINY.format("cache", 512),
        needs=("namespaces",),
    ),
    python(
        "shutil-copy-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device: '.*' -> '.*'|Errno 28"},
        """
        import shutil
        from joblog import start, say
        start("logging")
        open("shard.bin", "wb").write(b"0" * 800_000)
        say("staging shard.bin to node-local disk")
        shutil.copy("shard.bin", "local/shard.bin")
        """,
        prepare=_TINY.format("local", 200),
        needs=("namespaces",),
    ),
    python(
        "log-handler-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device"},
        """
        import logging
        from joblog import start, steps
        start("tqdm")
        steps(3)
        logging.basicConfig(filename="/dev/full", level=logging.INFO)
        logging.info("epoch 1 done")
        raise SystemExit(1)
        """,
    ),
    python(
        "stdout-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device"},
        """
        from joblog import start, steps
        start("json")
        steps(3)
        with open("/dev/full", "w") as metrics:
            metrics.write("step,loss\\n1,2.5\\n")
            metrics.flush()
        """,
    ),
    python(
        "sqlite-full",
        "sqlite-full",
        {_FULL: r"sqlite3.OperationalError: database or disk is full"},
        """
        import sqlite3
        from joblog import start, say
        start("plain")
        say("tracking runs in track/runs.db")
        database = sqlite3.connect("track/runs.db")
        database.execute("create table metrics (step int, payload blob)")
        for step in range(1000):
            database.execute("insert into metrics values (?, ?)", (step, b"0" * 4000))
            database.commit()
        """,
        prepare=_TINY.format("track", 300),
        needs=("namespaces",),
    ),
    python(
        "inodes-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device: 'frames/"},
        """
        from joblog import start, say
        start("bracket")
        say("extracting frames")
        for index in range(100):
            open(f"frames/{index:05d}.jpg", "w").close()
        """,
        prepare=_INODES.format("frames"),
        needs=("namespaces",),
    ),
    python(
        "tensorboard-tmp-full",
        "no-space-left",
        {_FULL: r"(No usable temporary directory|No space left on device)"},
        """
        import tempfile
        from joblog import start, steps
        start("megatron")
        steps(2)
        with tempfile.NamedTemporaryFile(dir="scratch") as file:
            for _ in range(64):
                file.write(b"0" * 65536)
                file.flush()
        """,
        prepare=_TINY.format("scratch", 512),
        needs=("namespaces",),
    ),
    python(
        "rotate-checkpoints-full",
        "no-space-left",
        {_FULL: r"OSError: \[Errno 28\] No space left on device"},
        """
        import pickle
        from joblog import start, steps
        start("plain")
        for epoch in range(1, 9):
            steps(2)
            with open(f"ckpt/epoch_{epoch}.pkl", "wb") as file:
                pickle.dump({"epoch": epoch, "weights": b"0" * 90_000}, file)
        """,
        prepare=_TINY.format("ckpt", 300),
        needs=("namespaces",),
    ),
    shell(
        "dd-full",
        "no-space-left",
        {_FULL: r"dd: error writing 'nvme/swap.img': No space left on device"},
        """
        set -e
        echo "[init] preparing the offload file"
        dd if=/dev/zero of=nvme/swap.img bs=64k count=100
        """,
        prepare=_TINY.format("nvme", 500),
        needs=("namespaces",),
    ),
    shell(
        "tar-full",
        "no-space-left",
        {_FULL: r"tar: .*: Cannot (write|mkdir|open|close): No space left on device"},
        """
        mkdir shards && for i in $(seq 30); do echo $i > shards/$i.bin; done
        tar cf shards.tar shards
        echo "[stage] unpacking shards.tar to local disk"
        tar xf shards.tar -C local
        """,
        prepare=_INODES.format("local"),
        needs=("namespaces",),
    ),
    shell(
        "cp-full",
        "no-space-left",
        {_FULL: r"cp: error (writing|copying) .*No space left on device"},
        """
        set -e
        head -c 900000 /dev/zero > model.bin
        echo "[sync] copying model.bin to local"
        cp model.bin local/
        """,
        prepare=_TINY.format("local", 200),
        needs=("namespaces",),
    ),
    shell(
        "compiler-full",
        "no-space-left",
        {_FULL: r"No space left on device"},
        """
        echo 'int main(void) { static char big[900000] = {1}; return big[0]; }' > ops.c
        echo "[build] compiling ops"
        TMPDIR=$PWD/scratch gcc -save-temps=obj ops.c -o scratch/ops
        """,
        prepare=_TINY.format("scratch", 100),
        needs=("namespaces", "gcc"),
    ),
    shell(
        "pip-target-full",
        "no-space-left",
        {_FULL: r"ERROR: Could not install packages due to an OSError: \[Errno 28\] No space left"},
        """
        mkdir wheels
        python make_wheels.py
        export TMPDIR=$PWD/site
        python -m pip install --no-index --find-links wheels --target site bigkernels
        """,
        files={
            "make_wheels.py": MAKE_WHEELS + "wheel('bigkernels', '1.0', content=b'0' * 3_000_000)\n"
        },
        prepare=_TINY.format("site", 1000),
        needs=("namespaces",),
    ),
    ranks(
        "rank-zero-saves-full",
        "no-space-left",
        {
            _FULL: r"OSError: \[Errno 28\] No space left on device",
            "Network_Timeout": r"Connection (closed|reset) by peer",
        },
        """
        import torch
        import torch.distributed as dist
        from joblog import start, steps
        dist.init_process_group("gloo")
        start("bracket")
        steps(2)
        if dist.get_rank() == 0:
            with open("output/last.pt", "wb", buffering=0) as file:
                file.write(torch.zeros(400_000).numpy().tobytes())
                torch.save({"model": torch.zeros(400_000)}, file)
        dist.barrier()
        """,
        prepare=_TINY.format("output", 400),
        needs=("namespaces",),
    ),
)
