"""Builds that are killed, stopped or short of programs, each in a copy of the checkout."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_book import WHOLE_BUILD, copy_of_checkout, environment


def wait_for(condition, seconds: float):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


@WHOLE_BUILD
def test_a_stopped_build_leaves_a_site_of_what_is_done_and_goes_on(tmp_path):
    """Ctrl-C, which goes to every process of the build, once the first chapter has ended."""
    copy = copy_of_checkout(tmp_path)
    profile = "epilepsy/02_table_two: {main: {dataset: table-two}, airway: {dataset: airway}}\n"
    profile += "geneformer/01_curation: {main: {corpora: [wu2020]}}\n"
    (copy / "notebooks" / "profiles" / "small.yml").write_text(profile)
    command = [sys.executable, "-m", "epigen_utils.cli", "build", "--profile", "small", "--cores", "1"]
    log, site = tmp_path / "log", copy / "_build" / "html"
    with open(log, "w") as stream:
        started = subprocess.Popen(command, cwd=copy, env=environment(copy), start_new_session=True, stderr=stream)
    wait_for(lambda: "site: _build/html/index.html can be read (1 of 3 runs" in log.read_text(), 120)
    assert "This chapter is still to come" in (site / "geneformer" / "01_curation.html").read_text()
    assert "1 of its 3 runs are finished" in (site / "intro.html").read_text()
    wait_for(lambda: "(2 of 3 runs" in log.read_text(), 120)
    wait_for(lambda: list(copy.glob("results/small/*/*/*/notebook.failed.ipynb")), 60)  # the third is running
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait() == 1
    assert log.read_text().splitlines()[-1] == (
        "epigen: the build was stopped; what was finished is kept: build again to go on"
    )
    assert "2 of its 3 runs are finished" in (site / "intro.html").read_text()
    later = {"epilepsy/02_table_two--airway", "geneformer/01_curation"}
    waiting = {key for key in later if "still to come" in (site / f"{key}.html").read_text()}
    again = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert re.findall(r"^([\w/-]+): [\d.]+ s", again.stderr, re.M) == list(waiting), "the one that was left"
    assert not [key for key in later if "still to come" in (site / f"{key}.html").read_text()]
    assert "is not complete" not in (site / "intro.html").read_text()


@WHOLE_BUILD
@pytest.mark.parametrize("whom", ["group", "make"])
def test_a_killed_build_goes_on(tmp_path, whom):
    """SIGKILL in the middle: of the whole process group, or of the `make` that started it alone."""
    copy = copy_of_checkout(tmp_path)
    (copy / "one.mk").write_text(
        f".PHONY: book\nbook:\n\t@{sys.executable} -m epigen_utils.cli build --profile small\n"
    )
    profile = "epilepsy/02_table_two: {main: {dataset: table-two}, airway: {dataset: airway}}\n"
    (copy / "notebooks" / "profiles" / "small.yml").write_text(profile)
    command = ["make", "--no-print-directory", "-f", "one.mk", "book"]
    started = subprocess.Popen(
        command, cwd=copy, env=environment(copy), start_new_session=True, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: list(copy.glob("results/small/*/*/*/notebook.failed.ipynb")), 60)
    if whom == "group":
        os.killpg(started.pid, signal.SIGKILL)
    else:
        started.kill()
    started.wait()
    assert not (copy / "_build" / "html" / "index.html").exists()
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (copy / "_build" / "html" / "index.html").exists()
    assert (copy / "_build" / "html" / "epilepsy" / "02_table_two--airway.html").exists()
    assert not list(copy.rglob("*.part"))


@WHOLE_BUILD
def test_without_the_tools_the_chapter_s_place_says_why(tmp_path):
    """On a machine that has neither the programs nor a way to bring them."""
    from epigen_utils.reads import pipeline

    copy, programs = copy_of_checkout(tmp_path / "checkout"), tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            if program.name not in (*pipeline.TOOLS, "apt-get", "conda") and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    profile = (
        "epilepsy/02_table_two: {main: {dataset: table-two}}\nepilepsy/12_reads_to_counts: {main: {sheet: reads-sim}}\n"
    )
    (copy / "notebooks" / "profiles" / "small.yml").write_text(profile)
    command = [sys.executable, "-m", "epigen_utils.cli", "build", "--profile", "small"]
    options = {"cwd": copy, "env": environment(copy) | {"PATH": str(programs)}, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    said = f"epilepsy/12_reads_to_counts is left out: {', '.join(pipeline.TOOLS)} not installed (make tools, as root or by conda)"
    assert f"epigen: {said}\n" in done.stderr
    page = (copy / "_build" / "html" / "epilepsy" / "12_reads_to_counts.html").read_text()
    assert f"This chapter is not in this build: {', '.join(pipeline.TOOLS)} not installed;" in page
    assert "Reads to counts" in (copy / "_build" / "html" / "intro.html").read_text()
    again = subprocess.run(command, check=False, **options)
    assert again.returncode == 0
    assert "02_table_two" not in again.stderr, "nothing is done twice"
