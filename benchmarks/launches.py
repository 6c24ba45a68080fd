"""What a GPU is asked to do in one step: kernels launched, and how long it is busy with them.

The rest of a step's time the GPU waits for the next launch. That rest is what a CUDA graph can save at most,
since a graph replays the same kernels without the program that launches them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")  # and their …Ex and …ExC


def launches(step: Callable[[], object], device: str) -> dict[str, Any]:
    """Kernels of one step and the seconds of the device that they take.

    Args:
        step: warmed up before.
        device: a GPU.
    """
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        torch.cuda.synchronize(device)
    events = recorded.events()
    launched = sum(event.name.startswith(_LAUNCHES) for event in events)
    on_device = [event for event in events if event.device_type == DeviceType.CUDA]
    return {"launches": launched, "busy_s": sum(event.time_range.elapsed_us() for event in on_device) / 1e6}
