"""What an SRE's runbook knows by sight: several regular expressions a label.

They are the benchmark's baseline, and they stand beside the lines they know as a hint to the model,
which learns from its surroundings when to believe one. Written from what the field notes and years
of tickets name, before any figure of the benchmark and without the model's errors; not quite blind,
as the catalogue's wordings that the reader once missed were known.

Runs inside tritonserver: stdlib only.
"""

from __future__ import annotations

import re

from training.train_failure_rca.reading import read_lines

RULES: dict[str, tuple[str, ...]] = {
    "OOM": (
        r"OOMKilled|oom-kill|oom_kill|oom_reaper",
        r"Out of memory: Kill|Killed process \d+|Memory cgroup out of memory",
        r"bad_alloc|MemoryError|Cannot allocate memory|DefaultCPUAllocator: .*memory",
        r"exceeded (?:job |step )?memory limit|OUT_OF_MEMORY",
        r"内存不足|内存溢出|超出内存",
    ),
    "CUDA_OutOfMemory": (
        r"(?:CUDA|HIP|NPU|GPU|XPU) out of memory|torch\.(?:cuda\.)?OutOfMemoryError",
        r"CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED",
        r"RESOURCE_EXHAUSTED.*(?:alloc|OOM)|Failed to allocate .*(?:GPU|device|HBM)",
        r"显存不足|显存溢出|HBM.*不足",
    ),
    "CUDA_Driver_Mismatch": (
        r"driver version is insufficient|NVIDIA driver on your system is too old",
        r"no kernel image is available|Found no NVIDIA driver|CUDA driver initialization failed",
        r"Driver/library version mismatch|forward compatibility was attempted",
        r"detected CUDA version .* mismatches|not compatible with the current PyTorch",
        r"CUDNN_STATUS_(?:VERSION|ARCH)_MISMATCH|compiled with .*CUDNN|unsupported GNU version",
        r"驱动版本(?:不匹配|过低|过旧)|驱动.*不兼容",
    ),
    "DataLoader_Stuck": (
        r"DataLoader (?:worker|timed out)|worker \(pid.* (?:exited|killed)",
        r"insufficient shared memory|Bus error.*shared memory|shm.*(?:insufficient|too small)",
        r"dataloader.*(?:hang|hung|stuck|stall)|(?:stuck|hang).*data ?loader",
        r"数据加载.*(?:卡|超时|无响应|退出)|共享内存不足",
    ),
    "Disk_Full": (
        r"No space left on device|ENOSPC|\[Errno 28\]",
        r"disk (?:is )?full|filesystem .* full|DiskPressure|write failed.*space",
        r"磁盘(?:空间不足|已满|空间)|设备上没有空间",
    ),
    "Permission_Denied": (
        r"Permission denied|PermissionError|\[Errno 13\]|EACCES|Operation not permitted",
        r"AccessDenied|Access Denied|403 (?:Client Error|Forbidden)",
        r"401 (?:Client Error|Unauthorized)",
        r"Read-only file system|unauthorized: |not authorized|pull access denied|gated repo",
        r"权限不(?:足|够)|没有权限|拒绝访问|无权",
    ),
    "Network_Timeout": (
        r"[Tt]imed out|[Tt]imeoutError|timeout (?:expired|exceeded|reached)|DeadlineExceeded",
        r"Connection (?:reset|refused|closed|aborted)|ECONNREFUSED|ECONNRESET|No route to host",
        r"Watchdog caught|NCCL timeout|RendezvousTimeout|RendezvousConnectionError",
        r"Name or service not known|Temporary failure in name resolution|Max retries exceeded",
        r"ncclRemoteError|ncclSystemError|[Bb]roken pipe|failed to connect",
        r"(?:网络|通信|连接|集合通信)超时|连接被(?:拒绝|重置)",
    ),
    "Model_Code_Error": (
        r"shapes? .*(?:cannot be|mismatch)|size of tensor .* must match|size mismatch, m1",
        r"AttributeError|TypeError|IndexError|NameError|SyntaxError|IndentationError"
        r"|UnboundLocalError|ZeroDivisionError|NotImplementedError",
        r"device-side assert|same device|expected scalar type|expected (?:all )?tensors?",
        r"does not require grad|modified by an inplace|backward through the graph a second",
        r"illegal memory access|Xid.*: (?:13|31|43)\b|Dimension out of range|must be a Tensor",
        r"张量.*(?:形状|维度)|形状不匹配",
    ),
    "GPU_Hardware_Fault": (
        r"Xid.*: (?:48|61|62|63|64|74|79|92|94|95|119|120)\b|fallen off the bus",
        r"[Uu]ncorrectable|double.bit|ECC error|NVLink.*[Ee]rror|GPU is lost|row remap",
        r"Unable to determine the device handle|CUDA error: unspecified launch|hardware error",
        r"掉卡|ECC.*错误|芯片故障|硬件故障",
    ),
    "Network_Link_Flap": (
        r"[Ll]ink (?:is )?[Dd]own|link status definitely down|NIC Link is Down",
        r"port (?:error|down)|port state.*(?:DOWN|Down)|IBV_WC_RETRY_EXC_ERR|status=12",
        r"link.*flap|flapp(?:ed|ing)|IBV_EVENT_PORT_ERR|carrier lost|[Nn]o carrier",
        r"链路(?:抖动|断开|down)|端口(?:抖动|down|断开)",
    ),
    "Storage_Quota": (
        r"[Qq]uota exceeded|EDQUOT|\[Errno 122\]|over (?:disk )?quota|exceed.*quota|quota.*exceed",
        r"配额|超出磁盘限额",
    ),
    "Image_Env_Error": (
        r"ErrImagePull|ImagePullBackOff|InvalidImageName|Failed to pull image|manifest unknown",
        r"ModuleNotFoundError|No module named|ImportError|undefined symbol",
        r"GLIBC(?:XX)?_|cannot open shared object|command not found|executable file not found",
        r"ResolutionImpossible|No matching distribution|DistributionNotFound|ResolvePackageNotFound"
        r"|VersionConflict|UnsatisfiableError",
        r"镜像拉取|拉取镜像|缺少(?:模块|依赖)",
    ),
    "Config_Error": (
        r"unrecognized arguments|invalid choice|the following arguments are required",
        r"yaml\.(?:scanner|parser)|JSONDecodeError|ConfigAttributeError|ConfigKeyError"
        r"|MissingMandatoryValue|OmegaConf|hydra\.errors|ValidationError",
        r"not divisible|must be divisible|divisible by|world[_ ]size.*(?:must|not|expected)",
        r"KeyError|FileNotFoundError|No such file or directory|Address already in use"
        r"|Duplicate GPU|unbound variable|ValueError: Invalid|invalid value",
        r"配置(?:错误|文件)|参数错误",
    ),
    "Checkpoint_Error": (
        r"loading state_dict|[Mm]issing key\(s\)|[Uu]nexpected key\(s\)|size mismatch for",
        r"PytorchStreamReader|SafetensorError|HeaderTooLarge|UnpicklingError|Ran out of input",
        r"invalid load key|central directory|checkpoint.*(?:corrupt|not found|missing|truncat)",
        r"Weights only load failed|optimizer.*parameter group|Unable to load weights",
        r"检查点|断点.*(?:失败|损坏)",
    ),
}
_COMPILED = {label: re.compile("|".join(patterns)) for label, patterns in RULES.items()}
# A line that calls itself harmless does not count.
_HARMLESS = re.compile(
    r"\b0 errors?\b|succeeded|will retry|retrying|\bWARN(?:ING)?\b|Warning:|\bINFO\b|\bDEBUG\b"
    r"|falling back|ignored|optional|已恢复|重试"
)
# Words the encoder knows: a hint means something to it before it has learnt any.
_HINTS = {
    "OOM": "host memory",
    "CUDA_OutOfMemory": "device memory",
    "CUDA_Driver_Mismatch": "driver version",
    "DataLoader_Stuck": "data loader",
    "Disk_Full": "disk full",
    "Permission_Denied": "permission",
    "Network_Timeout": "network timeout",
    "Model_Code_Error": "code error",
    "GPU_Hardware_Fault": "hardware fault",
    "Network_Link_Flap": "link down",
    "Storage_Quota": "quota",
    "Image_Env_Error": "environment",
    "Config_Error": "configuration",
    "Checkpoint_Error": "checkpoint",
}


def labels_of_line(line: str) -> list[str]:
    """The labels of whose expressions one is in the line; none where it calls itself harmless."""
    if _HARMLESS.search(line):
        return []
    return [label for label, rule in _COMPILED.items() if rule.search(line)]


def labels_by_rule(log: str) -> frozenset[str]:
    """The baseline's answer: every label of every line."""
    return frozenset(label for line in read_lines(log) for label in labels_of_line(line.text))


def with_hint(line: str) -> str:
    """The line as the model reads it, followed by what it is known for."""
    known = labels_of_line(line)
    return f"{line} => {', '.join(_HINTS[label] for label in known)}" if known else line
