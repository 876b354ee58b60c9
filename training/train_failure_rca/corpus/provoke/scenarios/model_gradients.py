"""Model code: gradients, devices and libraries used wrongly."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks

_CODE = "Model_Code_Error"

SCENARIOS = (
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
