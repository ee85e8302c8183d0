"""Which data sets there are: the entries of ``data/registry.yml``, their sources, and the card of each."""

import dataclasses
import re
from functools import cache

import yaml

from epigen_utils import paths
from epigen_utils.errors import DataError, suggest

#: Files and folders of ``data/`` that belong to no data set and have no describing first line.
DATA_FILES = {
    "claims": "what the papers report, a file for each chapter",
    "contrasts.csv": "contrasts of the data sets: id (data set:contrast), variable, reference, target, blocking",
    "paper_items.csv": "figures, tables, equations and sections of both papers, for the table of coverage",
    "recorded": "metrics of runs too large for the profile that shows them, and comparisons with R",
    "reference": "values of R DESeq2, and the script that wrote them",
    "shipped": "real data of others that the project passes on, and their licences",
}
DATA_KINDS = ("bulk", "cells", "annotation", "model", "reads", "reference")
FILE_SOURCES = ("bundled", "package", "url", "geo", "ena", "hub", "converted", "simulated")


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set: its source and its expected SHA-256; of a converted file, that of its content."""

    bundled: str = ""  # path under data/
    package: str = ""  # name==version!member of a release on the package index
    url: str = ""  # https://...
    geo: str = ""  # accession of a series; the file is its supplementary count table
    ena: str = (
        ""  # accession of a series of GEO; the file is the archive's table of its runs, its reads' addresses in it
    )
    hub: str = ""  # owner/name:folder of a data set on a model hub; the file is that folder
    revision: str = ""  # branch, tag or commit of the hub's repository; its main branch by default
    converted: str = ""  # name of the file that `converter` makes of `originals`
    converter: str = ""  # function of data.converters, also of a bundled file that was made once
    originals: dict[str, "File"] = dataclasses.field(default_factory=dict)  # role -> url and sha256
    simulated: str = ""  # function of data.simulated_bulk, data.simulated_cells or reads.simulated_reads
    args: dict = dataclasses.field(default_factory=dict)  # arguments of the converter or the simulation
    sha256: str | None = None
    checksums: str = ""  # https://... of the publisher's list of checksums, for a file too large to hash in advance

    @property
    def source(self) -> str:
        return next(kind for kind in FILE_SOURCES if getattr(self, kind))

    @property
    def filename(self) -> str:
        return re.split("[/:]" if self.hub else "[/!]", getattr(self, self.source))[-1]


@dataclasses.dataclass(frozen=True)
class Stated:
    """What publications state of a data set, in numbers or ranges (``12..16``); `datasets.check_stated` compares."""

    records: dict[str, int | str] = dataclasses.field(default_factory=dict)  # role of a file -> its records
    keep: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # column -> values of the records that count
    samples: dict[str, int | str] = dataclasses.field(default_factory=dict)  # level of `group` -> samples
    table: str = ""  # a data set whose genes, samples and counts are among its own


@dataclasses.dataclass(frozen=True)
class Entry:
    """One data set of ``data/registry.yml``."""

    name: str
    title: str
    species: str
    kind: str
    real: bool
    licence: str
    citation: str
    card: str
    files: dict[str, File]
    read: str = ""  # key of `readers.READERS`
    options: dict = dataclasses.field(default_factory=dict)  # its arguments
    group: str | None = None
    reference: str | None = None  # level of `group` that the other levels are compared with
    donor: str | None = None
    batch: str | None = None  # column of the experiment of each sample
    measure: str = "counts"  # counts | intensity
    # Not in the repr, by which runs tell whether their data changed.
    stated: Stated = dataclasses.field(default_factory=Stated, repr=False)

    @property
    def nature(self) -> str:
        return "real" if self.real else "simulated"

    @property
    def may_be_passed_on(self) -> bool:
        """Whether the licence lets anyone pass the files on; without one, or by terms of its own, they are fetched."""
        return not re.search("none stated|terms", self.licence)

    @property
    def facts(self) -> dict[str, str]:
        """What ``uns["epigen"]`` says of a data set in any case."""
        return {key: getattr(self, key) for key in ("name", "title", "nature", "species", "licence", "citation")}


def _from_mapping(cls, where: str, given: dict, **extra):
    """Build a dataclass from a mapping; the error names an unknown or missing key in one line."""
    allowed = {field.name for field in dataclasses.fields(cls)} - set(extra)
    for key in given:
        if key not in allowed:
            raise DataError(f"{where}: unknown key {key!r}; {suggest(key, allowed)}")
    try:
        return cls(**given, **extra)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).split('__init__() ')[-1]}; add it") from None


def _load_yaml(text: str) -> object:
    """Content of a YAML text, by libyaml where PyYAML has it: a sixth of the time, in every run's start."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def parse_registry(text: str, where: str = "data/registry.yml") -> dict[str, Entry]:
    """Parse a registry.

    Parameters
    ----------
    text
        YAML: name -> keys of `Entry`; each file has exactly one source.

    Raises
    ------
    DataError
        Naming the entry and the key that is unknown, missing or not allowed.
    """
    parsed = {}
    for name, given in (_load_yaml(text) or {}).items():
        at = f"{where}: {name}"
        keys = dict(given)
        files = {}
        for role, source in keys.pop("files", {}).items():
            spec = files[role] = _from_mapping(File, f"{at}: files: {role}", source)
            sources = [kind for kind in FILE_SOURCES if getattr(spec, kind)]
            if len(sources) != 1:
                raise DataError(
                    f"{at}: files: {role}: {len(sources)} sources; give exactly one of {', '.join(FILE_SOURCES)}"
                )
            for original, given_source in spec.originals.items():
                spec.originals[original] = _from_mapping(File, f"{at}: files: {role}: {original}", given_source)
            if spec.converted and not spec.originals:
                raise DataError(f"{at}: files: {role}: converted from no originals; name them with url and sha256")
            if spec.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", str(spec.sha256)):
                raise DataError(
                    f"{at}: files: {role}: sha256 {spec.sha256!r}; give 64 hexadecimal digits, or leave it out"
                )
        stated = _from_mapping(Stated, f"{at}: stated", keys.pop("stated", {}))
        for role in stated.records:
            if role not in files:
                raise DataError(f"{at}: stated: records: {role!r} is no file of it; {suggest(role, files)}")
        for what, number in (stated.records | stated.samples).items():
            if not re.fullmatch(r"\d+(\.\.\d+)?", str(number)):
                raise DataError(f"{at}: stated: {what}: {number!r}; write a number, or a range such as 12..16")
        data_set = _from_mapping(Entry, at, keys, name=name, files=files, stated=stated)
        if data_set.kind not in DATA_KINDS:
            raise DataError(f"{at}: kind {data_set.kind!r}; {suggest(data_set.kind, DATA_KINDS)}")
        if not files:
            raise DataError(f"{at}: no files; list at least one")
        parsed[name] = data_set
    return parsed


