"""A built site as one zip, to be passed on: it opens from its index.html, and says by which command it was made."""

import re
import shlex
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from epigen_utils import paths
from epigen_utils.book import provenance, runs
from epigen_utils.commands import own_data
from epigen_utils.data import registry
from epigen_utils.errors import DataError
from epigen_utils.files import sha256, whole_file


def user_files(own: Sequence[dict]) -> dict[str, Path]:
    """The user's own files, without reads, by their place in the zip, ``data/<name of the set>/<option>/<file>``."""
    files = {}
    for user_data in own:
        for place, path in _places(user_data).values():
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            files |= {str(place / file.relative_to(path)): file for file in inside if file.is_file()}
    return files


def _places(user_data: dict) -> dict[str, tuple[Path, Path]]:
    """Option that names a file or folder of the user's -> its place in the zip, and its path."""
    given = {name: user_data[name] for name in ("dataset", "metadata", "sheet") if user_data.get(name)}
    own = {name: Path(value) for name, value in given.items() if value not in registry.entries()}
    return {name: (Path("data", runs.user_run(user_data), name, path.name), path) for name, path in own.items()}


def _without_folders(argument: str) -> str:
    """An argument, but for the folders of an absolute path, since a zip is passed on."""
    return re.sub(r"(^|=)/.*/", r"\1", argument)


def listed(user_data: dict) -> dict:
    """A data set as an entry of a list that works in the unpacked zip."""
    given = {name: user_data[name] for name in ("name", *own_data.OPTIONS) if name in user_data}
    given = {name: _without_folders(value) if isinstance(value, str) else value for name, value in given.items()}
    return given | {name: str(place) for name, (place, _) in _places(user_data).items()}


def check_target(target: Path) -> None:
    """Raise a `DataError` if the folder of a zip does not exist, or is the site's."""
    if not target.absolute().parent.is_dir():
        raise DataError(f"{target}: no such folder; make it first")
    if target.resolve().is_relative_to(paths.SITE):
        raise DataError(f"{target}: lies in the site, which the zip has; name another folder")


def write_zip(target: Path, own: Sequence[dict], *, command: Sequence[str], with_data: bool = False) -> None:
    """Write the site of the last build, with a README that says what made it; the user's data on request.

    Parameters
    ----------
    own
        The user's data sets, as `runs.plan_runs` takes them.
    command
        The words of the command that built the site.

    Raises
    ------
    DataError
        If there is no site, or `check_target` fails.
    """
    if not (paths.SITE / "index.html").exists():
        raise DataError(f"{paths.SITE}: no site; build one first")
    check_target(target)
    files = user_files(own)
    readme = [
        "A book of pages; open index.html in a browser, no server is needed.",
        f"Made by\n\n    {shlex.join(map(_without_folders, command))}",
        f"Commit of the project: {provenance.current_commit()}.",
    ]
    named = [listed(user_data) for user_data in own if "name" in user_data]
    if named:
        readme.append("sets.yml lists the data sets with their options.")
    if files:
        where = "in this zip" if with_data else "not in this zip; their SHA-256"
        lines = "\n".join(f"    {sha256(file)}  {place}" for place, file in files.items())
        readme.append(f"The data are {where}:\n\n{lines}")
    with whole_file(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        written = {"README.txt": "\n\n".join(readme) + "\n"}
        written |= {"sets.yml": yaml.safe_dump(named, sort_keys=False)} if named else {}
        for name, text in written.items():
            archive.writestr(zipfile.ZipInfo(name, provenance.archive_time()), text, zipfile.ZIP_DEFLATED)
        for file in filter(Path.is_file, sorted(paths.SITE.rglob("*"))):
            _add_file(archive, file, str(file.relative_to(paths.SITE)))
        for place, file in files.items() if with_data else ():
            _add_file(archive, file, place)


def _add_file(archive: zipfile.ZipFile, file: Path, place: str) -> None:
    """Add a file, also one whose time stamp no zip can have (before 1980); the archive has the same time for all."""
    about = zipfile.ZipInfo.from_file(file, place, strict_timestamps=False)
    about.date_time, about.compress_type = provenance.archive_time(), zipfile.ZIP_DEFLATED
    with open(file, "rb") as source, archive.open(about, "w") as target:
        shutil.copyfileobj(source, target)
