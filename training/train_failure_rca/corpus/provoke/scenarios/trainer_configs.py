"""Configuration that Transformers itself rejects."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python

_CONFIG = "Config_Error"

SCENARIOS = (
    python(
        "hf-unused-arguments",
        "hf-unused-arguments",
        {_CONFIG: r"ValueError: Some specified arguments are not used by the HfArgumentParser"},
        """
        from dataclasses import dataclass
        from transformers import HfArgumentParser

        @dataclass
        class ModelArguments:
            model_name_or_path: str
            lora_rank: int = 8

        HfArgumentParser(ModelArguments).parse_args_into_dataclasses()
        """,
        script="run_sft.py",
        arguments=("--model_name_or_path", "base", "--lora_alpha", "16"),
    ),
    python(
        "hf-required-argument",
        "argparse-required",
        {_CONFIG: r"error: the following arguments are required: --model_name_or_path"},
        """
        from dataclasses import dataclass
        from transformers import HfArgumentParser

        @dataclass
        class ModelArguments:
            model_name_or_path: str
            lora_rank: int = 8

        HfArgumentParser(ModelArguments).parse_args_into_dataclasses()
        """,
        script="run_sft.py",
        arguments=("--lora_rank", "16"),
    ),
    python(
        "hf-save-strategy",
        "hf-strategy",
        {_CONFIG: r"ValueError: everystep is not a valid SaveStrategy"},
        """
        from transformers import TrainingArguments
        TrainingArguments(output_dir="out", save_strategy="everystep")
        """,
    ),
    python(
        "hf-eval-steps",
        "hf-eval-steps",
        {_CONFIG: r"ValueError: .*requires either non-zero"},
        """
        from transformers import TrainingArguments
        TrainingArguments(output_dir="out", eval_strategy="steps", eval_steps=0, logging_steps=0)
        """,
    ),
    python(
        "hf-unknown-training-argument",
        "unknown-field",
        {_CONFIG: r"TrainingArguments.* got an unexpected keyword argument 'evaluate_every'"},
        """
        import yaml
        from transformers import TrainingArguments
        TrainingArguments(**yaml.safe_load("output_dir: out\\nevaluate_every: 100\\n"))
        """,
    ),
    python(
        "hf-hidden-heads",
        "hidden-size-heads",
        {_CONFIG: r"ValueError: The hidden size \(100\) is not a multiple of"},
        """
        from transformers import BertConfig, BertModel
        from joblog import start, say
        start("json")
        say("hidden_size=100 num_attention_heads=12")
        BertModel(BertConfig(hidden_size=100, num_attention_heads=12))
        """,
    ),
    python(
        "hf-model-type",
        "hf-model-type",
        {_CONFIG: r"ValueError: Unrecognized model in model_dir"},
        """
        import json, os
        from transformers import AutoConfig
        os.makedirs("model_dir")
        json.dump({"hidden_size": 64}, open("model_dir/config.json", "w"))
        print("model_name_or_path: model_dir")
        AutoConfig.from_pretrained("model_dir")
        """,
    ),
    python(
        "hf-rope-scaling",
        "hf-rope",
        {
            _CONFIG: (
                r"Missing validation function mapping in `ROPE_VALIDATION_FUNCTIONS`",
                r"KeyError: 'yarnn'",
            )
        },
        """
        from transformers import LlamaConfig, LlamaModel
        print("rope scaling: {'rope_type': 'yarnn', 'factor': 4}")
        LlamaModel(LlamaConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1,
                               intermediate_size=64, vocab_size=64,
                               rope_scaling={"rope_type": "yarnn", "factor": 4.0}))
        """,
    ),
)
