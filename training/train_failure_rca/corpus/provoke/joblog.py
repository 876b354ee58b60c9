"""What a training program prints while all is well. Copied beside every scenario's program.

``start()`` picks one of the styles training frameworks log in (the harness names it in JOB_STYLE),
``steps(n)`` prints n steps of it. Uncaught exceptions are printed in the same style.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from datetime import datetime

# Differs by scenario, so that no figure betrays which program wrote a log.
_seed = int(os.environ.get("JOB_PID", "1"))
_speed = 700 + _seed % 1900
_total = 640 + 10 * (_seed % 300)
_floor = 0.2 + _seed % 17 / 10
_state = {"style": "plain", "step": _seed % 40 * 10, "loss": _floor + 1.3 + _seed % 59 / 10}
_state["name"] = "train"
_rank = os.environ.get("RANK")


def print(line, flush=True):
    # In one write: ranks share the output, and print() sends the newline apart.
    sys.stdout.write(f"{line}\n")


def start(style=None, name="train"):
    style = style or os.environ.get("JOB_STYLE", "plain")
    _state.update(style=style, name=name)
    if style == "logging":
        logging.basicConfig(
            level=logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s - %(levelname)s - %(name)s -   %(message)s",
        )
        logging.getLogger(name).info("Process rank: %s, device: cpu", _rank or -1)
    elif style == "json":
        sys.excepthook = _json_hook
        say("job started")
    elif style == "zh":
        sys.excepthook = _zh_hook
        say("训练任务启动，随机种子 42")
    elif style == "bracket":
        say(f"=> start {name}, seed 42")


def say(message, level="INFO"):
    style, now = _state["style"], datetime.now()
    if style == "json":
        stamp = now.isoformat(timespec="milliseconds")
        record = {"time": stamp, "level": level.lower(), "message": message}
        if _rank is not None:
            record["rank"] = int(_rank)
        print(json.dumps(record, ensure_ascii=False), flush=True)
    elif style == "zh":
        print(f"[{now:%Y-%m-%d %H:%M:%S}] [{level}] {message}", flush=True)
    elif style == "logging":
        logging.getLogger(_state["name"]).log(getattr(logging, level, 20), message)
    elif style == "bracket":
        prefix = f"[rank {_rank}]" if _rank else "[main]"
        print(f"{now:%m/%d %H:%M:%S} {prefix} {message}", flush=True)
    else:
        print(message, flush=True)


def steps(count, every=10):
    style = _state["style"]
    if style == "tqdm":
        return _bar(count * every)
    for _ in range(count):
        step = _state["step"] = _state["step"] + every
        loss = _next_loss()
        if style == "json":
            say(f"step={step} loss={loss:.4f} lr=3.0e-04 throughput={_speed + step % 37}")
        elif style == "zh":
            say(f"第 {1 + step // 100} 轮 第 {step} 步 损失={loss:.4f} 学习率=3.0e-04 重试 0 次")
        elif style == "hf":
            epoch = step / _total
            print(
                {"loss": round(loss, 4), "grad_norm": round(loss / 3, 5), "epoch": round(epoch, 2)}
            )
        elif style == "megatron":
            print(
                f" iteration {step:8d}/   20000 | consumed samples: {step * 256:12d} | "
                f"elapsed time per iteration (ms): {_speed / 3 + step % 7:.1f} | "
                f"learning rate: 3.000E-04 | global batch size:   256 | lm loss: {loss:.6E} | "
                f"loss scale: 1.0 | grad norm: {loss / 3:.3f} | number of skipped iterations:   0 "
                "| number of nan iterations:   0 |"
            )
        elif style == "logging":
            say(f"Epoch 1 step {step}: train_loss={loss:.4f}, errors=0, lr=0.0003")
        elif style == "bracket":
            times = f"Time {90 / _speed:.2f} ({91 / _speed:.2f})  Data 0.01"
            say(f"Epoch: [0][{step}/{_total}]  {times}  Loss {loss:.4e}")
        else:
            print(f"step {step:5d} | loss {loss:.4f} | lr 3.0e-04 | {_speed + step % 37} samples/s")
    return None


def _next_loss():
    _state["loss"] = _floor + (_state["loss"] - _floor) * 0.97
    return _state["loss"] + 0.01 * ((_state["step"] * 7919 + _seed) % 13 - 6) / 6


def _bar(count):
    from tqdm import tqdm

    # The bar stays open, as it does in a program that dies within its loop.
    bar = _state["bar"] = tqdm(total=_total, desc="Epoch 0", mininterval=0)
    for _ in range(0, count, 10):
        _state["step"] += 10
        bar.set_postfix(loss=f"{_next_loss():.3f}", refresh=False)
        bar.update(10)


def _json_hook(kind, error, frames):
    text = "".join(traceback.format_exception(kind, error, frames))
    record = {"time": datetime.now().isoformat(timespec="milliseconds"), "level": "error"}
    if _rank is not None:
        record["rank"] = int(_rank)
    sys.stderr.write(json.dumps(record | {"message": text}, ensure_ascii=False) + "\n")


def _zh_hook(kind, error, frames):
    sys.stderr.write(f"[{datetime.now():%Y-%m-%d %H:%M:%S}] [ERROR] 训练异常退出：{error}\n")
    traceback.print_exception(kind, error, frames)
