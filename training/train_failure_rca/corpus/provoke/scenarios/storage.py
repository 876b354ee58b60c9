"""Disks that are full and quotas that are used up.

Full disks are real: tmpfs mounts of a few hundred KiB. Quotas are not, where the kernel offers none:
a library preloaded into the program lets write(2) below ``quota/`` fail with EDQUOT after so many
bytes; what the program then prints is its own.
"""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import SHIMMED_OUTPUT, python, ranks, shell

_FULL = "Disk_Full"
_QUOTA = "Storage_Quota"
_TINY = "mkdir -p {0} && mount -t tmpfs -o size={1}k tmpfs {0}"
_INODES = "mkdir -p {0} && mount -t tmpfs -o size=4m,nr_inodes=12 tmpfs {0}"
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#define LIMIT 40000
static long used;
static int counted(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return strstr(path, "/quota/") != 0;
}
static int over(int fd, long size) {
  if (!counted(fd)) return 0;
  if (used + size <= LIMIT) { used += size; return 0; }
  errno = EDQUOT;
  return 1;
}
ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  return over(fd, size) ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
  static ssize_t (*real)(int, const struct iovec *, int);
  if (!real) real = dlsym(RTLD_NEXT, "writev");
  long size = 0;
  for (int i = 0; i < n; i++) size += v[i].iov_len;
  return over(fd, size) ? -1 : real(fd, v, n);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
  static size_t (*real)(const void *, size_t, size_t, FILE *);
  if (!real) real = dlsym(RTLD_NEXT, "fwrite");
  return over(fileno(file), size * n) ? 0 : real(data, size, n, file);
}
size_t fwrite_unlocked(const void *data, size_t size, size_t n, FILE *file) {
  return fwrite(data, size, n, file);
}
ssize_t copy_file_range(int in, off_t *a, int out, off_t *b, size_t size, unsigned flags) {
  errno = EXDEV;
  return -1;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
  errno = EINVAL;
  return -1;
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t size) {
  errno = EINVAL;
  return -1;
}
int mkdir(const char *path, mode_t mode) {
  static int (*real)(const char *, mode_t);
  if (!real) real = dlsym(RTLD_NEXT, "mkdir");
  if (strstr(path, "quota/full")) { errno = EDQUOT; return -1; }
  return real(path, mode);
}
int fallocate(int fd, int mode, off_t offset, off_t size) {
  if (over(fd, size)) return -1;
  errno = EOPNOTSUPP;
  return -1;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return over(fd, size) ? EDQUOT : 0; }
int posix_fallocate64(int fd, off_t offset, off_t size) { return over(fd, size) ? EDQUOT : 0; }
"""
_QUOTA_RUN = """
gcc -shared -fPIC -O0 -w shim.c -o .shim.so -ldl || exit 3
mkdir -p quota; export LD_PRELOAD=$PWD/.shim.so
"""


def _quota(name: str, family: str, pattern: str, code: str, run: str, **more: object):  # noqa: ANN202
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
        "errno-28",
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
        "safetensors-enospc",
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
        "errno-28",
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
        "errno-28",
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
        "errno-28",
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
        "errno-28",
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
        "tempfile-full",
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
        "errno-28",
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
        "coreutils-enospc",
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
        "tar-enospc",
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
        "coreutils-enospc",
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
        "compiler-enospc",
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
        "errno-28",
        {_FULL: r"ERROR: Could not install packages due to an OSError: \[Errno 28\] No space left"},
        """
        mkdir wheels
        python - <<'PY'
        import zipfile
        with zipfile.ZipFile("wheels/bigkernels-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("bigkernels/data.bin", b"0" * 3_000_000)
            info = "bigkernels-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: bigkernels\\nVersion: 1.0\\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
            archive.writestr(f"{info}/RECORD", "")
        PY
        TMPDIR=$PWD/site python -m pip install --no-index --find-links wheels --target site bigkernels
        """.replace("        ", ""),
        prepare=_TINY.format("site", 1000),
        needs=("namespaces",),
    ),
    ranks(
        "rank-zero-saves-full",
        "errno-28",
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
    _quota(
        "torch-save-quota",
        "errno-122",
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
        "errno-122",
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
        "errno-122",
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
        "errno-122",
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
        "safetensors-edquot",
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
        "coreutils-edquot",
        r"mkdir: cannot create directory .quota/full.: Disk quota exceeded",
        "",
        "echo '[init] run folder quota/full'\nmkdir quota/full && python train.py\n",
    ),
    _quota(
        "dd-quota",
        "coreutils-edquot",
        r"dd: error writing .quota/swap.img.: Disk quota exceeded",
        "",
        "echo '[init] offload file'\ndd if=/dev/zero of=quota/swap.img bs=16k count=9\n",
    ),
    _quota(
        "cp-quota",
        "coreutils-edquot",
        r"cp: error (writing|copying) .*Disk quota exceeded",
        "",
        "head -c 90000 /dev/zero > model.bin\necho '[sync] model.bin'\ncp model.bin quota/\n",
    ),
    _quota(
        "tar-quota",
        "tar-edquot",
        r"tar: .*Disk quota exceeded",
        "",
        "head -c 90000 /dev/urandom > shard.bin\necho '[sync] packing shards'\n"
        "tar cf quota/shards.tar shard.bin\n",
    ),
    _quota(
        "cat-quota",
        "coreutils-edquot",
        r"cat: write error: Disk quota exceeded",
        "",
        "head -c 90000 /dev/zero > part.bin\necho '[merge] joining parts'\n"
        "cat part.bin part.bin > quota/model.bin\n",
    ),
    _quota(
        "log-handler-quota",
        "errno-122",
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
