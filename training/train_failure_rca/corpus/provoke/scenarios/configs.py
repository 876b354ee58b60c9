"""Configuration: flags, YAML and JSON, hyperparameters, paths and sizes the user named wrongly."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_CONFIG = "Config_Error"
_ARGPARSE = """
import argparse
from joblog import start, steps
parser = argparse.ArgumentParser(prog="train.py")
parser.add_argument("--lr", type=float, default=1e-4)
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--precision", choices=["fp32", "fp16", "bf16"], default="bf16")
args = parser.parse_args()
start(); steps(2)
"""

SCENARIOS = (
    python(
        "argparse-unrecognized",
        "argparse-unrecognized",
        {_CONFIG: r"train.py: error: unrecognized arguments: --learning-rate 1e-4"},
        _ARGPARSE,
        arguments=("--batch-size", "8", "--learning-rate", "1e-4"),
    ),
    python(
        "argparse-required",
        "argparse-required",
        {_CONFIG: r"error: the following arguments are required: --batch-size"},
        _ARGPARSE,
        arguments=("--lr", "3e-4"),
    ),
    python(
        "argparse-choice",
        "argparse-choice",
        {_CONFIG: r"error: argument --precision: invalid choice: 'fp8'"},
        _ARGPARSE,
        arguments=("--batch-size", "8", "--precision", "fp8"),
    ),
    python(
        "argparse-type",
        "argparse-type",
        {_CONFIG: r"error: argument --batch-size: invalid int value: '8.5'"},
        _ARGPARSE,
        arguments=("--batch-size", "8.5"),
    ),
    python(
        "click-option",
        "click-option",
        {_CONFIG: r"Error: No such option"},
        """
        import click

        @click.command()
        @click.option("--epochs", type=int, default=3)
        def main(epochs):
            print(epochs)

        main()
        """,
        arguments=("--epoch", "5"),
    ),
    ranks(
        "argparse-both-ranks",
        "argparse-unrecognized",
        {_CONFIG: r"error: unrecognized arguments: --local-rnk=0"},
        """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--local-rank", type=int)
        parser.parse_args(["--local-rnk=0"])
        """,
    ),
    python(
        "yaml-tab",
        "yaml-syntax",
        {_CONFIG: r"found character '\\t' that cannot start any token"},
        """
        import yaml
        from joblog import start, say
        start("plain")
        say("loading config.yaml")
        config = yaml.safe_load(open("config.yaml"))
        """,
        files={"config.yaml": "model:\n  name: llama\n\tlayers: 12\n"},
    ),
    python(
        "yaml-mapping",
        "yaml-syntax",
        {_CONFIG: r"mapping values are not allowed here"},
        """
        import yaml
        from joblog import start, say
        start("logging")
        say("loading conf/base.yaml")
        yaml.safe_load(open("conf/base.yaml"))
        """,
        files={"conf/base.yaml": "trainer:\n  max_steps: 1000 warmup: 50\n"},
    ),
    python(
        "yaml-alias",
        "yaml-alias",
        {_CONFIG: r"found undefined alias 'base'"},
        """
        import yaml
        print("[config] reading exp.yaml")
        yaml.safe_load(open("exp.yaml"))
        """,
        files={"exp.yaml": "train:\n  <<: *base\n  lr: 0.1\n"},
    ),
    python(
        "yaml-string-lr",
        "hyperparameter-type",
        {_CONFIG: r"TypeError: '<=' not supported between instances of 'float' and 'str'"},
        """
        import torch
        import yaml
        from joblog import start, say
        start("plain")
        config = yaml.safe_load("lr: 1e-4\\nweight_decay: 0.01\\n")
        say(f"config: {config}")
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)], **config)
        """,
    ),
    python(
        "json-comma",
        "json-syntax",
        {_CONFIG: r"json.decoder.JSONDecodeError: "},
        """
        import json
        from joblog import start, say
        start("bracket")
        say("reading ds_config.json")
        json.load(open("ds_config.json"))
        """,
        files={"ds_config.json": '{"train_batch_size": 64,\n "fp16": {"enabled": true},\n}\n'},
    ),
    python(
        "json-empty",
        "json-syntax",
        {_CONFIG: r"json.decoder.JSONDecodeError: Expecting value: line 1 column 1 \(char 0\)"},
        """
        import json
        from joblog import start, say
        start("json")
        say("reading run.json")
        json.load(open("run.json"))
        """,
        files={"run.json": ""},
    ),
    python(
        "toml-syntax",
        "toml-syntax",
        {_CONFIG: r"tomllib.TOMLDecodeError: "},
        """
        import tomllib
        print("config: train.toml")
        tomllib.load(open("train.toml", "rb"))
        """,
        files={"train.toml": "[optimizer]\nname = adamw\nlr = 3e-4\n"},
    ),
    python(
        "config-key",
        "missing-key",
        {_CONFIG: r"KeyError: 'warmup_ratio'"},
        """
        import yaml
        from joblog import start, say
        start("zh")
        config = yaml.safe_load("scheduler: {name: cosine}")
        say(f"读取配置: {config}")
        warmup = config["scheduler"]["warmup_ratio"]
        """,
    ),
    python(
        "environment-key",
        "missing-environment",
        {_CONFIG: r"KeyError: 'DATA_ROOT'"},
        """
        import os
        from joblog import start, say
        start("plain")
        root = os.environ["DATA_ROOT"]
        """,
    ),
    python(
        "env-rendezvous",
        "missing-environment",
        {_CONFIG: r"environment variable MASTER_ADDR expected, but not set"},
        """
        import torch.distributed as dist
        from joblog import start, say
        start("plain")
        say("initialising process group, backend gloo")
        dist.init_process_group("gloo", rank=0, world_size=2)
        """,
    ),
    python(
        "dataclass-field",
        "unknown-field",
        {_CONFIG: r"TrainConfig.__init__\(\) got an unexpected keyword argument 'max_step'"},
        """
        from dataclasses import dataclass
        import yaml
        from joblog import start, say

        @dataclass
        class TrainConfig:
            max_steps: int = 1000
            seed: int = 42

        start("logging", name="config")
        say("loading configs/pretrain.yaml")
        TrainConfig(**yaml.safe_load("max_step: 500\\nseed: 1"))
        """,
    ),
    python(
        "pydantic-fields",
        "schema-validation",
        {
            _CONFIG: r"pydantic_core._pydantic_core.ValidationError: 3 validation errors for RunConfig"
        },
        """
        from pydantic import BaseModel, ConfigDict, PositiveInt
        from joblog import start, say

        class RunConfig(BaseModel):
            model_config = ConfigDict(extra="forbid")
            epochs: PositiveInt
            lr: float

        start("plain")
        say("validating run.yaml")
        RunConfig.model_validate({"epochs": 0, "lr": "fast", "sheduler": "cosine"})
        """,
    ),
    python(
        "jsonschema",
        "schema-validation-json",
        {_CONFIG: r"ValidationError: 'adam8' is not one of"},
        """
        import jsonschema
        from joblog import start
        start("bracket")
        schema = {"properties": {"optimizer": {"enum": ["adamw", "sgd", "lion"]}}}
        jsonschema.validate({"optimizer": "adam8"}, schema)
        """,
    ),
    python(
        "configparser",
        "ini-section",
        {_CONFIG: r"configparser.NoSectionError: No section: 'trainer'"},
        """
        import configparser
        parser = configparser.ConfigParser()
        parser.read_string("[model]\\nlayers = 12\\n")
        print("sections:", parser.sections())
        parser.getint("trainer", "epochs")
        """,
    ),
    python(
        "data-path",
        "input-path",
        {
            _CONFIG: r"FileNotFoundError: \[Errno 2\] No such file or directory: '/data/corpus/train.jsonl'"
        },
        """
        from joblog import start, say
        start("json")
        say("dataset: /data/corpus/train.jsonl")
        rows = open("/data/corpus/train.jsonl").readlines()
        """,
    ),
    python(
        "image-folder",
        "input-path",
        {
            _CONFIG: r"FileNotFoundError: \[Errno 2\] No such file or directory: '/datasets/imagenet/"
        },
        """
        import os
        from joblog import start, say
        start("bracket", name="resnet50")
        classes = sorted(os.listdir("/datasets/imagenet/train"))
        """,
    ),
    python(
        "pandas-csv",
        "input-path",
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
        {
            _CONFIG: r"ValueError: num_samples should be a positive integer value, but got num_samples=0"
        },
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
        {
            _CONFIG: r"ValueError: Tried to step 101 times. The specified number of total steps is 100"
        },
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
        "script-path",
        {
            _CONFIG: r"can't open file '.*/scripts/pretrain.py': \[Errno 2\] No such file or directory"
        },
        """
        echo "[launch] $(date '+%F %T') starting"
        python scripts/pretrain.py --config configs/base.yaml
        """,
    ),
    shell(
        "source-env-file",
        "input-path-shell",
        {_CONFIG: r"conf/cluster.env: No such file or directory"},
        """
        set -e
        echo "launching experiment pretrain-7b"
        source conf/cluster.env
        python train.py
        """,
    ),
)
