"""Data sets of one's own, as ``epigen build`` takes them: one by its options, or several in a list."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from epigen_utils.data import registry
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import read_yaml
from epigen_utils.reads import references, sample_sheets

#: Options about how a table is read, those about cells alone, and those about reads alone.
LOADING = ("metadata", "group", "reference", "donor", "genes_in", "species", "round_counts", "size_factors")
OF_CELLS = ("keep", "start", "goal", "distil", "teacher")
OF_READS = ("genome", "gtf", "aligner", "index", "adapter")
OPTIONS = ("dataset", "sheet", *LOADING, "kind", *OF_CELLS, *OF_READS)
#: Options that are true or false, and how a list may write that.
SWITCHES = ("round_counts", "distil")
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


def given_options(values: dict) -> dict:
    """Options of a command that are given, of those about a data set."""
    return {name: values[name] for name in OPTIONS if values.get(name)}


def describe(dataset: str, given: dict, *, task: str, design: str = "", contrast: str = "") -> tuple[dict, list[str]]:
    """What a data set is, and what was found out about it.

    Parameters
    ----------
    given
        Options that are given (`OPTIONS`), by name.

    Returns
    -------
    What chapters are chosen by: for cells, as `cell_states.describe_cells` says; for bulk, ``sizes``: group -> number
    of donors, or of samples if no donors are given; or nothing. Sentences for the user.

    Raises
    ------
    DataError
        If the data set is refused.
    """
    # Here, as in cli: a build that has nothing to do waits for no import.
    from epigen_utils.downstream import cell_states
    from epigen_utils.expression import designs

    options = {name: given[name] for name in LOADING if name in given}
    asked = {name: given[name] for name in ("kind", "keep", "start", "goal") if name in given}
    facts, lines = cell_states.describe_cells(dataset, **options, **asked)
    if facts is not None:
        return facts, lines
    if of_cells := [name for name in OF_CELLS if name in given]:
        raise DataError(f"{dataset}: --{of_cells[0]} is of cells, and these are samples of bulk (--kind cells if not)")
    sizes, more = designs.describe_data_set(dataset, task=task, design=design, contrast=contrast, **options)
    return {} if sizes is None else {"sizes": sizes}, more + lines


def check_options(given: dict) -> None:
    """Refuse options that do not go together."""
    if "dataset" in given and "sheet" in given:
        raise DataError("--dataset and --sheet are two data sets; give one of them")
    of_reads = [name for name in given if name in OF_READS]
    of_table = [name for name in given if name not in (*OF_READS, "dataset", "sheet", "name")]
    if "sheet" in given:
        if wrong := [name for name in of_table if name not in ("reference", "species")]:
            option = wrong[0].replace("_", "-")
            raise DataError(f"--{option} goes with --dataset, not with --sheet; leave it out")
    elif of_reads:
        raise DataError("options about reads go with --sheet; give it")
    elif "dataset" not in given:
        raise DataError("options about a data set go with --dataset; give it")


def user_data(given: dict, folder: Path = Path()) -> tuple[dict, list[str]]:
    """A data set of the user's, checked, as `runs.plan_runs` takes it, and sentences on what was found out about it.

    Parameters
    ----------
    given
        Options that are given (`OPTIONS`), by name, and ``name``.
    folder
        Where a relative path leads from, if not from the working directory.

    Raises
    ------
    DataError
        If options do not go together, or the data set is refused.
    """
    check_options(given)
    if "sheet" in given:
        files = {"sheet": _absolute(given["sheet"], folder)}
        files |= {name: _if_there(given[name], folder) for name in ("genome", "gtf", "index") if name in given}
        files |= {"genome": given["genome"]} if given.get("genome") in references.reference_names() else {}
        sizes = sample_sheets.group_sizes(sample_sheets.read_sheet(files["sheet"]))
        return given | files | {"sizes": sizes}, []
    files = {name: _absolute(given[name], folder) for name in ("dataset", "metadata") if name in given}
    if given["dataset"] in registry.entries():
        files["dataset"] = given["dataset"]
    if "teacher" in given:  # a folder, or a place on a hub
        files["teacher"] = _if_there(given["teacher"], folder)
    facts, lines = describe(files["dataset"], given | files, task="groups")
    bulk = {name: value for name, value in given.items() if name not in ("kind", *OF_CELLS)}
    return (given if facts.get("kind") else bulk) | files | facts, lines


def _absolute(name: str, folder: Path) -> str:
    try:
        path = Path(name) if Path(name).exists() or not (folder / name).exists() else folder / name
        # Links are kept: what a sheet names lies beside the name that the user gives.
        return os.path.abspath(path)
    except OSError as error:  # longer than names may be
        raise DataError(f"{name[:80]!r}: no name of a file ({error.strerror}); check the path") from None


def _if_there(name: str, folder: Path) -> str:
    """The absolute path of what is there; else the name as it was given."""
    found = _absolute(name, folder)
    return found if Path(found).exists() else name


def read_list(path: Path) -> list[dict]:
    """Options of each data set of a list in YAML, with its ``name``.

    Raises
    ------
    DataError
        Naming the entry that is not written as `epigen build` has it, in one line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such list of data sets; check the path")
    # The base loader leaves words such as 0, no and None as they are written.
    entries = read_yaml(path, yaml.BaseLoader)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: write a list of data sets, each with a name and the options of epigen build")
    read = []
    for place, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not re.fullmatch(r"[\w-]{1,100}", str(entry.get("name", ""))):
            raise DataError(f"{path}: entry {place}: give a name of letters, digits, - and _, and the options under it")
        where = f"{path}: {entry['name']}"
        # Rules of the build have names without hyphens.
        if entry["name"].replace("-", "_") in {other["name"].replace("-", "_") for other in read}:
            raise DataError(f"{where}: an earlier entry is called so, or nearly; rename one of them")
        read.append({"name": entry["name"]} | _options(where, entry))
    return read


def _options(where: str, entry: dict) -> dict:
    """The options of an entry that are given, by their names in `OPTIONS`."""
    options = {}
    for written, value in entry.items():
        name = "group" if written == "label" else str(written).replace("-", "_")
        if name != "name" and name not in OPTIONS:
            raise DataError(
                f"{where}: unknown option {written!r}; {suggest(str(written), (*OPTIONS, 'label', 'name'))}"
            )
        if not isinstance(value, str) or name in options:
            raise DataError(f"{where}: {written}: write one word for it, once")
        if name in SWITCHES and value.lower() not in _TRUTH:
            raise DataError(f"{where}: {written}: {value!r} is neither true nor false; write one of them")
        options[name] = _TRUTH[value.lower()] if name in SWITCHES else value
    options = {name: value for name, value in options.items() if value and name != "name"}
    try:
        check_options(options)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return options


def check_list(path: Path) -> Iterator[tuple[dict, list[str]]]:
    """The data sets of a list, each as `user_data` gives it; of one that is refused, ``refused`` says why.

    Raises
    ------
    DataError
        As `read_list`, before any data set is read.
    """
    for given in read_list(path):
        try:
            yield user_data(given, path.parent)
        except DataError as error:
            # The page that says so may be public: of the user's folders, it names none.
            yield given | {"refused": re.sub(r"(?<![\w.])/[^:']*/", "", str(error))}, []
