"""The device that is computed on, and what it can do."""

from __future__ import annotations

import re

from ..errors import UserError

# NVIDIA's GPUs multiply in TensorFloat-32 from this generation on (Ampere).
_AMPERE = (8, 0)


def known_device(name: str) -> None:
    """Refuse what is the name of no device, before torch is imported.

    Raises:
        UserError: naming what is allowed.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?", name):
        raise UserError(f"--device {name}: must be auto, cpu, cuda or cuda:<n>")


def device_of(name: str) -> str:
    """A device by its name; ``auto`` is a GPU where there is one.

    Raises:
        UserError: for what is no device, and for a GPU that is not there.
    """
    known_device(name)
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: this machine has no CUDA device that torch {torch.__version__} can use"
        )
    index = name.partition(":")[2]
    if index and int(index) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return name


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: ``cuda:0``, ``cuda:1``, …"""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)]


def no_gpu(share: float) -> UserError:
    """What is told of a share of a GPU where there is none."""
    return UserError(f"--gpus-per-run {share:g}: there is no GPU to share; leave it out, or see --device")


def check_precision(precision: str, device: str, option: str = "evaluation.precision") -> None:
    """Refuse an arithmetic that a device does not have.

    Args:
        precision: ``fp32``, ``tf32`` or ``bf16``.
        device: where answers are computed.
        option: what asked for it.

    Raises:
        UserError: for ``tf32`` on the CPU or on a GPU that is older than it.
    """
    if precision != "tf32":
        return
    if not device.startswith("cuda"):
        raise UserError(
            f"{option}: tf32 is a way of NVIDIA GPUs to multiply, which {device} does not have; use fp32 or"
            " bf16, or another --device"
        )
    import torch

    if torch.cuda.get_device_capability(device) < _AMPERE:
        raise UserError(f"{option}: {torch.cuda.get_device_name(device)} is older than tf32; use fp32 there")


def told_device(device: str) -> str:
    """``cpu``, or ``cuda:1 (NVIDIA H100 …)``: the card's name tells what its last bits are."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"
