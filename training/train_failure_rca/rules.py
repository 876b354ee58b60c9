"""The simplest baseline: one regular expression a label, as an SRE would write in an afternoon."""

from __future__ import annotations

import re

RULES = {
    "OOM": r"OOMKilled|oom-kill|bad_alloc|Cannot allocate memory|Out of memory: Kill",
    "CUDA_OutOfMemory": r"(CUDA|HIP|NPU) out of memory|OutOfMemoryError|显存不足",
    "CUDA_Driver_Mismatch": r"driver version is insufficient|no kernel image|NVIDIA driver"
    r"|library version mismatch|驱动版本不匹配",
    "DataLoader_Stuck": r"DataLoader (worker|timed out)|insufficient shared memory",
    "Disk_Full": r"No space left on device|磁盘空间",
    "Permission_Denied": r"Permission denied|PermissionError|AccessDenied|40[13] Client Error|权限",
    "Network_Timeout": r"timed out|Connection (reset|refused|closed)|Watchdog caught"
    r"|RendezvousTimeout|网络超时|通信超时",
    "Model_Code_Error": r"shapes cannot be multiplied|AttributeError|TypeError|IndexError"
    r"|NameError|SyntaxError|device-side assert|same device|expected scalar type",
    "GPU_Hardware_Fault": r"Xid.*: (48|63|64|74|79|92|94|95|119|120)\b|fallen off the bus"
    r"|uncorrectable|掉卡",
    "Network_Link_Flap": r"[Ll]ink (is )?down|port error|status=12|link status definitely down",
    "Storage_Quota": r"[Qq]uota exceeded|EDQUOT|配额",
    "Image_Env_Error": r"ErrImagePull|ImagePullBackOff|ModuleNotFoundError|undefined symbol"
    r"|GLIBC|cannot open shared object|command not found|镜像拉取",
    "Config_Error": r"unrecognized arguments|yaml\.scanner|KeyError|not divisible"
    r"|FileNotFoundError|配置错误",
    "Checkpoint_Error": r"state_dict|PytorchStreamReader|SafetensorError|UnpicklingError"
    r"|Ran out of input|检查点",
}
_COMPILED = {label: re.compile(pattern) for label, pattern in RULES.items()}


def labels_by_rule(log: str) -> frozenset[str]:
    """Every label whose expression is found anywhere in the log."""
    return frozenset(label for label, rule in _COMPILED.items() if rule.search(log))
