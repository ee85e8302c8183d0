import contextlib
import os
import subprocess
import sys
import time

import psutil
import pytest

from epigen_utils import paths, warm_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm starts are for Linux")


@pytest.fixture(scope="module")
def server():
    with warm_start.server() as environment:
        yield environment


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A module of its own, run by `warm_start`; returns the finished process."""
    monkeypatch.setenv("PYTHONPATH", f"{paths.ROOT}{os.pathsep}{tmp_path}")

    def run(code, *arguments, imports="", environment=None, **options):
        (tmp_path / "written.py").write_text(code)
        command = warm_start.command(imports, "written", *arguments)
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False} | options
        return subprocess.run(command, env=os.environ | (environment or {}), **options)

    return run


SAYS = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["MINE"], __name__, input())
print("to stderr", file=sys.stderr)
"""


def test_a_warm_start_does_what_a_cold_one_does(server, script, tmp_path):
    mine = {"MINE": "1"}
    warm = script(SAYS, "a b", "c", environment=server | mine, input="typed\n")
    cold = script(SAYS, "a b", "c", environment=mine, input="typed\n")
    assert (warm.stdout, warm.stderr, warm.returncode) == (cold.stdout, cold.stderr, cold.returncode)
    assert warm.stdout == f"['a b', 'c'] {tmp_path} 1 __main__ typed\n"


@pytest.mark.parametrize("end", ["sys.exit(7)", "sys.exit('no column; add it')", "raise KeyError('x')", "sys.exit()"])
def test_the_exit_code_and_the_error_are_the_module_s(server, script, end):
    warm, cold = (script(f"import sys\n{end}", environment=environment) for environment in (server, {}))
    assert warm.returncode == cold.returncode
    assert warm.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_libraries_are_imported_before_and_this_package_is_not(server, script):
    code = "import sys; print('colorsys' in sys.modules, 'epigen_utils.paths' in sys.modules, 'nowhere' in sys.modules)"
    assert script(code, imports="import nowhere\nimport colorsys", environment=server).stdout == "True False False\n"


def test_other_threads_start_cold(server, script):
    code = "import os; print(os.getppid())"
    cold = script(code, environment=server | {"OMP_NUM_THREADS": "2"})
    assert int(cold.stdout) == os.getpid()
    assert int(script(code, environment=server | {"OMP_NUM_THREADS": "1"}).stdout) != os.getpid()


def test_a_killed_client_s_fork_ends(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{paths.ROOT}{os.pathsep}{tmp_path}")
    (tmp_path / "sleeps.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    command = warm_start.command("", "sleeps")
    with subprocess.Popen(command, env=os.environ | server, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as client:
        fork = int(client.stdout.readline())
        client.kill()
        client.wait()
        wait_until_ended(fork)


def test_the_server_ends_with_its_build(tmp_path):
    """Killed as a whole, so that it cannot clean up."""
    (tmp_path / "build.py").write_text(
        "import os, subprocess, time\n"
        "from epigen_utils import warm_start\n"
        "with warm_start.server() as environment:\n"
        "    command = warm_start.command('', 'sleeps')\n"
        "    subprocess.Popen(command, env=os.environ | environment)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "sleeps.py").write_text("import os, time; print(os.getppid(), flush=True); time.sleep(60)")
    environment = os.environ | {"PYTHONPATH": f"{paths.ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "build.py"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as build:
        server = int(build.stdout.readline())
        build.kill()
        build.wait()
        wait_until_ended(server)


def wait_until_ended(pid):
    """Until a process has ended, or is a zombie that nobody waits for yet."""
    end = time.monotonic() + 20
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.05)