@cache
def read_data_file(name: str) -> dict:
    """Content of a YAML file of ``data/``."""
    return _load_yaml((paths.DATA / name).read_text())


@cache
def entries() -> dict[str, Entry]:
    """All data sets, by name."""
    return parse_registry(paths.REGISTRY.read_text())


def entry(name: str) -> Entry:
    """One data set; an unknown name raises a `DataError` that suggests the nearest known one."""
    if name not in entries():
        raise DataError(f"{name}: no such data set or file; {suggest(name, entries())}")
    return entries()[name]


def with_bases(names: list[str]) -> list[str]:
    """Names that are in the registry, and the data sets on which the simulated ones among them are based."""
    listed = [name for name in names if name in entries()]
    bases = [spec.args["base"] for name in listed for spec in entries()[name].files.values() if "base" in spec.args]
    return list(dict.fromkeys(listed + bases))


def files_with_hashes(hashes: dict[str, dict[str, str]]) -> str:
    """Files of data sets (name -> role -> SHA-256, or commit) as YAML that replaces them in ``data/registry.yml``."""
    blocks = {}
    for name, of_role in hashes.items():
        specs = {role: entry(name).files[role] for role in of_role}
        keys = {role: "revision" if spec.hub else "sha256" for role, spec in specs.items()}
        files = {role: dataclasses.asdict(spec) | {keys[role]: of_role[role]} for role, spec in specs.items()}
        given = {role: {key: value for key, value in file.items() if value} for role, file in files.items()}
        blocks[name] = {"files": given}
    return yaml.safe_dump(blocks, sort_keys=False, width=1000)


def _describe_files() -> dict[str, str]:
    """What each file and folder of ``data/`` is: by the registry, by its first line (YAML), or by `DATA_FILES`."""
    owners = {spec.bundled: data_set for data_set in entries().values() for spec in data_set.files.values()}
    described = {}
    for path in sorted(paths.DATA.glob("[a-z]*")):
        if path.name in owners:
            described[path.name] = f"{owners[path.name].title} ({owners[path.name].name})"
        elif path.suffix == ".yml":
            described[path.name] = path.read_text().partition("\n")[0].removeprefix("# ")
        else:
            if path.name not in DATA_FILES:
                raise DataError(f"{path}: no data set bundles it; add an entry, or a line in registry.DATA_FILES")
            described[path.name] = DATA_FILES[path.name]
    return described


def data_cards() -> str:
    """``data/README.md``: what each file is, and a card for each data set, as Markdown."""
    lines = [
        "# Data",
        "",
        "Written by `make cards` from `registry.yml`; edit that.",
        "Small tables are bundled here; everything else is fetched, checked against its SHA-256 "
        "and kept in the user's cache.",
        "",
        "| file here | what it is |",
        "| --- | --- |",
        *(f"| {name} | {description} |" for name, description in _describe_files().items()),
    ]
    for data_set in entries().values():
        lines += [
            "",
            f"## {data_set.name}",
            "",
            f"{data_set.title}. {data_set.card}",
            "",
            f"- Kind: {data_set.kind}, {data_set.nature}; species: {data_set.species.replace('_', ' ')}",
            f"- Licence: {data_set.licence}; "
            + ("may be passed on" if data_set.may_be_passed_on else "not passed on: everyone fetches the files"),
            f"- Source: {data_set.citation}",
        ]
        if data_set.group:
            lines.append(
                f"- Group: `{data_set.group}`"
                + (f", reference `{data_set.reference}`" if data_set.reference else "")
                + (f"; donor: `{data_set.donor}`" if data_set.donor else "")
            )
        for role, spec in data_set.files.items():
            where = getattr(spec, spec.source)
            made = ", ".join(original.url for original in spec.originals.values())
            digest = f", SHA-256 {spec.sha256[:12]}..." if spec.sha256 else ""
            digest += f", revision {spec.revision}" if spec.revision else ""
            lines.append(f"- {role}: {spec.source} `{where}`{digest}" + (f", made from {made}" if made else ""))
    return "\n".join(lines) + "\n"
