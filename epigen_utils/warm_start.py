"""Warm starts: modules run in forks of one process that has imported their libraries already.

Most of a short page's time is the start of its kernel: imports of torch, transformers and anndata take several seconds,
in every kernel. During a build on Linux, ``python -m epigen_utils.warm_start <imports> <module> <arguments>`` does
what ``python -m <module> <arguments>`` does, in a fork of the build's `server`, which executes the import statements
first; where there is no server, it is that command.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from epigen_utils import processes

#: Environment variable with the address of the build's server.
ADDRESS = "EPIGEN_WARM_START"
#: Settings that matplotlib and ipykernel read when they are imported: figures in pages, and no parent to watch.
KERNEL_SETTINGS = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JPY_PARENT_PID": "1"}


@contextlib.contextmanager
def server() -> Iterator[dict[str, str]]:
    """A server for the jobs of this process; yields the environment by which they find it, empty off Linux.

    A fork of a process that has used a GPU cannot use it, and elsewhere than on Linux libraries do not bear a fork. The
    server imports libraries, never this package: an edit takes effect in the next job. Each numerical library has one
    thread.
    """
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="epigen-") as folder, socket.socket(socket.AF_UNIX) as listening:
        # The folder is the user's alone: who can connect can run code.
        address = str(Path(folder) / "socket")
        listening.bind(address)
        listening.listen(128)
        started = subprocess.Popen(
            [sys.executable, "-c", f"from epigen_utils import warm_start; warm_start.serve({listening.fileno()})"],
            env=os.environ | dict.fromkeys(processes.THREAD_VARIABLES, "1") | KERNEL_SETTINGS,
            pass_fds=[listening.fileno()],
            start_new_session=True,
            preexec_fn=processes.kill_with_parent,
        )
        listening.close()
        try:
            yield {ADDRESS: address}
        finally:
            started.kill()
            started.wait()


def serve(descriptor: int) -> None:
    """Fork for each request on a listening socket, without end; in a fork, return when its module has ended."""
    listening = socket.socket(fileno=descriptor)
    while True:
        connection, _ = listening.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile() as lines:
            line = lines.readline()
        if line.endswith("\n"):  # else the client has ended
            request = json.loads(line)
            _import_libraries(request["imports"])
            if not os.fork():
                break
        for given in descriptors:
            os.close(given)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    listening.close()
    _run_request(request, connection, descriptors)


def _import_libraries(statements: str) -> None:
    """Execute import statements; one that fails will fail in the fork again, where its error is seen."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        for statement in statements.splitlines():
            with contextlib.suppress(Exception):
                exec(statement, {})
    # Objects that the collector leaves alone stay in memory shared with the forks.
    gc.freeze()


def _run_request(request: dict, connection: socket.socket, descriptors: list[int]) -> None:
    """Run a module as the process that the client would be: it ends with the client, and tells it the exit code."""

    def watch() -> None:
        if not connection.recv(1):
            os._exit(143)

    threading.Thread(target=watch, daemon=True).start()
    for own, given in enumerate(descriptors):
        os.dup2(given, own)
        os.close(given)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["arguments"]]
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    code = 1
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    finally:
        atexit.register(connection.sendall, bytes([code]))


def command(imports: str, module: str, *arguments: str) -> list[str]:
    """Command line that runs a module in a fork of the server, if there is one.

    Parameters
    ----------
    imports
        Import statements of libraries, one a line, that the server executes first.
    """
    return [sys.executable, "-m", "epigen_utils.warm_start", imports, module, *arguments]


def kernel_manager(imports: str) -> type:
    """Manager of a kernel that has executed import statements (`command`)."""
    import jupyter_client

    class KernelManager(jupyter_client.AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments=None):
            statements = f"import ipykernel.kernelapp\n{imports}"
            return command(statements, "ipykernel_launcher", "-f", self.connection_file)

    return KernelManager


def main(imports: str, module: str, *arguments: str) -> int:
    """Run a module in a fork of the server, else in a Python of its own, which replaces this process."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            # The libraries of the server have read the number of their threads.
            if any(os.environ.get(name, "1") != "1" for name in processes.THREAD_VARIABLES):
                raise ConnectionError
            connection.connect(os.environ.get(ADDRESS, ""))
        except OSError:
            os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
        processes.kill_with_parent()
        request = {
            "imports": imports,
            "module": module,
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
        }
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        code = connection.recv(1)
        connection.recv(1)  # until it has ended
    return code[0] if code else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
