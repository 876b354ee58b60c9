"""Loader workers that die, hang or find no shared memory."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks

_LOADER = "DataLoader_Stuck"
_DATASET = """
import os, signal, time
import torch
from torch.utils.data import DataLoader, Dataset
from joblog import start, steps

def shared_frame(index):
    from multiprocessing.shared_memory import SharedMemory
    frame = SharedMemory(create=True, size=3_000_000)
    frame.buf[:] = bytes(3_000_000)
    return index

class Clips(Dataset):
    def __len__(self):
        return 256

    def __getitem__(self, index):
        if index == 40:
            {0}
        return {1}

start({2!r})
for batch in DataLoader(Clips(), batch_size=8, num_workers={3}, timeout={4}{5}):
    steps(1)
"""


def _loader(
    name: str,
    family: str,
    pattern: str | tuple[str, ...],
    *,
    act: str = "pass",
    item: str = "index",
    style: str = "plain",
    workers: int = 2,
    timeout: int = 0,
    options: str = "",
    **more: object,
):
    code = _DATASET.format(act, item, style, workers, timeout, options)
    return python(name, family, {_LOADER: pattern}, code, **more)


_SHM = "mount -t tmpfs -o size=1m tmpfs /dev/shm"

SCENARIOS = (
    _loader(
        "worker-timeout",
        "worker-timeout",
        r"RuntimeError: DataLoader timed out after 3 seconds",
        act="time.sleep(30)",
        timeout=3,
    ),
    _loader(
        "worker-timeout-zh",
        "worker-timeout",
        r"DataLoader timed out after 2 seconds",
        act="time.sleep(30)",
        timeout=2,
        style="zh",
        workers=1,
    ),
    _loader(
        "worker-sigkill",
        "worker-died",
        r"DataLoader worker \(pid(\(s\))? .*\) (is killed by signal: Killed|exited unexpectedly)",
        act="time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)",
        style="bracket",
    ),
    _loader(
        "worker-segfault",
        "worker-died",
        (
            r"ERROR: Unexpected segmentation fault encountered in worker",
            r"DataLoader worker \(pid(\(s\))? .*\) (is killed by signal|exited unexpectedly)",
        ),
        act="import ctypes; time.sleep(1.5); ctypes.string_at(0)",
        style="logging",
    ),
    _loader(
        "worker-exits",
        "worker-died",
        r"DataLoader worker \(pid\(s\) .*\) exited unexpectedly",
        act="time.sleep(1.5); os._exit(1)",
        style="json",
    ),
    _loader(
        "worker-abort",
        "worker-died",
        r"DataLoader worker \(pid(\(s\))? .*\) (is killed by signal: Aborted|exited unexpectedly)",
        act="time.sleep(1.5); os.abort()",
        style="tqdm",
    ),
    python(
        "shm-no-space",
        "no-space-left",
        {
            "Disk_Full": r"unable to allocate shared memory\(shm\).*No space left on device",
            _LOADER: r"unable to allocate shared memory\(shm\).*No space left on device",
        },
        _DATASET.format("pass", "torch.zeros(400_000)", "plain", 2, 0, ""),
        prepare=_SHM,
        needs=("namespaces",),
    ),
    python(
        "shm-no-space-hf",
        "no-space-left",
        {
            "Disk_Full": r"unable to (allocate|write).*No space left on device",
            _LOADER: r"unable to (allocate|write).*No space left on device",
        },
        """
        import torch
        from torch.utils.data import DataLoader
        from joblog import start, steps
        torch.multiprocessing.set_sharing_strategy("file_system")
        start("hf")
        data = torch.zeros(64, 3, 224, 224)
        for batch in DataLoader(torch.utils.data.TensorDataset(data), 16, num_workers=2):
            steps(1)
        """,
        prepare=_SHM,
        needs=("namespaces",),
    ),
    _loader(
        "shm-bus-error",
        "shm-bus-error",
        (
            r"Unexpected bus error encountered in worker.*insufficient shared memory",
            r"(is killed by signal: Bus error|exited unexpectedly)",
        ),
        item="shared_frame(index)",
        prepare=_SHM,
        needs=("namespaces",),
    ),
    _loader(
        "shm-bus-error-zh",
        "shm-bus-error",
        r"Unexpected bus error encountered in worker.*insufficient shared memory",
        item="shared_frame(index)",
        style="zh",
        workers=1,
        prepare=_SHM,
        needs=("namespaces",),
    ),
    python(
        "too-many-files",
        "loader-open-files",
        {_LOADER: r"(Too many open files|received 0 items of ancdata)"},
        """
        import resource
        import torch
        from torch.utils.data import DataLoader, Dataset
        from joblog import start, steps

        class Pairs(Dataset):
            def __len__(self):
                return 4000

            def __getitem__(self, index):
                return [torch.ones(4) for _ in range(8)]

        start("plain")
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
        kept = []
        for index, batch in enumerate(DataLoader(Pairs(), batch_size=1, num_workers=1)):
            kept.append(batch)
            if index % 10 == 0:
                steps(1)
        """,
    ),
    python(
        "pool-broken",
        "process-pool-broken",
        {_LOADER: r"BrokenProcessPool: A process in the process pool was terminated abruptly"},
        """
        import os
        from concurrent.futures import ProcessPoolExecutor
        from joblog import start, say

        def decode(index):
            if index == 5:
                os._exit(9)
            return index

        if __name__ == "__main__":
            start("plain", name="decode")
            say("data workers: 2, prefetch 4")
            with ProcessPoolExecutor(2) as pool:
                print(sum(pool.map(decode, range(40))))
        """,
        script="data_loader.py",
    ),
    python(
        "manager-queue-dead",
        "producer-dead",
        {_LOADER: r"RuntimeError: data producer \(pid \d+\) died with exit code -9"},
        """
        import multiprocessing, os, queue, signal
        from joblog import start, steps

        def produce(output):
            for index in range(5):
                output.put(index)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            start("megatron")
            batches = multiprocessing.Queue(maxsize=4)
            producer = multiprocessing.Process(target=produce, args=(batches,))
            producer.start()
            while True:
                try:
                    batches.get(timeout=1)
                    steps(1)
                except queue.Empty:
                    raise RuntimeError(
                        f"data producer (pid {producer.pid}) died with exit code"
                        f" {producer.exitcode}"
                    ) from None
        """,
    ),
    ranks(
        "rank-worker-killed",
        "worker-died",
        {
            _LOADER: r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)",
            "Network_Timeout": r"Connection (closed|reset) by peer",
        },
        _DATASET.replace(
            "start({2!r})",
            "import torch.distributed as dist\ndist.init_process_group('gloo')\nstart('bracket')",
        )
        .replace("    steps(1)", "    dist.all_reduce(torch.ones(1)); steps(1)")
        .replace("if index == 40", "if index == 40 and dist.get_rank() == 1")
        .format("time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)", "index", "", 1, 0, ""),
    ),
)
