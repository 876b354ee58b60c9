"""Jobs that succeed and yet print what sounds like trouble."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import Scenario, python, ranks, shell
from training.train_failure_rca.corpus.provoke.scenarios._wheels import MAKE_WHEELS
from training.train_failure_rca.corpus.provoke.scenarios.permissions import SERVER


def _well(name: str, family: str, code: str, **more: object) -> Scenario:
    return python(name, family, {}, code, failed=False, **more)


SCENARIOS = (
    _well(
        "strict-false",
        "checkpoint-start",
        """
        import torch
        from torch import nn
        from joblog import start, say, steps
        start("plain")
        torch.save(nn.Linear(4, 4).state_dict(), "pretrained.pt")
        model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
        state = {f"body.{k}": v for k, v in torch.load("pretrained.pt").items()}
        print("load_state_dict:", model.load_state_dict(state, strict=False))
        steps(8)
        say("finished")
        """,
    ),
    _well(
        "hf-newly-initialized",
        "checkpoint-start",
        """
        from transformers import BertConfig, BertForSequenceClassification, BertModel
        config = BertConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1,
                            intermediate_size=64, vocab_size=100)
        BertModel(config).save_pretrained("base")
        BertForSequenceClassification.from_pretrained("base")
        for step in range(5):
            print({"loss": 0.7 - step / 20, "epoch": step / 5})
        print({"train_runtime": 3.1, "train_loss": 0.6, "epoch": 1.0})
        """,
    ),
    _well(
        "loader-worker-warning",
        "warnings",
        """
        from torch.utils.data import DataLoader
        from joblog import start, say, steps
        start("plain")
        for batch in DataLoader(list(range(64)), batch_size=16, num_workers=16, timeout=120):
            steps(1)
        say("dataloader: 16 workers, timeout=120, 0 restarts")
        """,
    ),
    _well(
        "scheduler-order-warning",
        "warnings",
        """
        import torch
        from joblog import start, say, steps
        start("hf")
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for _ in range(4):
            schedule.step(); optimizer.step(); steps(2)
        """,
    ),
    _well(
        "sklearn-convergence",
        "warnings",
        """
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from joblog import start, say
        start("logging")
        x = np.random.default_rng(0).normal(size=(200, 30)) * 100
        probe = LogisticRegression(max_iter=2).fit(x, x[:, 0] > 0)
        say(f"linear probe: accuracy {probe.score(x, x[:, 0] > 0):.3f}, error 0.0")
        """,
    ),
    _well(
        "deprecations",
        "warnings",
        """
        import warnings
        import torch
        from joblog import start, say, steps
        start("plain")
        warnings.warn("`evaluation_strategy` is deprecated and will be removed", FutureWarning)
        scaler = torch.cuda.amp.GradScaler()
        with torch.autocast("cuda"):
            steps(6)
        say("done: overflow steps 0, grad scaler disabled")
        """,
    ),
    _well(
        "loss-scale",
        "gradient-overflow",
        """
        from joblog import start, say, steps
        start("megatron")
        for scale in (65536, 32768, 16384):
            steps(2)
            say(f"Gradient overflow. Skipping step, loss scaler 0 reducing loss scale to {scale}.0")
        steps(12)
        say("training finished, 3 steps skipped of 18")
        """,
    ),
    _well(
        "quota-report",
        "resource-report",
        """
        import os, shutil
        from joblog import start, say, steps
        start("bracket")
        usage = shutil.disk_usage(".")
        say(f"disk: {usage.free / 2**30:.0f} GiB free; quota check passed (412 of 500 GiB used)")
        say(f"oom_score_adj {open('/proc/self/oom_score_adj').read().strip()}, memory limit none")
        say("shm: 64 GiB, 0% used; open files limit 1048576")
        steps(9)
        say("finished without errors")
        """,
    ),
    shell(
        "df-and-limits",
        "resource-report",
        {},
        """
        echo "[preflight] disk and limits"
        df -h output
        ulimit -v; ulimit -n
        echo "[preflight] ok: no quota exceeded, no read-only mount"
        python train.py
        """,
        failed=False,
        files={
            "train.py": "from joblog import start, steps\nstart('plain'); steps(8)\n"
            "open('output/final.bin', 'wb').write(b'0' * 300_000)\n"
            "print('saved output/final.bin')\n"
        },
        prepare="mkdir output && mount -t tmpfs -o size=400k tmpfs output",
        needs=("namespaces",),
    ),
    shell(
        "permission-fallback",
        "fallback",
        {},
        """
        mkdir -p /opt/cache/hf || echo "[init] /opt/cache is not writable, using $PWD/cache instead"
        mkdir -p cache
        python -c "
        from joblog import start, say, steps
        start('plain'); steps(6); say('training done')
        "
        """.replace("        ", ""),
        failed=False,
        prepare="mount -t tmpfs -o mode=755,uid=65534 tmpfs /opt",
        needs=("namespaces",),
    ),
    shell(
        "unit-tests-pass",
        "tests-pass",
        {},
        """
        python -m unittest -v test_faults 2>&1
        """,
        failed=False,
        files={
            "test_faults.py": """
            import unittest

            class TestFaults(unittest.TestCase):
                def test_cuda_out_of_memory_is_retried(self): pass
                def test_nccl_timeout_aborts(self): pass
                def test_disk_full_raises_oserror(self): pass
                def test_permission_denied_message(self): pass
                def test_corrupt_checkpoint_is_rejected(self): pass
            """
        },
    ),
    shell(
        "pip-install-works",
        "setup-works",
        {},
        """
        mkdir wheels
        python make_wheels.py
        python -m pip install --no-index --find-links wheels --target site errorlib
        echo "[setup] environment ready, no conflicts"
        """,
        failed=False,
        files={"make_wheels.py": MAKE_WHEELS + "wheel('errorlib', '1.0')\n"},
    ),
    shell(
        "compile-with-warnings",
        "setup-works",
        {},
        """
        set -e
        printf 'int go(int a) { int unused; char b = 300; return a; }\\n' > ops.c
        echo "[1/2] cc -c ops.c"
        gcc -Wall -Wextra -c ops.c -o ops.o
        echo "[2/2] linked; 0 errors"
        python -c "from joblog import start, steps; start('bracket'); steps(5)"
        """,
        failed=False,
        needs=("gcc",),
    ),
    ranks(
        "torchrun-well",
        "ranks-well",
        {},
        """
        import torch
        import torch.distributed as dist
        from joblog import start, say, steps
        dist.init_process_group("gloo")
        start("bracket")
        for _ in range(4):
            dist.all_reduce(torch.ones(4)); steps(1)
        dist.barrier()
        say("all ranks finished")
        dist.destroy_process_group()
        """,
        failed=False,
    ),
    ranks(
        "torchrun-well-json",
        "ranks-well",
        {},
        """
        import datetime
        import torch
        import torch.distributed as dist
        from joblog import start, say, steps
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=1800))
        start("json")
        say("process group ready, timeout=1800 s, world size 2, 0 ranks missing")
        for _ in range(5):
            dist.all_reduce(torch.ones(4)); steps(1)
        dist.destroy_process_group()
        """,
        failed=False,
    ),
    ranks(
        "torchrun-restart-recovers",
        "ranks-restart",
        {},
        """
        import os, sys
        from joblog import start, say, steps
        start("bracket")
        steps(2)
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            sys.exit(75 if os.environ["RANK"] == "1" else 0)
        say("resumed after preemption, continuing")
        steps(4)
        say("training finished")
        """,
        failed=False,
        options=("--max-restarts", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
    ),
    _well(
        "sigterm-graceful",
        "preempted-gracefully",
        """
        import os, signal, sys
        from joblog import start, say, steps
        start("plain")

        def stop(number, frame):
            say("SIGTERM received: checkpoint written, leaving with 0")
            sys.exit(0)

        signal.signal(signal.SIGTERM, stop)
        steps(5)
        os.kill(os.getpid(), signal.SIGTERM)
        """,
    ),
    _well(
        "debug-logging",
        "debug-output",
        """
        import logging
        import requests
        from fake import serve
        from joblog import start, say, steps
        start("logging")
        logging.getLogger("urllib3").setLevel(logging.DEBUG)
        logging.getLogger().setLevel(logging.DEBUG)
        base = serve(200, b"{}")
        for path in ("errors?limit=0", "timeouts", "health"):
            requests.get(f"{base}/{path}", timeout=10)
        steps(4)
        """,
        files={"fake.py": SERVER},
    ),
    _well(
        "argparse-echo",
        "config-echo",
        """
        import argparse, json
        from joblog import start, say, steps
        arguments = {"ddp_timeout": 1800, "ignore_data_skip": False, "fail_on_nan": True,
                     "max_retries": 5, "on_error": "continue", "oom_retry": 3,
                     "no_cuda": False, "load_best_model_at_end": False}
        print(json.dumps(arguments, indent=2))
        start("plain"); steps(7)
        say("best model: step 70, eval_loss 0.41")
        """,
    ),
    _well(
        "queue-timeout-poll",
        "retry-succeeds",
        """
        import queue
        from joblog import start, say, steps
        start("zh")
        batches = queue.Queue()
        for wait in range(3):
            try:
                batches.get(timeout=0.1)
            except queue.Empty:
                say(f"等待数据超时 0.1 秒，第 {wait + 1} 次重试", "WARNING")
        batches.put(1); batches.get()
        say("数据恢复正常")
        steps(6)
        say("训练完成，无异常")
        """,
    ),
)
