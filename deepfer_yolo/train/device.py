"""Where a training runs, and in what precision: asked for, or an error, never a silent fallback."""

from __future__ import annotations

import os
from pathlib import Path

import torch  # noqa: TID253  (this package exists to run torch)

from deepfer_yolo.errors import ConfigError, MissingDependencyError
from deepfer_yolo.recipe import TrainConfig
from deepfer_yolo.yolo import WORLD_SIZE

CGROUPS = Path("/sys/fs/cgroup")


def n_devices(device: str) -> int:
    """How many devices `0,1` names."""
    return len(device.split(","))


def check_device(config: TrainConfig) -> None:
    """Raise for devices that are not there or not known, and for a recipe that cannot be dealt to several."""
    device = config.device
    if device == "mps" and not torch.backends.mps.is_available():
        raise MissingDependencyError(
            "--device mps: this machine has no Apple GPU that torch can use", "use --device cpu"
        )
    if device == "mps" and WORLD_SIZE > 1:
        raise ConfigError("--device mps: Apple's GPUs train alone, not over nodes", "use one machine")
    if device in {"cpu", "mps"}:
        check_shares(config)
        return
    numbers = device.split(",")
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"unknown device '{device}'", "use cpu, mps, the number of a GPU such as 0, or several such as 0,1"
        )
    check_shares(config)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", len(numbers)))
    if WORLD_SIZE > 1 and here != len(numbers):
        reason = f"torchrun started {here} processes on this machine, and --device {device} names {len(numbers)} GPUs"
        raise ConfigError(reason, f"torchrun --nproc_per_node {len(numbers)} …")
    found = torch.cuda.device_count()
    if max(map(int, numbers)) >= found:
        seen = f"{found} GPUs that torch can use" if found else "no GPU that torch can use"
        raise MissingDependencyError(
            f"--device {device}: this machine has {seen}", "use --device cpu; deepfer doctor shows what is there"
        )


def check_shares(config: TrainConfig) -> None:
    """Raise ConfigError where a recipe cannot be dealt to the devices that it names, or to all processes of torchrun's
    on all nodes.
    """
    n = max(n_devices(config.device), WORLD_SIZE)
    if n > 1 and (config.batch % n or config.batch // n < 2):
        raise ConfigError(
            f"a batch of {config.batch} cannot be dealt to {n} {'processes' if WORLD_SIZE > 1 else 'devices'}",
            f"use a multiple of {n}, such as --batch {n * 64}",
        )
    if n > 1 and config.time is not None:
        raise ConfigError(
            "time: each of several processes would guess its own number of epochs", "use --epochs, or one device"
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
        return True  # the images are in this memory already
    return n_bytes <= torch.cuda.mem_get_info(device)[0] // 2


def free_memory() -> int:
    """Bytes that this process may still take: what the machine or, where it is less, its control group has left."""
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
