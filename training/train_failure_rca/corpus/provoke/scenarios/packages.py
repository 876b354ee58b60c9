"""Images that lack commands, packages and compilers' inputs."""

from __future__ import annotations

from training.train_failure_rca.corpus.provoke.scenario import python, ranks, shell
from training.train_failure_rca.corpus.provoke.scenarios._build import BUILD
from training.train_failure_rca.corpus.provoke.scenarios._wheels import MAKE_WHEELS

_ENV = "Image_Env_Error"
SCENARIOS = (
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
        {_ENV: r"(bad interpreter: No such|cannot execute: required file not found)"},
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
        python -m pip install --find-links wheels --target site megalm==1.2 tokenlib==0.20
        """,
        files={
            "make_wheels.py": MAKE_WHEELS
            + "wheel('megalm', '1.2', ['tokenlib<0.19,>=0.14'])\n"
            + "wheel('tokenlib', '0.20')\nwheel('tokenlib', '0.18')\n"
        },
    ),
    shell(
        "pip-wrong-platform",
        "pip-wheel-platform",
        {_ENV: r"ERROR: fusedops-.*.whl is not a supported wheel on this platform"},
        """
        mkdir wheels
        python make_wheels.py
        echo "installing the fused kernels"
        python -m pip install --no-index --target site wheels/fusedops-1.0-cp38-cp38-win_amd64.whl
        """,
        files={
            "make_wheels.py": MAKE_WHEELS + "wheel('fusedops', '1.0', tag='cp38-cp38-win_amd64')\n"
        },
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
        files={"make_wheels.py": MAKE_WHEELS + "wheel('megalm', '1.2', ['nccltools'])\n"},
    ),
    shell(
        "build-fails-no-compiler-header",
        "extension-build",
        {_ENV: r"fatal error: cuda_runtime_api_v13.h: No such file or directory"},
        BUILD.format(
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
        BUILD.format(
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
