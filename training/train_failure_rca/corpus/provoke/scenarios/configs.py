"""Configuration that cannot be read: flags, YAML, JSON, schemas."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks

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
        {_CONFIG: r"ValidationError: 3 validation errors for RunConfig"},
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
)
