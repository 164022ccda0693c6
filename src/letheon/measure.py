"""What a stage costs: wall-clock seconds and peak memory."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from types import TracebackType

import psutil


class Measured:
    """Context manager that measures its block.

    Attributes:
        seconds: Wall-clock time.
        peak_mb: Highest resident memory of the process (sampled every 20 ms), or of the GPU if there is one, in MB.
    """

    def __enter__(self) -> Measured:
        import torch

        release_memory()
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self.seconds = self.peak_mb = 0.0
        self._start = time.perf_counter()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import torch

        self._done.set()
        self._sampler.join()
        self.seconds = time.perf_counter() - self._start
        if self._cuda:
            self.peak_mb = torch.cuda.max_memory_allocated() / 1e6

    def _sample(self) -> None:
        process = psutil.Process(os.getpid())
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 1e6)
            if self._done.wait(0.02):
                return


def wait_for_device() -> None:
    """Wait until the accelerator, if there is one, has done what it was given: only then does a clock tell."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def release_memory() -> None:
    """Give freed memory back to the system, so that one stage's peak does not count as the next one's."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # Not glibc: nothing to trim.
