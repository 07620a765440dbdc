"""This process's memory, as Linux counts it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def resident(name: str) -> float:
    """MB; VmRSS: now, VmHWM: at the peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1e3


def peak(work: Callable[[], object], beyond: bool = False) -> float:
    """MB at the peak of some work; beyond: less what there was before it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what has been freed is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS") if beyond else 0.0
    work()
    return resident("VmHWM") - before
