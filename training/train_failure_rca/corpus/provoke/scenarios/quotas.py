"""Quotas that are used up.

Where the kernel offers none, a library preloaded into the program lets write(2) below ``quota/``
fail with EDQUOT after so many bytes; what the program then prints is its own.
"""

from __future__ import annotations

from pathlib import Path

from training.train_failure_rca.corpus.provoke.scenario import SHIMMED_OUTPUT, Scenario, shell

_QUOTA = "Storage_Quota"
_SHIM = Path(__file__).parent.with_name("quota_shim.c").read_text(encoding="utf-8")
_QUOTA_RUN = """
gcc -shared -fPIC -O0 -w shim.c -o .shim.so -ldl || exit 3
mkdir -p quota; export LD_PRELOAD=$PWD/.shim.so
"""


def _quota(name: str, family: str, pattern: str, code: str, run: str, **more: object) -> Scenario:
    files = {"shim.c": _SHIM}
    if code:
        files["train.py"] = code
    return shell(
        name,
        family,
        {_QUOTA: pattern},
        _QUOTA_RUN + run,
        files=files,
        needs=("gcc",),
        origin=SHIMMED_OUTPUT,
        **more,
    )


SCENARIOS = (
    _quota(
        "torch-save-quota",
        "disk-quota-exceeded",
        r"OSError: \[Errno 122\] Disk quota exceeded",
        """
        import torch
        from joblog import start, steps
        start("plain")
        steps(4)
        with open("quota/ckpt.pt", "wb", buffering=0) as file:
            torch.save({"model": torch.randn(100_000)}, file)
        """,
        "python train.py\n",
    ),
    _quota(
        "python-write-quota",
        "disk-quota-exceeded",
        r"OSError: \[Errno 122\] Disk quota exceeded",
        """
        from joblog import start, say
        start("zh")
        say("保存分词结果到 /home")
        with open("quota/tokens.bin", "wb") as file:
            for _ in range(100):
                file.write(b"0" * 4096)
        """,
        "python train.py\n",
    ),
    _quota(
        "makedirs-quota",
        "disk-quota-exceeded",
        r"OSError: \[Errno 122\] Disk quota exceeded: 'quota/full",
        """
        import os
        from joblog import start, steps
        start("json")
        steps(3)
        os.makedirs("quota/full/checkpoint-500")
        """,
        "python train.py\n",
    ),
    _quota(
        "copy-quota",
        "disk-quota-exceeded",
        r"\[Errno 122\] Disk quota exceeded",
        """
        import shutil
        from joblog import start, say
        start("logging")
        open("model.bin", "wb").write(b"0" * 90_000)
        say("exporting model.bin")
        shutil.copyfile("model.bin", "quota/model.bin")
        """,
        "python train.py\n",
    ),
    _quota(
        "safetensors-quota",
        "disk-quota-exceeded",
        r"(Quota exceeded|Disk quota exceeded) \(os error 122\)",
        """
        import torch
        from safetensors.torch import save_file
        from joblog import start, steps
        start("hf")
        steps(2)
        save_file({"w": torch.zeros(100_000)}, "quota/adapter.safetensors")
        """,
        "python train.py\n",
    ),
    _quota(
        "mkdir-quota",
        "disk-quota-exceeded",
        r"mkdir: cannot create directory .quota/full.: Disk quota exceeded",
        "",
        "echo '[init] run folder quota/full'\nmkdir quota/full && python train.py\n",
    ),
    _quota(
        "dd-quota",
        "disk-quota-exceeded",
        r"dd: error writing .quota/swap.img.: Disk quota exceeded",
        "",
        "echo '[init] offload file'\ndd if=/dev/zero of=quota/swap.img bs=16k count=9\n",
    ),
    _quota(
        "cp-quota",
        "disk-quota-exceeded",
        r"cp: error (writing|copying) .*Disk quota exceeded",
        "",
        "head -c 90000 /dev/zero > model.bin\necho '[sync] model.bin'\ncp model.bin quota/\n",
    ),
    _quota(
        "tar-quota",
        "disk-quota-exceeded",
        r"tar: .*Disk quota exceeded",
        "",
        "head -c 90000 /dev/urandom > shard.bin\necho '[sync] packing shards'\n"
        "tar cf quota/shards.tar shard.bin\n",
    ),
    _quota(
        "cat-quota",
        "disk-quota-exceeded",
        r"cat: write error: Disk quota exceeded",
        "",
        "head -c 90000 /dev/zero > part.bin\necho '[merge] joining parts'\n"
        "cat part.bin part.bin > quota/model.bin\n",
    ),
    _quota(
        "log-handler-quota",
        "disk-quota-exceeded",
        r"OSError: \[Errno 122\] Disk quota exceeded",
        """
        import logging
        import sys
        from joblog import start, steps
        start("bracket")
        steps(2)
        logging.basicConfig(filename="quota/train.log", level=logging.INFO)
        for step in range(700):
            logging.info("step %d of the run, everything as expected so far %s", step, "." * 20)
        sys.exit(1)
        """,
        "python train.py 2>&1 | tail -n 60; exit 1\n",
    ),
)
