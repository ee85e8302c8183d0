"""Processes that end with the one that started them: what is killed must not leave others that go on writing."""

import ctypes
import os
import signal
import sys
import threading
import time

import psutil


def stay_with(parent: int) -> None:
    """End this process when another one does."""

    def watch():
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(143)
            time.sleep(0.3)

    threading.Thread(target=watch, daemon=True).start()


def die_with_parent() -> None:
    """On Linux, ask the kernel to end a child with the process that starts it (``preexec_fn`` of `subprocess`)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def local_limits(cores: int) -> list[str]:
    """Options of Snakemake for this machine: as many jobs at a time as its cores and its memory hold, one on the GPU."""
    return ["--cores", str(cores), "--resources", f"mem_mb={psutil.virtual_memory().total // 1_000_000}", "gpu=1"]
