"""Model code: shapes, dtypes and devices that do not fit."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks

_CODE = "Model_Code_Error"

SCENARIOS = (
    python(
        "linear-in-features",
        "matmul-shapes",
        {_CODE: r"mat1 and mat2 shapes cannot be multiplied"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Head(nn.Module):
            def __init__(self, width=256, classes=10):
                super().__init__()
                self.norm = nn.LayerNorm(width)
                self.out = nn.Linear(width * 2, classes)

            def forward(self, hidden):
                return self.out(self.norm(hidden))

        start(name="vit_small")
        steps(6)
        head = Head()
        logits = head(torch.randn(32, 256))
        """,
    ),
    python(
        "bmm-attention",
        "batch-matmul-shapes",
        {_CODE: r"Expected size for first two dimensions of batch2 tensor"},
        """
        import torch
        from joblog import start, steps

        def attention(q, k, v):
            scores = torch.bmm(q, k) / q.size(-1) ** 0.5
            return torch.bmm(scores.softmax(-1), v)

        start(); steps(4)
        q = k = v = torch.randn(8, 128, 64)
        attention(q, k, v)
        """,
        script="attention_probe.py",
    ),
    python(
        "residual-add",
        "size-must-match",
        {_CODE: r"The size of tensor a \(\d+\) must match the size of tensor b"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Block(nn.Module):
            def __init__(self, c_in, c_out, stride):
                super().__init__()
                self.conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
                self.skip = nn.Identity()

            def forward(self, x):
                return torch.relu(self.conv(x) + self.skip(x))

        start("tqdm", name="resnet")
        steps(3)
        Block(64, 64, 2)(torch.randn(4, 64, 56, 56))
        """,
    ),
    python(
        "concat-ragged",
        "sizes-except-dimension",
        {_CODE: r"Sizes of tensors must match except in dimension 1"},
        """
        import torch
        from joblog import start, steps
        start(); steps(5)
        prompt, answer = torch.zeros(4, 77, 768), torch.zeros(2, 77, 768)
        context = torch.cat([prompt, answer], dim=1)
        """,
    ),
    python(
        "collate-ragged",
        "stack-equal-size",
        {_CODE: r"stack expects each tensor to be equal size"},
        """
        import torch
        from torch.utils.data import DataLoader
        from joblog import start, steps
        start()
        data = [torch.zeros(length, dtype=torch.long) for length in (128, 97, 128, 64)]
        loader = DataLoader(data, batch_size=4)
        for batch in loader:
            steps(1)
        """,
    ),
    python(
        "collate-ragged-worker",
        "stack-equal-size",
        {_CODE: r"stack expects each tensor to be equal size"},
        """
        import torch
        from torch.utils.data import DataLoader, Dataset
        from joblog import start, steps

        class Reviews(Dataset):
            def __len__(self):
                return 64

            def __getitem__(self, index):
                return torch.ones(20 + index % 7, dtype=torch.long), index % 2

        start("logging", name="sentiment")
        for tokens, label in DataLoader(Reviews(), batch_size=8, num_workers=2):
            steps(1)
        """,
    ),
    python(
        "reshape-patches",
        "invalid-view",
        {_CODE: r"shape '\[.*\]' is invalid for input of size"},
        """
        import torch
        from joblog import start, steps
        start(); steps(3)
        images = torch.randn(16, 3, 230, 230)
        patches = images.reshape(16, 3, 14, 16, 14, 16)
        """,
    ),
    python(
        "view-not-contiguous",
        "view-stride",
        {_CODE: r"view size is not compatible with input tensor's size and stride"},
        """
        import torch
        from joblog import start, steps
        start(); steps(3)
        hidden = torch.randn(2, 8, 128, 64).transpose(1, 2)
        merged = hidden.view(2, 128, 512)
        """,
    ),
    python(
        "conv-channels",
        "conv-channels",
        {_CODE: r"expected input\[.*\] to have 3 channels, but got 1 channels instead"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("bracket", name="convnet"); steps(4)
        stem = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
        stem(torch.randn(8, 1, 224, 224))
        """,
    ),
    python(
        "kernel-larger-than-input",
        "kernel-size",
        {_CODE: r"Kernel size can't be greater than actual input size"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start(); steps(2)
        net = nn.Sequential(nn.Conv1d(80, 256, 3), nn.MaxPool1d(4), nn.Conv1d(256, 256, 9))
        net(torch.randn(1, 80, 20))
        """,
    ),
    python(
        "cross-entropy-rows",
        "loss-batch-size",
        {_CODE: r"Expected input batch_size \(\d+\) to match target batch_size"},
        """
        import torch
        import torch.nn.functional as F
        from joblog import start, steps
        start("hf"); steps(5)
        logits, labels = torch.randn(4, 127, 32000), torch.randint(0, 32000, (4, 128))
        loss = F.cross_entropy(logits.view(-1, 32000), labels.view(-1))
        """,
    ),
    python(
        "bce-target-size",
        "loss-target-size",
        {_CODE: r"Target size \(torch.Size\(\[32\]\)\) must be the same as input size"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start(); steps(5)
        criterion = nn.BCEWithLogitsLoss()
        criterion(torch.randn(32, 1), torch.ones(32))
        """,
    ),
    python(
        "mask-dtype",
        "index-tensor-dtype",
        {_CODE: r"tensors used as indices must be long, int, byte or bool"},
        """
        import torch
        from joblog import start, steps
        start(); steps(4)
        hidden = torch.randn(8, 64)
        keep = (torch.rand(8) > 0.5).float()
        hidden[keep].sum().backward()
        """,
    ),
    python(
        "half-and-float",
        "dtype-same",
        {_CODE: r"must have the same dtype|expected .* same dtype|expected scalar type"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("megatron"); steps(3)
        projection = nn.Linear(512, 512).to(torch.bfloat16)
        projection(torch.randn(4, 512))
        """,
    ),
    python(
        "embedding-float-ids",
        "embedding-indices-dtype",
        {_CODE: r"Expected tensor for argument #1 'indices' to have one of the following scalar"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("zh"); steps(4)
        table = nn.Embedding(21128, 256)
        table(torch.randint(0, 21128, (4, 32)).float())
        """,
    ),
    python(
        "mse-long-target",
        "grad-of-integers",
        {_CODE: r"Only Tensors of floating point and complex dtype can require gradients"},
        """
        import torch
        from joblog import start, steps
        start(); steps(1)
        scale = torch.nn.Parameter(torch.tensor([1, 2, 3]))
        """,
    ),
    python(
        "optimizer-no-grad",
        "no-grad-fn",
        {_CODE: r"element 0 of tensors does not require grad and does not have a grad_fn"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("logging"); steps(4)
        model = nn.Linear(16, 2)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        loss = model(torch.randn(4, 16)).pow(2).mean()
        loss.backward()
        """,
    ),
    python(
        "backward-twice",
        "backward-second-time",
        {_CODE: r"Trying to backward through the graph a second time"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start(); steps(4)
        critic = nn.Linear(8, 1)
        score = critic(torch.randn(16, 8)).pow(2).mean()
        score.backward()
        (score * 0.5).backward()
        """,
        script="train_gan.py",
    ),
    python(
        "inplace-relu",
        "inplace-modified",
        {_CODE: r"has been modified by an inplace operation"},
        """
        import torch
        from joblog import start, steps
        start("json"); steps(4)
        weight = torch.randn(4, 4, requires_grad=True)
        gate = torch.sigmoid(weight)
        gate += 1
        gate.sum().backward()
        """,
    ),
    python(
        "meta-device",
        "tensors-on-one-device",
        {_CODE: r"not on the expected device|Expected all tensors to be on the same device"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("hf"); steps(3)
        with torch.device("meta"):
            decoder = nn.Linear(128, 128)
        x = torch.randn(4, 128)
        print(torch.cat([decoder(torch.randn(4, 128, device="meta")), x]))
        """,
    ),
    python(
        "meta-copy",
        "meta-no-data",
        {_CODE: r"Cannot copy out of meta tensor; no data!"},
        """
        import torch
        from torch import nn
        from joblog import start, say
        start("plain")
        say("building the model on device meta")
        with torch.device("meta"):
            model = nn.TransformerEncoderLayer(256, 4)
        model.to("cpu")
        """,
    ),
    python(
        "numpy-of-grad",
        "numpy-requires-grad",
        {_CODE: r"Can't call numpy\(\) on Tensor that requires grad"},
        """
        import torch
        from joblog import start, steps
        start(); steps(6)
        scores = torch.randn(8, requires_grad=True) * 2
        metrics = {"auc": scores.numpy().mean()}
        """,
        script="eval.py",
    ),
    python(
        "numpy-broadcast",
        "numpy-broadcast",
        {_CODE: r"operands could not be broadcast together with shapes"},
        """
        import numpy as np
        from joblog import start, steps
        start(); steps(2)
        features, mean = np.zeros((1000, 39), np.float32), np.zeros(40)
        features = (features - mean) / 1.0
        """,
        script="preprocess.py",
    ),
    python(
        "numpy-object-to-tensor",
        "numpy-object-dtype",
        {_CODE: r"can't convert np.ndarray of type numpy.object_"},
        """
        import numpy as np
        import torch
        from joblog import start, steps
        start("zh"); steps(2)
        rows = np.array([[1.0, 2.0], [3.0, None]], dtype=object)
        torch.from_numpy(rows)
        """,
    ),
    python(
        "sklearn-features",
        "sklearn-n-features",
        {_CODE: r"ValueError: X has 12 features, but StandardScaler is expecting 10 features"},
        """
        import numpy as np
        from sklearn.preprocessing import StandardScaler
        from joblog import start, steps
        start(); steps(2)
        scaler = StandardScaler().fit(np.random.rand(50, 10))
        scaler.transform(np.random.rand(5, 12))
        """,
        script="fit_probe.py",
    ),
    python(
        "layer-norm-shape",
        "normalized-shape",
        {_CODE: r"Given normalized_shape=\[768\], expected input with shape"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("json"); steps(3)
        nn.LayerNorm(768)(torch.randn(2, 16, 1024))
        """,
    ),
    python(
        "lstm-hidden",
        "rnn-hidden-size",
        {_CODE: r"Expected hidden\[0\] size \(2, 16, 128\), got"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("bracket"); steps(3)
        lstm = nn.LSTM(40, 128, num_layers=2, batch_first=True)
        state = (torch.zeros(1, 16, 128), torch.zeros(1, 16, 128))
        lstm(torch.randn(16, 50, 40), state)
        """,
    ),
    ranks(
        "ddp-shape-one-rank",
        "matmul-shapes",
        {
            _CODE: r"mat1 and mat2 shapes cannot be multiplied",
            "Network_Timeout": r"Connection closed by peer|Connection reset by peer",
        },
        """
        import os
        import time
        import torch
        import torch.distributed as dist
        from torch import nn
        from joblog import start, steps

        dist.init_process_group("gloo")
        rank = dist.get_rank()
        start("bracket")
        steps(2)
        model = nn.Linear(64, 8)
        if rank == 1:
            time.sleep(1)
            model(torch.randn(4, 63))
        grad = torch.ones(8)
        dist.all_reduce(grad)
        """,
    ),
)
