"""What the terminal shows of a build: what will run on the user's data, and the runs that end.

Before a build: what is left out and why, time and memory; in it: a bar for each running job, and the time left.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from epigen_utils import paths
from epigen_utils.book import notebooks

#: Seconds that a run without a recorded time counts.
UNKNOWN_SECONDS = 30.0
#: Chapters that take longer are left out of a quick build.
QUICK_SECONDS = 60.0
#: Cells of pbmc-40, on which the chapters on cells were timed.
RECORDED_CELLS = 7_811
#: What is known of the user's data, and said of the build, and is no parameter of a chapter.
FACTS = ("sizes", "kind", "cells", "gigabytes", "quick", "distil")
#: Copies of the counts that a page holds at once.
COPIES = 4
#: Parameter -> the chapter, and the folder of its results, that it takes on a user's cells unless it is given.
MADE_OF_CELLS = {
    "teacher": ("geneformer/03_pretraining", "models/teacher"),
    "students": ("geneformer/06_distillation", "models"),
    "classifier": ("geneformer/08_cardiomyopathy", "models/classifier"),
}
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
    return _recorded("pages", profile)


def recorded_memory(profile: str) -> dict[str, float]:
    """Most memory of each run, GB, as `recorded_seconds`."""
    return _recorded("memory", profile)


def _recorded(what: str, profile: str) -> dict[str, float]:
    return json.loads(paths.TIMES.read_text()).get(what, {}).get(profile, {}) if paths.TIMES.exists() else {}


def forecast(planned: Iterable, user_data: dict) -> list[tuple[str, str, str, str]]:
    """Each chapter that takes the user's kind of data: title, whether it runs, minutes and memory, or why it does not.

    Parameters
    ----------
    planned
        Runs called ``main`` of the profile.
    user_data
        ``cells`` is their number: what takes all cells takes longer by how many more they are than `RECORDED_CELLS`;
        ``gigabytes`` the size of their counts, of which a page holds `COPIES`.

    Returns
    -------
    Rows of chapter, title, minutes and GB as text; what is left out has its reason instead of minutes.
    """
    excluded, rows = excluded_notebooks(planned, user_data), []
    larger = int(user_data.get("cells") or RECORDED_CELLS) / RECORDED_CELLS
    copies = COPIES * float(user_data.get("gigabytes") or 0)
    for run in planned:
        if not takes(run, user_data):
            continue
        title = notebooks.notebook_title(run.source)
        if run.notebook in excluded:
            rows.append((run.notebook, title, f"left out: {excluded[run.notebook]}", ""))
            continue
        grows = max(larger, 0.2) if "max_cells" not in (run.needs.cells or {}) and run.needs.cells is not None else 1.0
        seconds = recorded_seconds(run.profile).get(run.notebook)
        memory = recorded_memory(run.profile).get(run.notebook)
        minutes = "not recorded" if seconds is None else f"{max(seconds * grows / 60, 0.1):.1f}"
        rows.append((run.notebook, title, minutes, "" if memory is None else f"{memory + copies:.1f}"))
    return rows


def takes(run, user_data: dict) -> bool:
    """Whether a notebook takes the user's kind of data."""
    if user_data.get("kind") == "cells":
        return run.needs.cells is not None
    return run.needs.cells is None and "metadata" in notebooks.declared_parameters(run.source)


def excluded_notebooks(planned: Iterable, user_data: dict) -> dict[str, str]:
    """Notebooks that are left out on the user's data set, given the sizes of its groups (``user_data["sizes"]``).

    With ``quick``, so are those that take longer than `QUICK_SECONDS` as recorded.

    Returns
    -------
    Notebook -> the reason; empty if the sizes are unknown.
    """
    if user_data.get("sizes") is None:
        return {}
    # Snakemake passes numbers of its configuration as strings.
    sizes = {group: int(n) for group, n in user_data["sizes"].items()}
    smallest = min(sizes, key=sizes.get, default="")
    reasons = {}
    for run in planned:
        if not takes(run, user_data):
            continue
        needs = run.needs
        if user_data.get("kind") == "cells":
            if reason := _cells_lack(needs, user_data, sizes):
                reasons[run.notebook] = reason
            continue
        least = max(needs.samples, 2)
        if len(sizes) < 2 or (needs.groups and len(sizes) != needs.groups):
            reasons[run.notebook] = f"it takes {needs.groups or 'two or more'} groups, and there are {len(sizes)}"
        elif sizes[smallest] < least:
            reasons[run.notebook] = (
                f"it needs {least} samples or donors of each group, and {smallest!r} has {sizes[smallest]}"
            )
    for run in planned:
        if run.notebook in reasons or not takes(run, user_data):
            continue
        declared = notebooks.declared_parameters(run.source)
        seconds = recorded_seconds(run.profile).get(run.notebook, UNKNOWN_SECONDS)
        needed = [MADE_OF_CELLS[parameter][0] for parameter in ("students", "classifier") if parameter in declared]
        if absent := [notebook for notebook in needed if notebook in reasons]:
            reasons[run.notebook] = f"it needs {absent[0]}"
        elif _is_true(user_data.get("quick")) and seconds > QUICK_SECONDS:
            reasons[run.notebook] = f"it takes longer than {QUICK_SECONDS:.0f} s (--quick)"
    return reasons


def _cells_lack(needs: notebooks.Needs, user_data: dict, sizes: dict[str, int]) -> str:
    """What a chapter needs that the user's cells lack or have too little of; empty if nothing."""
    said = user_data | {"label": user_data.get("group"), "no teacher": not user_data.get("teacher")}
    for asked in needs.asks:
        if not (_is_true(said.get(asked)) if asked in ("distil", "no teacher") else said.get(asked)):
            return "a teacher is given" if asked == "no teacher" else f"give --{asked}"
    if "label" in needs.asks and (len(sizes) < 2 or min(sizes.values()) < 2):
        few = [name for name, n in sizes.items() if n < 2]
        return f"class {few[0]!r} has one donor; leave it out by --keep" if few and len(sizes) > 1 else "one class only"
    return ""


def _is_true(value: object) -> bool:
    """Whether an option is set; Snakemake passes values of its configuration as strings."""
    return str(value or False).lower() != "false"


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
