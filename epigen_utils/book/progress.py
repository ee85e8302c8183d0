"""A progress bar for each running job, parsed from the output of a build; all other output goes to its log."""

import re
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

#: A tqdm bar of a job: its name and percentage.
BAR_LINE = re.compile(r"^([\w/-]+): +(\d+)%\|")
#: Lines for the user: a finished run with its time, or an error.
USER_LINE = re.compile(r"^(epigen: .*|[\w/-]+: [\d.]+ s)$")


def follow_build(stream: BinaryIO, log: TextIO) -> bool:
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
            if USER_LINE.match(line):
                console.print(line)
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
