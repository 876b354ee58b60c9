"""Jobs that succeed, some of them after trouble."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import Scenario, python


def _well(name: str, family: str, code: str, **more: object) -> Scenario:
    return python(name, family, {}, code, failed=False, **more)


SCENARIOS = (
    _well(
        "plain-training",
        "training",
        """
        import torch
        from torch import nn
        from joblog import start, say, steps
        start("plain")
        model = nn.Linear(8, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for epoch in range(5):
            loss = model(torch.randn(32, 8)).pow(2).mean()
            loss.backward(); optimizer.step(); optimizer.zero_grad()
            steps(2)
            say(f"epoch {epoch}: loss {loss.item():.4f}, errors 0, skipped 0, nan 0")
        torch.save(model.state_dict(), "final.pt")
        say("saved final.pt")
        """,
    ),
    _well(
        "tqdm-training",
        "training",
        """
        from joblog import start, steps
        start("tqdm"); steps(64)
        print("\\ntraining finished in 0:00:03")
        """,
    ),
    _well(
        "json-training",
        "training",
        """
        from joblog import start, say, steps
        start("json"); steps(20)
        say("evaluation: error rate 3.2%, timeouts 0, failed requests 0")
        say("job finished, exit code 0")
        """,
    ),
    _well(
        "zh-training",
        "training",
        """
        from joblog import start, say, steps
        start("zh"); steps(15)
        say("评估完成：错误率 4.1%，超时 0 次，失败样本 0")
        say("训练正常结束，最优检查点已保存")
        """,
    ),
    _well(
        "megatron-training",
        "training",
        """
        from joblog import start, say, steps
        start("megatron"); steps(25)
        say("saving checkpoint at iteration 250 to ckpt in torch_dist format")
        say("  successfully saved checkpoint from iteration 250 to ckpt")
        """,
    ),
    _well(
        "http-retry-succeeds",
        "retry-succeeds",
        """
        import http.server, threading, time
        import requests
        from joblog import start, say, steps

        class Flaky(http.server.BaseHTTPRequestHandler):
            seen = 0

            def do_GET(self):
                Flaky.seen += 1
                self.send_response(503 if Flaky.seen < 3 else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start("plain")
        for attempt in range(1, 5):
            answer = requests.get(f"http://127.0.0.1:{server.server_port}/shards", timeout=30)
            if answer.ok:
                say(f"attempt {attempt}: ok, 128 shards")
                break
            say(f"attempt {attempt}: {answer.status_code} {answer.reason}, retrying in 0.1 s")
            time.sleep(0.1)
        steps(5)
        say("done")
        """,
    ),
    _well(
        "urllib3-retry-log",
        "retry-succeeds",
        """
        import http.server, logging, socket, threading, time
        import requests
        from urllib3.util import Retry
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s:%(name)s:%(message)s")
        address = socket.create_server(("127.0.0.1", 0)).getsockname()

        def late():
            time.sleep(0.7)
            server = http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)
            server.RequestHandlerClass.log_message = lambda *args: None
            server.serve_forever()

        threading.Thread(target=late, daemon=True).start()
        session = requests.Session()
        retry = Retry(6, backoff_factor=0.2)
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
        print("manifest:", session.get(f"http://127.0.0.1:{address[1]}/", timeout=5).status_code)
        print("training finished")
        """,
    ),
    _well(
        "wait-for-master",
        "retry-succeeds",
        """
        import socket, threading, time
        from joblog import start, say, steps
        start("bracket")
        port = 23457

        def late():
            time.sleep(1.2)
            server = socket.create_server(("127.0.0.1", port))
            server.accept()

        threading.Thread(target=late, daemon=True).start()
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
                break
            except OSError as error:
                say(f"master not ready yet ({error}), waiting", "WARNING")
                time.sleep(0.4)
        say("connected to master")
        steps(6)
        """,
        needs=("namespaces",),
    ),
    _well(
        "skip-corrupt-sample",
        "handled-exception",
        """
        import io, logging
        from PIL import Image
        from joblog import start, say, steps
        start("logging")
        for index in range(3):
            try:
                Image.open(io.BytesIO(b"not a picture"))
            except Exception:
                logging.getLogger("dataset").exception("sample %d is skipped", index)
            steps(2)
        say("epoch 0 finished: 3 of 48,211 samples skipped")
        say("training complete")
        """,
    ),
    _well(
        "optional-module",
        "fallback",
        """
        from joblog import start, say, steps
        start("plain")
        try:
            import flash_attn
        except ImportError as error:
            say(f"{error}; falling back to scaled_dot_product_attention")
        steps(8)
        say("Training completed successfully.")
        """,
    ),
    _well(
        "optional-module-warnings",
        "fallback",
        """
        import warnings
        from joblog import start, say, steps
        start("bracket")
        for name in ("apex", "transformer_engine", "bitsandbytes"):
            try:
                __import__(name)
            except ImportError:
                warnings.warn(f"{name} is not available, using the native implementation")
        steps(8)
        say("=> best acc1 76.13, saved model_best.pth.tar")
        """,
    ),
    _well(
        "batch-size-search",
        "fallback",
        """
        import resource
        import torch
        from joblog import start, say, steps
        start("plain")
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        size = 1 << 16
        while True:
            try:
                torch.zeros(size, 1 << 16)
                break
            except RuntimeError as error:
                say(f"batch size {size} does not fit ({str(error)[:60]}...), trying {size // 4}")
                size //= 4
        say(f"batch size {size} chosen")
        steps(6)
        """,
    ),
    _well(
        "resume-no-checkpoint",
        "checkpoint-start",
        """
        import os
        from joblog import start, say, steps
        start("megatron")
        if not os.path.exists("ckpt/latest_checkpointed_iteration.txt"):
            say("WARNING: could not find the metadata file ckpt/latest_checkpointed_iteration.txt")
            say("    will not load any checkpoints and will start from random")
        steps(10)
        say("[after training is done] datetime: 2026-03-02 11:20:07")
        """,
    ),
)
