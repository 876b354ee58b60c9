"""Model code: attributes, calls, types and indexes that are wrong."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python

_CODE = "Model_Code_Error"

SCENARIOS = (
    python(
        "module-attribute",
        "no-attribute",
        {_CODE: r"AttributeError: 'Encoder' object has no attribute 'lm_head'"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(8, 8)

            def forward(self, x):
                return self.lm_head(self.body(x))

        start("plain"); steps(2)
        Encoder()(torch.randn(2, 8))
        """,
    ),
    python(
        "none-attribute",
        "no-attribute",
        {_CODE: r"AttributeError: 'NoneType' object has no attribute 'grad'"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start(); steps(4)
        layer = nn.Linear(4, 4, bias=False)
        norm = layer.bias.grad.norm()
        """,
    ),
    python(
        "attribute-before-init",
        "before-module-init",
        {_CODE: r"cannot assign module before Module.__init__\(\) call"},
        """
        from torch import nn
        from joblog import start

        class Adapter(nn.Module):
            def __init__(self, rank):
                self.down = nn.Linear(768, rank)
                super().__init__()

        start("logging")
        Adapter(8)
        """,
    ),
    python(
        "unexpected-keyword",
        "call-signature",
        {_CODE: r"TypeError: .*got an unexpected keyword argument 'attention_mask'"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Tower(nn.Module):
            def forward(self, input_ids):
                return input_ids.float().mean()

        start("hf"); steps(3)
        batch = {"input_ids": torch.ones(2, 8), "attention_mask": torch.ones(2, 8)}
        Tower()(**batch)
        """,
    ),
    python(
        "missing-positional",
        "call-signature",
        {_CODE: r"missing 1 required positional argument: 'targets'"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Criterion(nn.Module):
            def forward(self, logits, targets):
                return (logits - targets).pow(2).mean()

        start("zh"); steps(3)
        criterion = Criterion()
        loss = criterion(torch.randn(4, 2))
        """,
    ),
    python(
        "not-callable",
        "not-callable",
        {_CODE: r"TypeError: 'Tensor' object is not callable"},
        """
        import torch
        from joblog import start, steps
        start(); steps(3)
        loss = torch.tensor(0.3)
        print(loss())
        """,
    ),
    python(
        "concatenate-types",
        "operand-types",
        {_CODE: r"TypeError: can only concatenate str \(not \"float\"\) to str"},
        """
        from joblog import start, steps
        start("plain"); steps(5)
        best = 0.8123
        print("best metric so far: " + best)
        """,
        script="evaluate.py",
    ),
    python(
        "none-times-tensor",
        "operand-types",
        {_CODE: r"TypeError: unsupported operand type\(s\) for \*: 'NoneType' and 'Tensor'"},
        """
        import torch
        from joblog import start, steps
        start("megatron"); steps(2)

        def schedule(step):
            if step < 100:
                weight = step / 100

        loss = schedule(20) * torch.tensor(2.0)
        """,
    ),
    python(
        "embedding-out-of-range",
        "index-out-of-range",
        {_CODE: r"IndexError: index out of range in self"},
        """
        import torch
        from torch import nn
        from joblog import start, steps
        start("tqdm"); steps(5)
        tokens = nn.Embedding(32000, 64)
        tokens(torch.tensor([[1, 5, 32000]]))
        """,
    ),
    python(
        "target-out-of-bounds",
        "target-out-of-bounds",
        {_CODE: r"IndexError: Target 10 is out of bounds"},
        """
        import torch
        import torch.nn.functional as F
        from joblog import start, steps
        start("json"); steps(5)
        F.cross_entropy(torch.randn(4, 10), torch.tensor([0, 3, 10, 9]))
        """,
    ),
    python(
        "list-index",
        "list-index",
        {_CODE: r"IndexError: list index out of range"},
        """
        from joblog import start, steps
        start("logging"); steps(4)
        prompts = ["a", "b", "c"]
        batch = [prompts[i] for i in range(4)]
        """,
    ),
    python(
        "list-index-worker",
        "list-index",
        {_CODE: r"^(\[.*\]: )?IndexError: list index out of range"},
        """
        from torch.utils.data import DataLoader, Dataset
        from joblog import start, steps

        class Manifest(Dataset):
            rows = list(range(20))

            def __len__(self):
                return 24

            def __getitem__(self, index):
                return self.rows[index]

        start("plain"); steps(2)
        for batch in DataLoader(Manifest(), batch_size=8, num_workers=2):
            steps(1)
        """,
    ),
    python(
        "dimension-out-of-range",
        "dimension-range",
        {_CODE: r"IndexError: Dimension out of range \(expected to be in range of"},
        """
        import torch
        from joblog import start, steps
        start("bracket"); steps(2)
        torch.randn(8, 16).softmax(dim=2)
        """,
    ),
    python(
        "too-many-indices",
        "too-many-indices",
        {_CODE: r"IndexError: too many indices for tensor of dimension 2"},
        """
        import torch
        from joblog import start, steps
        start("zh"); steps(2)
        hidden = torch.randn(4, 768)
        cls = hidden[:, 0, :]
        """,
    ),
    python(
        "name-error",
        "name-not-defined",
        {_CODE: r"NameError: name 'optimzer' is not defined"},
        """
        import torch
        from joblog import start, steps
        start(); steps(3)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        optimzer.zero_grad()
        """,
    ),
)
