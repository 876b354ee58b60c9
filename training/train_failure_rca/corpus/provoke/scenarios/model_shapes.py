"""Model code: shapes and dtypes that do not fit."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python

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
)
