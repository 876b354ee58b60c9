"""Model code: what is unbound, unpickled, unimplemented or unused."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_CODE = "Model_Code_Error"

SCENARIOS = (
    python(
        "unbound-local",
        "unbound-local",
        {_CODE: r"UnboundLocalError: cannot access local variable 'loss'"},
        """
        from joblog import start, steps

        def run_epoch(loader):
            for batch in loader:
                loss = batch * 2
            return loss

        start("json"); steps(2)
        run_epoch([])
        """,
    ),
    python(
        "syntax-error",
        "syntax",
        {_CODE: r"SyntaxError: (invalid syntax|expected ':')"},
        """
        import torch

        def forward(x)
            return x * 2
        """,
    ),
    shell(
        "indentation-error",
        "syntax",
        {_CODE: r"IndentationError: unindent does not match any outer indentation level"},
        """
        set -e
        echo "[entrypoint] starting at $(date '+%F %T') on 1 node"
        python -u train.py
        """,
        files={
            "train.py": """
            import torch

            def step(model, batch):
                loss = model(batch)
               loss.backward()
            """
        },
    ),
    python(
        "tokenizer-returns-list",
        "no-attribute",
        {_CODE: r"AttributeError: 'list' object has no attribute 'to'"},
        """
        import torch
        from joblog import start, steps
        start("hf"); steps(2)
        batch = {"input_ids": [[101, 2023, 102]], "labels": torch.tensor([1])}
        batch = {key: value.to("cpu") for key, value in batch.items()}
        """,
    ),
    python(
        "key-error-batch",
        "batch-key",
        {_CODE: r"KeyError: 'pixel_values'"},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Clip(nn.Module):
            def forward(self, batch):
                return batch["pixel_values"].mean()

        start("plain"); steps(3)
        Clip()({"images": torch.zeros(2, 3, 8, 8)})
        """,
    ),
    python(
        "zero-division",
        "zero-division",
        {_CODE: r"ZeroDivisionError: (division by zero|float division)"},
        """
        from joblog import start, steps
        start("logging"); steps(4)
        correct, total = 0, 0
        for batch in []:
            total += len(batch)
        print(f"accuracy {correct / total:.3f}")
        """,
    ),
    python(
        "recursion",
        "recursion",
        {_CODE: r"RecursionError: maximum recursion depth exceeded"},
        """
        from joblog import start, steps

        class Lazy:
            def __getattr__(self, name):
                return getattr(self.inner, name)

        start("plain"); steps(2)
        Lazy().forward
        """,
    ),
    python(
        "abstract-class",
        "abstract-class",
        {_CODE: r"TypeError: Can't instantiate abstract class"},
        """
        from abc import ABC, abstractmethod
        from joblog import start

        class Reward(ABC):
            @abstractmethod
            def score(self, text): ...

        class LengthReward(Reward):
            def scores(self, text):
                return len(text)

        start("zh")
        LengthReward()
        """,
    ),
    python(
        "not-implemented-forward",
        "missing-forward",
        {_CODE: r"NotImplementedError: Module \[Decoder\] is missing the required \"forward\""},
        """
        import torch
        from torch import nn
        from joblog import start, steps

        class Decoder(nn.Module):
            def foward(self, x):
                return x

        start("bracket"); steps(2)
        Decoder()(torch.zeros(1))
        """,
    ),
    python(
        "unpack-values",
        "unpack",
        {_CODE: r"ValueError: (too many values to unpack|not enough values to unpack)"},
        """
        import torch
        from joblog import start, steps
        start("hf"); steps(3)
        for x, y, weight in [(torch.zeros(2), torch.ones(2))]:
            pass
        """,
    ),
    python(
        "pickle-lambda",
        "pickle-local",
        {_CODE: r"(AttributeError|PicklingError): Can't (get local|pickle local) object"},
        """
        import torch
        from torch.utils.data import DataLoader
        from joblog import start

        def main():
            start("plain")
            loader = DataLoader(
                list(range(8)),
                num_workers=2,
                multiprocessing_context="spawn",
                collate_fn=lambda rows: torch.tensor(rows),
            )
            for batch in loader:
                print(batch)

        if __name__ == "__main__":
            main()
        """,
    ),
    python(
        "scalar-item",
        "scalar-conversion",
        {_CODE: r"a Tensor with 32 elements cannot be converted to Scalar"},
        """
        import torch
        from joblog import start, steps
        start("tqdm"); steps(4)
        loss = torch.nn.functional.mse_loss(torch.zeros(32), torch.ones(32), reduction="none")
        running = loss.item()
        """,
    ),
    python(
        "jit-type",
        "torchscript",
        {_CODE: r"Expected a value of type 'List\[int\]' for argument"},
        """
        import torch
        from joblog import start, say

        @torch.jit.script
        def pad(x: torch.Tensor, amount: int):
            return torch.nn.functional.pad(x, amount)

        start("plain"); say("exported")
        """,
        script="compile_ops.py",
    ),
    python(
        "assert-nan-guard",
        "user-assert",
        {_CODE: r"AssertionError: attention mask must be 2-d, got 3-d"},
        """
        import torch
        from joblog import start, steps
        start("json"); steps(3)
        mask = torch.ones(2, 1, 8)
        assert mask.dim() == 2, f"attention mask must be 2-d, got {mask.dim()}-d"
        """,
    ),
    python(
        "autograd-function",
        "autograd-function-count",
        {_CODE: r"returned an incorrect number of gradients \(expected 2, got 1\)"},
        """
        import torch
        from joblog import start, steps

        class Quantise(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, scale):
                return (x / scale).round() * scale

            @staticmethod
            def backward(ctx, grad):
                return grad

        start(); steps(3)
        x = torch.randn(8, requires_grad=True)
        Quantise.apply(x, torch.tensor(0.1)).sum().backward()
        """,
    ),
    ranks(
        "ddp-unused-parameters",
        "ddp-reduction",
        {_CODE: r"Expected to have finished reduction in the prior iteration"},
        """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel
        from joblog import start, steps

        class TwoHeads(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

            def forward(self, x):
                return self.a(x)

        dist.init_process_group("gloo")
        start("bracket")
        model = DistributedDataParallel(TwoHeads())
        for _ in range(3):
            model(torch.randn(2, 4)).sum().backward()
            steps(1)
        """,
    ),
    ranks(
        "ddp-attribute",
        "no-attribute",
        {
            _CODE: r"AttributeError: 'DistributedDataParallel' object has no attribute "
            r"'generate'"
        },
        """
        import torch
        import torch.distributed as dist
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel
        from joblog import start, steps

        class Policy(nn.Linear):
            def generate(self):
                return 1

        dist.init_process_group("gloo")
        start("logging")
        model = DistributedDataParallel(Policy(2, 2))
        steps(1)
        model.generate()
        """,
        options=("--standalone", "--tee", "3"),
    ),
)
