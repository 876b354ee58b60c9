"""Checkpoints that are broken, missing, or of another model."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_CKPT = "Checkpoint_Error"

SCENARIOS = (
    python(
        "state-dict-missing-keys",
        "state-dict-keys",
        {_CKPT: (r"Error\(s\) in loading state_dict for", r"Missing key\(s\) in state_dict")},
        """
        import torch
        from torch import nn
        from joblog import start, say
        start("plain", name="resume")
        torch.save(nn.Linear(8, 8, bias=False).state_dict(), "last.pt")
        say("=> loading checkpoint 'last.pt'")
        model = nn.Sequential(nn.Linear(8, 8))
        model.load_state_dict(torch.load("last.pt"))
        """,
    ),
    python(
        "state-dict-module-prefix",
        "state-dict-keys",
        {_CKPT: (r"Error\(s\) in loading state_dict for", r"Unexpected key\(s\) in state_dict")},
        """
        import torch
        from torch import nn
        from joblog import start, say
        start("logging", name="finetune")
        source = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
        torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, "ddp.pth")
        say("loading weights from ddp.pth")
        source.load_state_dict(torch.load("ddp.pth"), strict=True)
        """,
    ),
    python(
        "state-dict-size",
        "state-dict-size",
        {_CKPT: r"size mismatch for .*: copying a param with shape"},
        """
        import torch
        from torch import nn
        from joblog import start, say, steps
        start("zh", name="sft")
        say("从 /ckpt/step_2000.pt 恢复训练")
        torch.save(nn.Embedding(32000, 64).state_dict(), "step_2000.pt")
        nn.Embedding(32064, 64).load_state_dict(torch.load("step_2000.pt"))
        """,
    ),
    python(
        "hf-size-mismatch",
        "state-dict-size",
        {_CKPT: r"size mismatch for .*: copying a param with shape"},
        """
        import torch
        from transformers import BertConfig, BertForSequenceClassification
        small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                     intermediate_size=64, vocab_size=100)
        BertForSequenceClassification(BertConfig(**small, num_labels=2)).save_pretrained("ckpt-500")
        print("Resuming from ckpt-500 with 5 labels")
        BertForSequenceClassification.from_pretrained("ckpt-500", num_labels=5)
        """,
        script="run_glue.py",
    ),
    python(
        "truncated-zip",
        "zip-central-directory",
        {_CKPT: r"failed reading zip archive: failed finding central directory"},
        """
        import torch
        from joblog import start, say
        start("plain")
        torch.save({"model": torch.randn(400, 400), "step": 1200}, "step_1200.pt")
        with open("step_1200.pt", "r+b") as file:
            file.truncate(200_000)
        say("Resuming from step_1200.pt")
        state = torch.load("step_1200.pt", map_location="cpu")
        """,
    ),
    python(
        "damaged-record",
        "invalid-load-key",
        {_CKPT: r"invalid load key"},
        """
        import torch
        from joblog import start, say
        start("json")
        torch.save({"model": torch.randn(100, 100)}, "best.pth")
        data = bytearray(open("best.pth", "rb").read())
        at = data.index(b"best/data.pkl") + 100
        data[at : at + 40] = b"\\xff" * 40
        open("best.pth", "wb").write(data)
        say("loading best.pth")
        torch.load("best.pth", weights_only=False)
        """,
    ),
    python(
        "empty-file",
        "empty-file",
        {_CKPT: r"EOFError: Ran out of input"},
        """
        import torch
        from joblog import start, say
        start("bracket")
        open("epoch_9.pth", "wb").close()
        say("resume from epoch_9.pth")
        torch.load("epoch_9.pth", weights_only=False)
        """,
    ),
    python(
        "not-a-pickle",
        "invalid-load-key",
        {_CKPT: r"invalid load key, '(<|v)'"},
        """
        import torch
        from joblog import start, say
        start("logging")
        open("vit_b16.pth", "w").write("<!DOCTYPE html><html><body>404</body></html>")
        say("loading pretrained weights vit_b16.pth")
        torch.load("vit_b16.pth", weights_only=False)
        """,
    ),
    python(
        "git-lfs-pointer",
        "invalid-load-key",
        {_CKPT: r"(Unsupported operand 118|invalid load key, 'v')"},
        """
        import torch
        from joblog import start, say
        start("plain")
        with open("pytorch_model.bin", "w") as file:
            file.write("version https://git-lfs.github.com/spec/v1\\noid sha256:0a1b\\nsize 438\\n")
        say("Loading checkpoint shards: pytorch_model.bin")
        torch.load("pytorch_model.bin")
        """,
    ),
    python(
        "weights-only",
        "weights-only-unpickler",
        {_CKPT: r"Weights only load failed"},
        """
        import torch
        from joblog import start, say

        class TrainState:
            step = 4000

        start("hf")
        torch.save({"state": TrainState(), "model": {}}, "trainer_state.pt")
        say("Loading trainer_state.pt")
        torch.load("trainer_state.pt")
        """,
    ),
    python(
        "unpickle-attribute",
        "unpickle-lost-class",
        {_CKPT: r"AttributeError: Can't get attribute 'OldNet' on <module '__main__'"},
        """
        import torch
        from joblog import start, say
        start("plain")

        class OldNet(torch.nn.Linear):
            pass

        torch.save(OldNet(2, 2), "model_full.pt")
        del OldNet
        say("loading the whole model from model_full.pt")
        torch.load("model_full.pt", weights_only=False)
        """,
    ),
    python(
        "safetensors-header",
        "safetensors-header",
        {_CKPT: r"SafetensorError: Error while deserializing header"},
        """
        from safetensors.torch import load_file, save_file
        import torch
        from joblog import start, say
        start("plain")
        save_file({"w": torch.zeros(64, 64)}, "model-00001-of-00002.safetensors")
        with open("model-00001-of-00002.safetensors", "r+b") as file:
            file.truncate(3000)
        say("Loading checkpoint shards:   0%|          | 0/2 [00:00<?, ?it/s]")
        load_file("model-00001-of-00002.safetensors")
        """,
    ),
    python(
        "safetensors-garbage",
        "safetensors-header",
        {_CKPT: r"SafetensorError: Error while deserializing header"},
        """
        from safetensors import safe_open
        from joblog import start, say
        start("zh")
        open("adapter_model.safetensors", "wb").write(b"\\xff" * 512)
        say("加载 LoRA 权重 adapter_model.safetensors")
        with safe_open("adapter_model.safetensors", framework="pt") as file:
            print(file.keys())
        """,
    ),
    python(
        "missing-checkpoint-file",
        "missing-file",
        {_CKPT: r"FileNotFoundError: .*checkpoint-1500/optimizer.pt"},
        """
        import os
        import torch
        from joblog import start, say
        start("logging", name="trainer")
        os.makedirs("output/checkpoint-1500")
        torch.save({}, "output/checkpoint-1500/model.pt")
        say("resuming from output/checkpoint-1500")
        torch.load("output/checkpoint-1500/model.pt")
        torch.load("output/checkpoint-1500/optimizer.pt")
        """,
    ),
    python(
        "hf-no-weights",
        "no-weights-in-folder",
        {_CKPT: r"OSError: Error no file named .* found in directory"},
        """
        import os
        from transformers import BertConfig, BertModel
        os.makedirs("outputs/checkpoint-800")
        BertConfig(hidden_size=32, num_attention_heads=2).save_pretrained("outputs/checkpoint-800")
        print("Loading model from outputs/checkpoint-800")
        BertModel.from_pretrained("outputs/checkpoint-800")
        """,
        script="finetune.py",
    ),
    python(
        "hf-missing-shard",
        "missing-shard",
        {_CKPT: r"model-\d+-of-\d+\.safetensors"},
        """
        import pathlib
        from transformers import BertConfig, BertModel
        config = BertConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=2,
                            intermediate_size=128, vocab_size=2000)
        BertModel(config).save_pretrained("merged", max_shard_size="200KB")
        sorted(pathlib.Path("merged").glob("*.safetensors"))[1].unlink()
        print("Loading checkpoint shards from merged")
        BertModel.from_pretrained("merged")
        """,
    ),
    python(
        "optimizer-groups",
        "optimizer-groups",
        {
            _CKPT: r"ValueError: loaded state dict contains a parameter group that doesn't match"
            r"|ValueError: loaded state dict has a different number of parameter groups"
        },
        """
        import torch
        from torch import nn
        from joblog import start, say
        start("megatron")
        old = torch.optim.AdamW(nn.Linear(4, 4).parameters())
        torch.save(old.state_dict(), "optim.pt")
        say("loading optimizer state from optim.pt")
        new = torch.optim.AdamW(nn.Linear(4, 4, bias=False).parameters())
        new.load_state_dict(torch.load("optim.pt"))
        """,
    ),
    python(
        "checkpoint-key",
        "checkpoint-key",
        {_CKPT: r"KeyError: 'optimizer_state_dict'"},
        """
        import torch
        from joblog import start, say
        start("tqdm")
        torch.save({"model": {}, "epoch": 12}, "ckpt_012.pth.tar")
        print("=> loaded checkpoint 'ckpt_012.pth.tar' (epoch 12)")
        state = torch.load("ckpt_012.pth.tar")
        state["optimizer_state_dict"]
        """,
        script="main.py",
    ),
    python(
        "dcp-missing-metadata",
        "sharded-metadata",
        {_CKPT: r"No such file or directory: '.*\.metadata'"},
        """
        import os
        import torch
        import torch.distributed.checkpoint as dcp
        from joblog import start, say
        start("plain")
        state = {"weight": torch.zeros(8)}
        dcp.save(state, checkpoint_id="step-300", no_dist=True)
        os.remove("step-300/.metadata")
        say("loading sharded checkpoint step-300")
        dcp.load(state, checkpoint_id="step-300", no_dist=True)
        """,
    ),
    python(
        "dcp-size",
        "sharded-size",
        {_CKPT: r"ValueError: Size mismatch between saved|Size mismatch between saved"},
        """
        import torch
        import torch.distributed.checkpoint as dcp
        from joblog import start, say
        start("json")
        dcp.save({"weight": torch.zeros(8)}, checkpoint_id="step-300", no_dist=True)
        say("loading sharded checkpoint step-300")
        dcp.load({"weight": torch.zeros(16)}, checkpoint_id="step-300", no_dist=True)
        """,
    ),
    python(
        "numpy-npz-damaged",
        "npz-damaged",
        {_CKPT: r"zipfile.BadZipFile: |BadZipFile: File is not a zip file"},
        """
        import numpy as np
        from joblog import start, say
        start("logging", name="restore")
        np.savez("params_0100.npz", w=np.zeros(5000))
        data = open("params_0100.npz", "rb").read()
        open("params_0100.npz", "wb").write(data[:20000])
        say("restoring checkpoint params_0100.npz")
        np.load("params_0100.npz")["w"]
        """,
    ),
    shell(
        "tar-truncated",
        "archive-truncated",
        {_CKPT: r"(gzip: stdin: unexpected end of file|tar: Unexpected EOF in archive)"},
        """
        set -e
        mkdir ckpt && head -c 300000 /dev/urandom > ckpt/model.bin
        tar czf ckpt-step500.tar.gz ckpt && rm -r ckpt
        truncate -s 120000 ckpt-step500.tar.gz
        echo "[restore] unpacking checkpoint ckpt-step500.tar.gz"
        tar xzf ckpt-step500.tar.gz
        python train.py --resume ckpt
        """,
    ),
    shell(
        "checksum",
        "archive-checksum",
        {_CKPT: r"model.safetensors: FAILED"},
        """
        set -e
        echo "[init] verifying checkpoint files"
        printf weights > model.safetensors; printf config > config.json
        sha256sum model.safetensors config.json > SHA256SUMS
        printf weight > model.safetensors
        sha256sum -c SHA256SUMS
        """,
    ),
    ranks(
        "state-dict-two-ranks",
        "state-dict-keys",
        {_CKPT: (r"Error\(s\) in loading state_dict for", r"Missing key\(s\) in state_dict")},
        """
        import torch
        import torch.distributed as dist
        from torch import nn
        from joblog import start, say
        dist.init_process_group("gloo")
        start("bracket")
        path = f"ckpt_rank{dist.get_rank()}.pt"
        torch.save({"step": torch.tensor(1)}, path)
        say(f"loading {path}")
        nn.Linear(4, 4).load_state_dict(torch.load(path))
        """,
    ),
)
