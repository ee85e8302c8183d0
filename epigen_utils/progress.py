"""One bar for each job that is running, from the text that a build writes; everything else goes to its log."""

import re
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

#: A bar of tqdm's, as the jobs draw it: what it is of, and how far it is.
BAR = re.compile(r"^([\w/-]+): +(\d+)%\|")
#: Lines that are meant for the user: a finished run with its time, and what went wrong.
SPOKEN = re.compile(r"^(epigen: .*|[\w/-]+: [\d.]+ s)$")


def follow(stream: BinaryIO, log: TextIO) -> bool:
    """Read a build's output to its end, draw its bars, print what is meant for the user, and log all but the bars.

    Returns
    -------
    Whether an error was said to the user.
    """
    said = False
    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}
        for line in _lines(stream):
            if found := BAR.match(line):
                name, percent = found[1], int(found[2])
                tasks.setdefault(name, bars.add_task(name, total=100) if name not in tasks else None)
                bars.update(tasks[name], completed=percent)
                continue
            log.write(line + "\n")
            log.flush()
            if SPOKEN.match(line):
                console.print(line)
                said = said or line.startswith("epigen:")
                if (name := line.partition(":")[0]) in tasks:
                    bars.remove_task(tasks.pop(name))
    return said


def _lines(stream: BinaryIO) -> Iterator[str]:
    r"""Text up to each ``\n`` or ``\r``, without the blanks that a bar is wiped out with."""
    rest = b""
    while chunk := stream.read1(4096):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from (text for part in whole if (text := part.decode(errors="replace").strip()))
    if text := rest.decode(errors="replace").strip():
        yield text
