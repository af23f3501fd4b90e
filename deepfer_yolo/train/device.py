"""Where a training runs, and in what precision: asked for, or an error, never a silent fallback."""

from __future__ import annotations

from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.config import TrainConfig
from deepfer_yolo.errors import ConfigError, MissingDependencyError

CGROUPS = Path("/sys/fs/cgroup")


def check_device(device: str) -> None:
    """Raise for a device that is not there or not known."""
    if device == "cpu":
        return
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise MissingDependencyError(
                "--device mps: this machine has no Apple GPU that torch can use", "use --device cpu"
            )
        return
    numbers = device.split(",")
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"unknown device '{device}'", "use cpu, mps, the number of a GPU such as 0, or several such as 0,1"
        )
    found = torch.cuda.device_count()
    if max(map(int, numbers)) >= found:
        seen = f"{found} GPUs that torch can use" if found else "no GPU that torch can use"
        raise MissingDependencyError(
            f"--device {device}: this machine has {seen}", "use --device cpu; deepfer doctor shows what is there"
        )


def use_bf16(config: TrainConfig) -> bool:
    """Whether to run the forward pass in bfloat16: when asked to, or where the hardware has it and nothing else was
    asked.

    Without AVX512-BF16 or AMX a CPU emulates it, seven times slower than float32 (measured on an AVX2 machine).
    """
    if config.precision != "auto":
        return config.precision == "bf16"
    if config.device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return config.device != "mps" and torch.cuda.is_bf16_supported(including_emulation=False)


def fits_on(device: torch.device, n_bytes: int) -> bool:
    """Whether so much may be kept on a device beside the training itself: up to half of what is free there."""
    if device.type != "cuda":
        return True  # the pictures are in this memory already
    return n_bytes <= torch.cuda.mem_get_info(device)[0] // 2


def free_memory() -> int:
    """Bytes of main memory that this process may still take: what the machine has left, or its control group where that
    is less.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int((CGROUPS / limit).read_text()) - int((CGROUPS / used).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return max(free, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU, where torch has no exception of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
