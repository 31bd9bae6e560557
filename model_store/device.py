"""Names of the places graphs run on, and what the CUDA driver shows. Does not know whether a graph would run there."""

import ctypes
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Device:
    """Where a graph runs and its state lives."""

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


HOST: Final = Device()


def gpus() -> int:
    """CUDA devices the driver shows to this process (CUDA_VISIBLE_DEVICES counts); 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
