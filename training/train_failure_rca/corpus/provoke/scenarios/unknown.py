"""Jobs that fail without saying why, or for a reason that no label names."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

SCENARIOS = (
    python(
        "bare-sigkill",
        "bare-signal",
        {},
        """
        import os, signal
        from joblog import start, steps
        start(); steps(6)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    ),
    shell(
        "sigterm-shell",
        "bare-signal",
        {},
        """
        python train.py
        code=$?
        echo "[launch] train.py exited with $code"
        exit $code
        """,
        files={
            "train.py": "import os, signal\nfrom joblog import start, steps\n"
            "start('bracket'); steps(5)\nos.kill(os.getpid(), signal.SIGTERM)\n"
        },
    ),
    shell(
        "segfault",
        "segfault",
        {},
        """
        python train.py
        code=$?
        echo "[launch] train.py exited with $code"
        exit $code
        """,
        files={
            "train.py": "import ctypes\nfrom joblog import start, steps\n"
            "start('plain'); steps(5)\nctypes.string_at(0)\n"
        },
    ),
    python(
        "segfault-faulthandler",
        "segfault",
        {},
        """
        import ctypes, faulthandler
        from joblog import start, steps
        faulthandler.enable()
        start(); steps(3)
        ctypes.string_at(0)
        """,
    ),
    python(
        "exit-one",
        "silent-exit",
        {},
        """
        import sys
        from joblog import start, steps
        start(); steps(8)
        sys.exit(1)
        """,
    ),
    python(
        "keyboard-interrupt",
        "interrupted",
        {},
        """
        import os, signal
        from joblog import start, steps
        start("plain"); steps(4)
        os.kill(os.getpid(), signal.SIGINT)
        steps(1)
        """,
    ),
    python(
        "nan-loss",
        "diverged",
        {},
        """
        import math
        from joblog import say, start, steps
        start("logging"); steps(5)
        loss = math.nan
        say("loss is nan at step 60, stopping", "ERROR")
        raise SystemExit(1)
        """,
    ),
    python(
        "nan-loss-zh",
        "diverged",
        {},
        """
        from joblog import say, start, steps
        start("zh"); steps(5)
        say("损失为 nan，已连续 5 步，停止训练", "ERROR")
        raise SystemExit(1)
        """,
    ),
    python(
        "floating-point-error",
        "diverged",
        {},
        """
        import torch
        from joblog import start, steps
        start("json"); steps(5)
        with torch.autograd.detect_anomaly(check_nan=True):
            x = torch.zeros(3, requires_grad=True)
            torch.sqrt(x - 1).sum().backward()
        """,
    ),
    python(
        "early-abort-metric",
        "stopped-by-policy",
        {},
        """
        from joblog import say, start, steps
        start("bracket"); steps(6)
        say("validation accuracy 0.412 below the gate 0.600, job marked as failed")
        raise SystemExit(2)
        """,
    ),
    ranks(
        "torchrun-sigkill",
        "bare-signal",
        {},
        """
        import os, signal, time
        from joblog import start, steps
        start("bracket"); steps(4)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    ),
    shell(
        "timeout-command",
        "walltime",
        {},
        """
        echo "[launch] wall time 3 s"
        timeout 3 python train.py
        code=$?
        echo "[launch] exit code $code"
        exit $code
        """,
        files={
            "train.py": "import time\nfrom joblog import start, steps\nstart('plain')\n"
            "for _ in range(60):\n    steps(1); time.sleep(0.4)\n"
        },
    ),
    python(
        "double-free",
        "heap-damage",
        {},
        """
        import ctypes
        from joblog import start, steps
        start("tqdm"); steps(4)
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc.restype = ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        pointer = libc.malloc(5000)
        libc.free(pointer)
        libc.free(pointer)
        """,
    ),
    python(
        "abort-core",
        "bare-signal",
        {},
        """
        import os
        from joblog import start, steps
        start("hf"); steps(4)
        os.abort()
        """,
    ),
)
