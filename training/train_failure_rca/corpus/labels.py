"""The labels a log can carry, in the order of the network's outputs."""

from __future__ import annotations

LABELS = (
    "OOM",
    "CUDA_OutOfMemory",
    "CUDA_Driver_Mismatch",
    "DataLoader_Stuck",
    "Disk_Full",
    "Permission_Denied",
    "Network_Timeout",
    "Model_Code_Error",
    "GPU_Hardware_Fault",
    "Network_Link_Flap",
    "Storage_Quota",
    "Image_Env_Error",
    "Config_Error",
    "Checkpoint_Error",
)
