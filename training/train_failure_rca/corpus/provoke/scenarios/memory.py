"""Host memory that ran out: limits of the process, of its cgroup, and what the kernel says then."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_OOM = "OOM"
_CGROUP = (
    'mkdir "$JOB_CGROUP" && echo {0}M > "$JOB_CGROUP/memory.limit_in_bytes";'
    ' echo $$ > "$JOB_CGROUP/cgroup.procs"'
)
# Back to where it came from, so that the empty group can be removed.
_LEAVE = 'echo $$ > "$JOB_CGROUP/../cgroup.procs"'
_KERNEL = (
    _LEAVE + '\ndmesg | tail -n 400 | grep -A1 "oom_memcg=/$(basename $JOB_CGROUP)," | tail -n 2'
)
# The whole report; nothing else runs out of memory at that moment.
_KERNEL_REPORT = (
    _LEAVE + "\ndmesg | tac | awk '{print} /invoked oom-killer/ {exit}' | tac | grep -v ' total_'"
)

SCENARIOS = (
    python(
        "bytearray-limit",
        "memory-error",
        {_OOM: r"^MemoryError"},
        """
        import resource
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
        start("plain")
        say("loading the corpus into memory")
        corpus = [bytearray(64 << 20) for _ in range(20)]
        """,
        style="plain",
    ),
    python(
        "list-grows",
        "memory-error",
        {_OOM: r"^MemoryError"},
        """
        import resource
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
        start("bracket")
        say("deduplicating documents")
        seen = set()
        for index in range(10**9):
            seen.add(f"document-{index}")
        """,
        script="dedup.py",
    ),
    python(
        "numpy-allocate",
        "numpy-array-memory",
        {_OOM: r"_ArrayMemoryError: Unable to allocate .* for an array with shape"},
        """
        import resource
        import numpy as np
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        start("logging")
        say("building the similarity matrix")
        similarity = np.ones((40_000, 40_000), np.float32)
        """,
    ),
    python(
        "pandas-read",
        "numpy-array-memory",
        {_OOM: r"(MemoryError|Unable to allocate|out of memory)"},
        """
        import resource
        import numpy as np
        import pandas as pd
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        start("zh")
        frame = pd.DataFrame(np.zeros((100, 8)))
        say("展开样本表")
        frame = frame.loc[np.zeros(400_000_000, np.int8)]
        """,
    ),
    python(
        "torch-default-allocator",
        "cannot-allocate-memory",
        {_OOM: r"DefaultCPUAllocator: (can't allocate memory|not enough memory)"},
        """
        import resource
        import torch
        from joblog import start, steps
        start("tqdm")
        steps(3)
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        attention = torch.zeros(64, 16, 4096, 4096)
        """,
    ),
    python(
        "torch-load-memory",
        "cannot-allocate-memory",
        {_OOM: r"DefaultCPUAllocator: (can't allocate memory|not enough memory)"},
        """
        import resource
        import torch
        from joblog import start, say
        start("json")
        torch.save(torch.zeros(30_000_000), "optimizer.pt")
        resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0])
                                                * 4096 + (100 << 20),) * 2)
        say("loading optimizer.pt")
        torch.load("optimizer.pt")
        """,
    ),
    python(
        "mmap-memory",
        "cannot-allocate-memory",
        {_OOM: r"OSError: \[Errno 12\] Cannot allocate memory"},
        """
        import mmap
        import resource
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))
        start("plain")
        say("reserving the host offload buffer")
        mmap.mmap(-1, 2 << 30)
        """,
    ),
    python(
        "fork-memory",
        "cannot-allocate-memory",
        {_OOM: r"OSError: \[Errno 12\] Cannot allocate memory"},
        """
        import os
        import resource
        import subprocess
        from joblog import start, say
        start("megatron")
        buffer = bytearray(64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (110 << 20, 110 << 20))
        import mmap
        pieces = [mmap.mmap(-1, 4 << 20) for _ in range(100)]
        """,
    ),
    shell(
        "std-bad-alloc",
        "bad-alloc",
        {_OOM: r"what\(\):\s+std::bad_alloc"},
        """
        cat > index.cc <<'C'
        #include <cstdio>
        #include <vector>
        int main() {
          std::printf("building the shuffle index\\n"); std::fflush(stdout);
          std::vector<std::vector<char>> parts;
          for (int i = 0; i < 1000; i++) parts.emplace_back(16u << 20, 1);
        }
        C
        g++ index.cc -o build_index
        ulimit -v 200000
        ./build_index
        code=$?; echo "build_index exited with $code"; exit $code
        """.replace("        ", ""),
        needs=("gcc",),
    ),
    shell(
        "bash-fork-memory",
        "cannot-allocate-memory",
        {_OOM: r"(cannot allocate|xmalloc|Cannot allocate memory)"},
        """
        echo "[merge] joining shards"
        ulimit -v 60000
        data=$(head -c 200000000 /dev/zero | tr '\\0' 'x')
        """,
    ),
    shell(
        "compiler-memory",
        "cannot-allocate-memory",
        {_OOM: r"(out of memory allocating|virtual memory exhausted|Cannot allocate memory)"},
        """
        set -e
        (echo '#include <vector>'; for i in $(seq 400); do
          echo "template std::vector<char[$i]>::vector(std::vector<char[$i]> const&);"
        done) > ops.cc
        echo "[1/3] c++ -c ops.cc -o ops.o"
        ulimit -v 90000
        g++ -O2 -c ops.cc -o ops.o
        """,
        needs=("gcc",),
    ),
    shell(
        "cgroup-killed-shell",
        "cgroup-oom-kill",
        {_OOM: (r"Killed", r"Memory cgroup out of memory: Killed process")},
        """
        echo "[launch] python train.py"
        python train.py
        code=$?
        echo "[launch] train.py exited with $code"
        exit $code
        """,
        files={
            "train.py": """
            from joblog import start, steps
            start("plain"); steps(3)
            samples = [bytearray(b"1" * (4 << 20)) for _ in range(100)]
            """
        },
        prepare=_CGROUP.format(100),
        epilogue=_KERNEL,
        needs=("cgroup",),
    ),
    python(
        "cgroup-exit-137",
        "cgroup-oom-kill",
        {_OOM: r"Memory cgroup out of memory: Killed process"},
        """
        from joblog import start, steps
        start("zh"); steps(4)
        cache = {}
        for index in range(10_000):
            cache[index] = bytearray(b"1" * (1 << 20))
        """,
        prepare=_CGROUP.format(80),
        epilogue=_KERNEL + '\necho "container exited with code $code"',
        needs=("cgroup",),
    ),
    python(
        "cgroup-worker",
        "cgroup-oom-kill",
        {
            _OOM: r"Memory cgroup out of memory: Killed process",
            "DataLoader_Stuck": r"DataLoader worker \(pid.* (is killed by signal: Killed|exited)",
        },
        """
        from torch.utils.data import DataLoader, Dataset
        from joblog import start, steps

        class Decoded(Dataset):
            kept = []

            def __len__(self):
                return 4000

            def __getitem__(self, index):
                self.kept.append(bytearray(b"1" * (2 << 20)))
                return index

        start("bracket")
        for batch in DataLoader(Decoded(), batch_size=4, num_workers=1):
            steps(1)
        """,
        prepare=_CGROUP.format(420),
        epilogue=_KERNEL,
        needs=("cgroup",),
    ),
    ranks(
        "cgroup-rank",
        "cgroup-oom-kill",
        {
            _OOM: r"Memory cgroup out of memory: Killed process",
            "Network_Timeout": r"Connection (closed|reset) by peer",
        },
        """
        import torch
        import torch.distributed as dist
        from joblog import start, steps
        dist.init_process_group("gloo")
        start("bracket")
        steps(2)
        if dist.get_rank() == 1:
            buffers = [bytearray(b"1" * (8 << 20)) for _ in range(400)]
        dist.all_reduce(torch.ones(4))
        """,
        prepare=_CGROUP.format(1000),
        epilogue=_KERNEL,
        needs=("cgroup",),
    ),
    python(
        "pool-worker-memory",
        "memory-error",
        {_OOM: r"^MemoryError"},
        """
        import multiprocessing
        import resource
        from joblog import start, say

        def tokenise(shard):
            resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
            return len(bytearray(2 << 30))

        if __name__ == "__main__":
            start("plain")
            say("tokenising with 2 processes")
            with multiprocessing.Pool(2) as pool:
                print(pool.map(tokenise, range(4)))
        """,
    ),
    python(
        "thread-start",
        "thread-start",
        {_OOM: r"(can't start new thread|Cannot allocate memory|MemoryError)"},
        """
        import resource
        import threading
        import time
        from joblog import start, say
        resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
        start("logging")
        say("starting prefetch threads")
        for index in range(200):
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        """,
    ),
)
