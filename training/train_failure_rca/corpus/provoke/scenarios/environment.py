"""Images and environments that lack something: modules, libraries, commands, fitting packages."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell

_ENV = "Image_Env_Error"
_BUILD = """
set -e
mkdir -p build ops
cat > ops/kernel.c <<'C'
{code}
C
{compile}
"""
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
_WHEEL = """
import base64, hashlib, sys, zipfile

def wheel(name, version, requires=(), tag="py3-none-any"):
    # The smallest wheel pip accepts.
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    metadata += "".join(f"Requires-Dist: {line}\\n" for line in requires)
    with zipfile.ZipFile(f"wheels/{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        archive.writestr(f"{info}/RECORD", "")
"""

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
        "no-module-m",
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
        _BUILD.format(
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
        _BUILD.format(
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
        _BUILD.format(
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
        {
            _ENV: r"error while loading shared libraries: libmpi.so.40: cannot open shared object file"
        },
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
    shell(
        "command-not-found",
        "command-not-found",
        {_ENV: r"run.sh: line 3: deepspeed: command not found"},
        """
        set -e
        echo "[launch] host $(hostname), 8 devices"
        deepspeed --num_gpus 8 train.py --deepspeed ds_config.json
        """,
    ),
    shell(
        "command-not-found-srun",
        "command-not-found",
        {_ENV: r"srun: command not found"},
        """
        echo "启动训练任务 $(date '+%F %T')"
        srun --ntasks=8 python train.py
        echo "任务退出码 $?"; exit 127
        """,
    ),
    shell(
        "sh-not-found",
        "command-not-found",
        {_ENV: r"sh: 1: mpirun: not found"},
        """
        python - <<'PY'
        import subprocess
        print("starting 16 processes with mpirun", flush=True)
        raise SystemExit(subprocess.call("mpirun -np 16 python train.py", shell=True))
        PY
        """.replace("        ", ""),
    ),
    python(
        "subprocess-no-executable",
        "no-such-executable",
        {_ENV: r"FileNotFoundError: \[Errno 2\] No such file or directory: 'ffmpeg'"},
        """
        import subprocess
        from joblog import start, say
        start("plain", name="video")
        say("decoding 2000 clips")
        subprocess.run(["ffmpeg", "-i", "clip_000.mp4", "out.wav"], check=True)
        """,
    ),
    shell(
        "bad-interpreter",
        "bad-interpreter",
        {
            _ENV: r"(bad interpreter: No such file or directory|cannot execute: required file not found)"
        },
        """
        printf '#!/opt/py310/bin/python\\nprint(1)\\n' > train; chmod +x train
        echo "[run] ./train --config base.yaml"
        ./train --config base.yaml
        """,
    ),
    shell(
        "pip-no-match",
        "pip-no-distribution",
        {_ENV: r"ERROR: No matching distribution found for flash-attn==2.6.3"},
        """
        set -e
        mkdir wheels
        echo "flash-attn==2.6.3" > requirements.txt
        python -m pip install --no-index --find-links wheels --target site -r requirements.txt
        python train.py
        """,
    ),
    shell(
        "pip-conflict",
        "pip-resolution",
        {_ENV: r"ERROR: (Cannot install|ResolutionImpossible)"},
        """
        set -e
        mkdir wheels
        python make_wheels.py
        python -m pip install --no-index --find-links wheels --target site megalm==1.2 tokenlib==0.20
        """,
        files={
            "make_wheels.py": _WHEEL
            + "wheel('megalm', '1.2', ['tokenlib<0.19,>=0.14'])\n"
            + "wheel('tokenlib', '0.20')\nwheel('tokenlib', '0.18')\n"
        },
    ),
    shell(
        "pip-wrong-platform",
        "pip-wheel-platform",
        {
            _ENV: r"ERROR: fusedops-1.0-cp38-cp38-win_amd64.whl is not a supported wheel on this platform"
        },
        """
        mkdir wheels
        python make_wheels.py
        echo "installing the fused kernels"
        python -m pip install --no-index --target site wheels/fusedops-1.0-cp38-cp38-win_amd64.whl
        """,
        files={"make_wheels.py": _WHEEL + "wheel('fusedops', '1.0', tag='cp38-cp38-win_amd64')\n"},
    ),
    shell(
        "pip-check",
        "pip-check",
        {_ENV: r"megalm 1.2 (requires nccltools, which is not installed|has requirement)"},
        """
        mkdir wheels
        python make_wheels.py
        python -m pip install -q --no-deps --no-index --find-links wheels --target site megalm
        echo "[preflight] pip check"
        PYTHONPATH=site python -m pip --disable-pip-version-check check
        """,
        files={"make_wheels.py": _WHEEL + "wheel('megalm', '1.2', ['nccltools'])\n"},
    ),
    shell(
        "build-fails-no-compiler-header",
        "extension-build",
        {_ENV: r"fatal error: cuda_runtime_api_v13.h: No such file or directory"},
        _BUILD.format(
            code="#include <cuda_runtime_api_v13.h>\nint main(void) { return 0; }",
            compile='echo "building extension fused_ops"\n'
            "gcc -shared -fPIC ops/kernel.c -o build/fused_ops.so",
        ),
        needs=("gcc",),
    ),
    shell(
        "linker-library",
        "extension-link",
        {_ENV: r"ld: cannot find -lcublas_static_v12"},
        _BUILD.format(
            code="int main(void) { return 0; }",
            compile='echo "linking fused_ops"\ngcc ops/kernel.c -lcublas_static_v12 -o build/ops',
        ),
        needs=("gcc",),
    ),
    python(
        "onnxruntime-library",
        "ort-custom-ops",
        {_ENV: r"Failed to load library ./libcustom_ops.so"},
        """
        import onnxruntime
        from joblog import start, say
        start("plain", name="export")
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library("./libcustom_ops.so")
        """,
    ),
    ranks(
        "no-module-ranks",
        "no-module",
        {_ENV: r"ModuleNotFoundError: No module named 'apex'"},
        """
        import torch
        import torch.distributed as dist
        from joblog import start
        dist.init_process_group("gloo")
        start("megatron")
        from apex.optimizers import FusedAdam
        """,
    ),
)
