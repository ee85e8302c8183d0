"""What the terminal shows during a build: a bar for each running job, the runs that ended, and the time left."""

import json
import re
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from epigen_utils import paths

#: Seconds that a run without a recorded time counts.
UNKNOWN_SECONDS = 30.0
#: A tqdm bar of a job: its name and percentage.
BAR_LINE = re.compile(r"^([\w/-]+): +(\d+)%\|")
#: A finished run with its time.
FINISHED_LINE = re.compile(r"^([\w/-]+): ([\d.]+) s$")
#: Lines for the user beside these: an error, or a site that can be read.
USER_LINE = re.compile(r"^(epigen|site): .*$")
#: A row of Snakemake's table of jobs: a rule and its number of jobs.
JOB_ROW = re.compile(r"^(\w+) +(\d+)$")


def recorded_seconds(profile: str) -> dict[str, float]:
    """Seconds of each run of a profile on the machine of ``benchmarks/times.json``, by run key; empty if unknown."""
    return json.loads(paths.TIMES.read_text())["pages"].get(profile, {}) if paths.TIMES.exists() else {}


class Remaining:
    """Runs that a build has still to do, and their time as recorded, scaled by how long the others took here.

    Parameters
    ----------
    rules
        Rule of each run of the plan -> its key.
    chains
        Run key -> seconds of the run and of the longest chain of runs that wait for it.
    seconds
        Run key -> recorded seconds.
    """

    def __init__(self, rules: dict[str, str], chains: dict[str, float], seconds: dict[str, float], cores: int):
        self.rules, self.chains, self.seconds, self.cores = rules, chains, seconds, cores
        self.pending, self.total = set(), 0
        self.taken, self.expected = 0.0, 0.0

    def count_jobs(self, rule: str) -> None:
        """Count a rule of Snakemake's table of the jobs to do."""
        if rule in self.rules:
            self.pending.add(self.rules[rule])
            self.total = len(self.pending)

    def finish(self, key: str, seconds: float) -> None:
        """Note a run that ended, and its time."""
        self.pending.discard(key)
        if key in self.seconds:
            self.taken, self.expected = self.taken + seconds, self.expected + self.seconds[key]

    def __str__(self) -> str:
        if not self.pending:
            return "all runs are done"
        text = f"{self.total - len(self.pending)} of {self.total} runs"
        if not self.seconds:
            return text
        work = sum(self.seconds.get(key, UNKNOWN_SECONDS) for key in self.pending) / self.cores
        longest = max(self.chains[key] for key in self.pending)
        left = max(work, longest) * (self.taken / self.expected if self.expected else 1.0)
        return f"{text}, about {f'{left / 60:.0f} min' if left >= 90 else f'{left:.0f} s'} left"


def follow_build(stream: BinaryIO, log: TextIO, remaining: Remaining) -> bool:
    """Read a build's output to its end: draw its bars, print the lines for the user, log everything but the bars.

    Returns
    -------
    Whether an error was printed.
    """
    error_printed = False
    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}
        for line in _output_lines(stream):
            if match := BAR_LINE.match(line):
                name, percent = match[1], int(match[2])
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=100)
                bars.update(tasks[name], completed=percent)
                continue
            log.write(line + "\n")
            log.flush()
            if match := JOB_ROW.match(line):
                remaining.count_jobs(match[1])
            elif match := FINISHED_LINE.match(line):
                remaining.finish(match[1], float(match[2]))
                console.print(f"{line} ({remaining})")
            elif USER_LINE.match(line):
                console.print(f"{line} ({remaining})" if line.startswith("site:") else line)
                error_printed = error_printed or line.startswith("epigen:")
            if (name := line.partition(":")[0]) in tasks:
                bars.remove_task(tasks.pop(name))
    return error_printed


def _output_lines(stream: BinaryIO) -> Iterator[str]:
    r"""Non-empty lines, ended by ``\n`` or ``\r``, without surrounding blanks (tqdm erases a bar with blanks)."""
    rest = b""
    while chunk := stream.read1(4096):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from (text for part in whole if (text := part.decode(errors="replace").strip()))
    if text := rest.decode(errors="replace").strip():
        yield text
