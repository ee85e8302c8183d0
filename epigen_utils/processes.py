"""Processes that exit with the process or build that started them, so that none goes on writing after a kill."""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import psutil

from epigen_utils import paths
from epigen_utils.errors import DataError, one_line

#: Environment variables that set the number of threads of numerical libraries.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def exit_with_process(pid: int) -> None:
    """Exit when another process has exited."""

    def watch():
        while psutil.pid_exists(pid):
            time.sleep(0.3)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def build_environment(pid: int) -> dict[str, str]:
    """Environment variable that gives jobs the host and process id of their build."""
    return {"EPIGEN_BUILD": f"{socket.gethostname()}:{pid}"}


def exit_with_build() -> None:
    """Exit when the build on this host exits; jobs on other hosts are left to the cluster."""
    host, _, pid = os.environ.get("EPIGEN_BUILD", "").rpartition(":")
    if host == socket.gethostname():
        exit_with_process(int(pid))


def kill_with_parent() -> None:
    """On Linux, have the kernel kill this child when its parent exits (``preexec_fn`` of `subprocess`)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_job(work: Callable[[], None]) -> int:
    """Run a job of a build: it exits with the build, and its shared lock shows later builds that it is running.

    Returns
    -------
    Exit code; the message of a `DataError`, or what a full or read-only disk refused, is printed in one line.
    """
    exit_with_build()
    paths.BUILD.mkdir(exist_ok=True)
    with open(paths.JOBS_LOCK, "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            work()
        except (DataError, OSError) as error:
            if not (said := one_line(error)):
                raise
            print(f"epigen: {said}", file=sys.stderr)
            return 1
    return 0


def snakemake_command(rules: Path, folder: Path, *options: str, **configuration: object) -> list[str]:
    """Command line of Snakemake: file of the rules, working folder, options, and values of ``config``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(rules), "--directory", str(folder), *options]
    return [*command, "--config", *(f"{name}={value}" for name, value in configuration.items())]


def snakemake_limits(cores: int) -> list[str]:
    """Snakemake options for this host: concurrent jobs share its cores and memory, and one at a time uses the GPU."""
    return ["--cores", str(cores), "--resources", f"mem_mb={psutil.virtual_memory().total // 1_000_000}", "gpu=1"]


@contextlib.contextmanager
def stderr_into(log: TextIO) -> Iterator[TextIO]:
    """Redirect stderr of this process and its kernel to the log; yields a stream to the terminal."""
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(log.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)


def peak_memory() -> float:
    """Most memory that this process has held, in GB."""
    kilobyte = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e9
