"""Images that lack modules, libraries and symbols."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, shell
from training.train_failure_rca.corpus.provoke.scenarios._build import BUILD

_ENV = "Image_Env_Error"
_EXTENSION = """
#include <Python.h>
extern int fused_adam_launch(int);
static PyObject *launch(PyObject *self, PyObject *args) {
  return PyLong_FromLong(fused_adam_launch(1));
}
static PyMethodDef methods[] = {{"launch", launch, METH_VARARGS, 0}, {0, 0, 0, 0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "fused_ops", 0, -1, methods};
PyMODINIT_FUNC PyInit_fused_ops(void) { return PyModule_Create(&module); }
"""
_INCLUDE = "$(python -c \"import sysconfig; print(sysconfig.get_paths()['include'])\")"
SCENARIOS = (
    python(
        "no-module-flash-attn",
        "no-module",
        {_ENV: r"ModuleNotFoundError: No module named 'flash_attn'"},
        """
        from joblog import start, say
        start("plain", name="pretrain")
        say("attention implementation: flash_attention_2")
        from flash_attn import flash_attn_func
        """,
    ),
    python(
        "no-module-deepspeed",
        "no-module",
        {_ENV: r"ModuleNotFoundError: No module named 'deepspeed'"},
        """
        import deepspeed
        """,
    ),
    python(
        "no-module-zh",
        "no-module",
        {_ENV: r"ModuleNotFoundError: No module named 'sentencepiece'"},
        """
        from joblog import start, say
        start("zh")
        say("加载分词器")
        import sentencepiece
        """,
    ),
    python(
        "no-submodule",
        "no-module",
        {_ENV: r"ModuleNotFoundError: No module named 'torch.ao.quantization.fx.legacy'"},
        """
        import torch
        from torch.ao.quantization.fx.legacy import convert
        """,
    ),
    shell(
        "python-m-missing",
        "no-module",
        {_ENV: r"python: No module named accelerate"},
        """
        echo "[launch] accelerate launch, 1 machine, 8 processes"
        python -m accelerate.commands.launch train.py || python -m accelerate launch train.py
        """,
    ),
    python(
        "import-name",
        "cannot-import-name",
        {_ENV: r"ImportError: cannot import name 'LlamaFlashAttention2' from"},
        """
        from transformers.models.llama.modeling_llama import LlamaFlashAttention2
        """,
    ),
    python(
        "torch-not-compiled-with-cuda",
        "cpu-only-build",
        {_ENV: r"AssertionError: Torch not compiled with CUDA enabled"},
        """
        import torch
        from torch import nn
        from joblog import start, say
        start("logging", name="trainer")
        say(f"torch {torch.__version__}")
        model = nn.Linear(8, 8).cuda()
        """,
    ),
    python(
        "trainer-needs-accelerate",
        "requires-package",
        {_ENV: r"ImportError: Using the `Trainer` with `PyTorch` requires `accelerate"},
        """
        from transformers import TrainingArguments
        arguments = TrainingArguments(output_dir="out", per_device_train_batch_size=8)
        print(arguments.device)
        """,
        script="run_clm.py",
    ),
    python(
        "tokenizer-needs-sentencepiece",
        "requires-package",
        {_ENV: r"requires the SentencePiece library|sentencepiece|SentencePiece"},
        """
        import json, os
        from transformers import AlbertTokenizer
        AlbertTokenizer.from_pretrained("albert")
        """,
    ),
    python(
        "quantization-needs-package",
        "requires-package",
        {_ENV: r"(ImportError|PackageNotFoundError): .*bitsandbytes"},
        """
        from transformers import AutoModel, BertConfig, BertModel, BitsAndBytesConfig
        config = BertConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
        BertModel(config).save_pretrained("base")
        print("loading base in 4 bit")
        AutoModel.from_pretrained("base", quantization_config=BitsAndBytesConfig(load_in_4bit=True))
        """,
    ),
    python(
        "dispatch-version",
        "version-requirement",
        {_ENV: r"ImportError: tokenizers>=99.0 is required"},
        """
        from transformers.utils.versions import require_version
        print("checking the environment")
        require_version("tokenizers>=99.0", "To fix: pip install -r requirements.txt")
        """,
    ),
    shell(
        "undefined-symbol",
        "undefined-symbol",
        {_ENV: r"ImportError: .*fused_ops.so: undefined symbol: fused_adam_launch"},
        BUILD.format(
            code=_EXTENSION,
            compile=f"gcc -shared -fPIC -I{_INCLUDE} ops/kernel.c -o fused_ops.so",
        )
        + 'echo "[ops] using the prebuilt fused kernels"\npython train.py\n',
        files={"train.py": "import torch\nimport fused_ops\n"},
        needs=("gcc",),
    ),
    shell(
        "undefined-symbol-ctypes",
        "undefined-symbol",
        {_ENV: r"OSError: .*libsampler.so: undefined symbol: cg_reduce_all"},
        BUILD.format(
            code="extern int cg_reduce_all(void); int go(void) { return cg_reduce_all(); }",
            compile="gcc -shared -fPIC ops/kernel.c -o libsampler.so",
        )
        + "python train.py\n",
        files={
            "train.py": """
            import ctypes
            from joblog import start
            start("bracket")
            ctypes.CDLL("./libsampler.so", mode=2)
            """
        },
        needs=("gcc",),
    ),
    shell(
        "missing-shared-library",
        "missing-shared-library",
        {_ENV: r"ImportError: libfastio.so.3: cannot open shared object file"},
        BUILD.format(
            code=_EXTENSION.replace("fused_adam_launch(1)", "fast_open()").replace(
                "fused_adam_launch(int)", "fast_open(void)"
            ),
            compile="echo 'int fast_open(void) { return 1; }' > build/io.c\n"
            "gcc -shared -fPIC build/io.c -Wl,-soname,libfastio.so.3 -o build/libfastio.so.3\n"
            f"gcc -shared -fPIC -I{_INCLUDE} ops/kernel.c build/libfastio.so.3 -o fused_ops.so\n"
            "rm build/libfastio.so.3",
        )
        + "python train.py\n",
        files={"train.py": "from joblog import start\nstart('logging')\nimport fused_ops\n"},
        needs=("gcc",),
    ),
    python(
        "ctypes-library",
        "missing-shared-library",
        {_ENV: r"OSError: libcudart.so.11.0: cannot open shared object file"},
        """
        import ctypes
        from joblog import start
        start("zh")
        ctypes.CDLL("libcudart.so.11.0")
        """,
    ),
    shell(
        "loader-library",
        "missing-shared-library",
        {_ENV: r"error while loading shared libraries: libmpi.so.40"},
        """
        mkdir build
        echo 'int mpi_go(void) { return 0; }' > build/mpi.c
        echo 'extern int mpi_go(void); int main(void) { return mpi_go(); }' > build/main.c
        gcc -shared -fPIC build/mpi.c -Wl,-soname,libmpi.so.40 -o build/libmpi.so.40
        gcc build/main.c build/libmpi.so.40 -o allreduce_perf && rm build/libmpi.so.40
        echo "[check] bandwidth test before training"
        ./allreduce_perf
        """,
        needs=("gcc",),
    ),
    shell(
        "library-symbol-version",
        "symbol-version",
        {_ENV: r"version `FASTIO_2.4' not found \(required by"},
        """
        mkdir build
        echo 'int fast_open(void) { return 1; }' > build/io.c
        echo 'FASTIO_2.4 { global: fast_open; };' > build/new.map
        echo 'FASTIO_2.1 { global: fast_open; };' > build/old.map
        echo 'extern int fast_open(void); int main(void) { return !fast_open(); }' > build/main.c
        link="gcc -shared -fPIC build/io.c -Wl,-soname,libfastio.so"
        $link -Wl,--version-script=build/new.map -o libfastio.so
        gcc build/main.c -L. -lfastio -Wl,-rpath,$PWD -o shard_reader
        $link -Wl,--version-script=build/old.map -o libfastio.so
        echo "[data] starting shard_reader"
        ./shard_reader
        """,
        needs=("gcc",),
    ),
    shell(
        "not-an-elf",
        "invalid-binary",
        {_ENV: r"OSError: .*libkernels.so: (invalid ELF header|file too short)"},
        """
        echo "<html>Not Found</html>" > libkernels.so
        head -c 3000 /dev/zero | tr '\\0' 'x' >> libkernels.so
        python -c "import ctypes; print('loading kernels'); ctypes.CDLL('./libkernels.so')"
        """,
    ),
    shell(
        "exec-format",
        "invalid-binary",
        {_ENV: r"Exec format error"},
        """
        printf '\\177ELF\\002\\001\\001\\000aarch64' > dataprep; chmod +x dataprep
        echo "[stage 1] dataprep"
        ./dataprep --shards 8
        """,
    ),
)
