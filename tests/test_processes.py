import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epigen_utils import paths, processes


def test_a_process_ends_with_the_one_it_stays_with():
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = f"from epigen_utils import processes; import time; processes.exit_with_process({parent.pid}); print('on', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "on\n"
        parent.kill()
        parent.wait()
        assert child.wait(timeout=20) == 143


def test_a_job_on_another_machine_does_not_look_for_its_build_here(monkeypatch):
    """On a cluster the build's process is on another machine; a job that looked for its number here would end at once."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = (
        "from epigen_utils import processes; import time; processes.exit_with_build(); time.sleep(1.5); print('done')"
    )
    for name, said in processes.build_environment(gone.pid).items():
        for value, expected in ((said, 143), (f"another-{said}", 0), ("", 0)):
            monkeypatch.setenv(name, value)
            done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, check=False)
            assert done.returncode == expected, value


def test_a_process_of_another_user_is_alive():
    code = """
import os, time
from epigen_utils import processes
def refused(pid, signal):
    raise PermissionError
os.kill = refused
processes.exit_with_process(1)
time.sleep(1)
"""
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=paths.ROOT, check=False).returncode == 0


def test_a_child_ends_with_its_parent():
    code = """
import subprocess, sys, time
from epigen_utils import processes
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=processes.kill_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        end = time.monotonic() + 20
        while running(pid):
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.05)


def running(pid):
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_machine_s_limits():
    cores, number, resources, memory, gpu = processes.snakemake_limits(4)
    assert (cores, number, resources, gpu) == ("--cores", "4", "--resources", "gpu=1")
    assert int(memory.removeprefix("mem_mb=")) > 500


def test_a_command_line_of_snakemake():
    command = processes.snakemake_command(Path("rules.smk"), Path("here"), "--cores", "1", profile="demo", own="{}")
    assert command[:3] == [sys.executable, "-m", "snakemake"]
    assert " ".join(command[3:]) == "--snakefile rules.smk --directory here --cores 1 --config profile=demo own={}"


def test_the_peak_of_memory_grows_with_what_is_held():
    before = processes.peak_memory()
    held = bytearray(int(before * 1e9) + 50_000_000)
    assert 0.01 < before < processes.peak_memory() < 100
    assert len(held) > 50_000_000


def test_a_job_says_in_one_line_what_a_disk_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(paths, "JOBS_LOCK", tmp_path / "jobs.lock")

    def work(number):
        raise OSError(number, os.strerror(number), "a.csv")

    assert processes.run_job(lambda: work(errno.ENOSPC)) == 1
    assert capsys.readouterr().err == "epigen: a.csv: No space left on device; free space there, and run this again\n"
    with pytest.raises(FileNotFoundError):
        processes.run_job(lambda: work(errno.ENOENT))
