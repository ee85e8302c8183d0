"""Processes that end with the one that started them: what is killed must not leave others that go on writing."""

import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import psutil

from epigen_utils import paths
from epigen_utils.errors import DataError


def stay_with(parent: int) -> None:
    """End this process when another one does."""

    def watch():
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(143)
            except PermissionError:
                # There is such a process; it is another user's.
                pass
            time.sleep(0.3)

    threading.Thread(target=watch, daemon=True).start()


def told_of(pid: int) -> dict[str, str]:
    """Environment by which jobs know their build: this machine and the process."""
    return {"EPIGEN_BUILD": f"{socket.gethostname()}:{pid}"}


def stay_with_build() -> None:
    """End this process with its build, where one has been told of and runs on this machine: of jobs elsewhere, a cluster takes care."""
    host, _, pid = os.environ.get("EPIGEN_BUILD", "").rpartition(":")
    if host == socket.gethostname():
        stay_with(int(pid))


def die_with_parent() -> None:
    """On Linux, ask the kernel to end a child with the process that starts it (``preexec_fn`` of `subprocess`)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def job(work: Callable[[], None]) -> int:
    """Run a job of a build: it ends with the build, and a lock tells a later one that it is still alive.

    Returns
    -------
    Exit code; what a user can mend is said in one line.
    """
    stay_with_build()
    paths.BUILD.mkdir(exist_ok=True)
    with open(paths.JOBS_LOCK, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            work()
        except DataError as error:
            print(f"epigen: {error}", file=sys.stderr)
            return 1
    return 0


def local_limits(cores: int) -> list[str]:
    """Options of Snakemake for this machine: as many jobs at a time as its cores and its memory hold, one on the GPU."""
    return ["--cores", str(cores), "--resources", f"mem_mb={psutil.virtual_memory().total // 1_000_000}", "gpu=1"]
