"""Which data sets there are, and how their files are had: bundled, from a package release, by URL, or simulated.

``data/registry.yml`` is the only list. A file is taken from the mirror first (``EPIGEN_DATA_MIRROR``), then from the
user's cache, then from its source, and is never used before its SHA-256 agrees.
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
    """One file of a data set: where it comes from, and the SHA-256 that it must have."""

    bundled: str = ""  # path under data/
    package: str = ""  # name==version!member of a release on the package index
    url: str = ""  # https://...
    geo: str = ""  # accession of a series, whose supplementary count table is taken
    mirror: str = ""  # path in a mirror, for files that only exist converted; `origin` says from what
    simulated: str = ""  # function of epigen_utils.simulate
    args: dict = dataclasses.field(default_factory=dict)  # its arguments
    origin: str = ""
    sha256: str | None = None
    checksums: str = ""  # https://... of the publisher's list of checksums, for a file too large to have been seen here

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
    read: str = ""  # reader of epigen_utils.datasets
    options: dict = dataclasses.field(default_factory=dict)  # its arguments
    group: str | None = None
    reference: str | None = None  # level of `group` that others are compared with
    donor: str | None = None
    batch: str | None = None  # column of the experiment that a sample is of
    measure: str = "counts"  # counts | intensity

    @property
    def nature(self) -> str:
        return "real" if self.real else "simulated"


def _build(cls, where: str, given: dict, **extra):
    """Make a dataclass from a mapping, naming an unknown or missing key in one line."""
    known = {f.name for f in dataclasses.fields(cls)} - set(extra)
    for key in given:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; {closest(key, known)}")
    try:
        return cls(**given, **extra)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).split('__init__() ')[-1]}; add it") from None


def parse(text: str, where: str = "data/registry.yml") -> dict[str, Entry]:
    """Read a registry.

    Parameters
    ----------
    text
        YAML: name -> keys of `Entry`; each file has exactly one source.

    Raises
    ------
    DataError
        Naming the entry and the key that is unknown, missing or not allowed.
    """
    entries = {}
    for name, given in (yaml.safe_load(text) or {}).items():
        at = f"{where}: {name}"
        raw = dict(given)
        files = {}
        for role, spec in raw.pop("files", {}).items():
            files[role] = _build(File, f"{at}: files: {role}", spec)
            sources = [kind for kind in SOURCES if getattr(files[role], kind)]
            if len(sources) != 1:
                raise DataError(
                    f"{at}: files: {role}: {len(sources)} sources; give exactly one of {', '.join(SOURCES)}"
                )
            digest = files[role].sha256
            if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
                raise DataError(f"{at}: files: {role}: sha256 {digest!r}; give 64 hexadecimal digits, or leave it out")
        entry = _build(Entry, at, raw, name=name, files=files)
        if entry.kind not in KINDS:
            raise DataError(f"{at}: kind {entry.kind!r}; {closest(entry.kind, KINDS)}")
        if not files:
            raise DataError(f"{at}: no files; list at least one")
        entries[name] = entry
    return entries


@cache
def registry() -> dict[str, Entry]:
    """All data sets, by name."""
    return parse(paths.REGISTRY.read_text())


def entry(name: str) -> Entry:
    """One data set; raises `DataError` with the nearest known name."""
    if name not in registry():
        raise DataError(f"{name}: no such data set or file; {closest(name, registry())}")
    return registry()[name]


def with_bases(names: list[str]) -> list[str]:
    """Those of the names that are in the registry, and the data sets that simulated ones are made from."""
    found = [name for name in names if name in registry()]
    bases = [spec.args["base"] for name in found for spec in registry()[name].files.values() if "base" in spec.args]
    return list(dict.fromkeys(found + bases))


def fetch(name: str) -> dict[str, Path]:
    """Files of a data set, by role, each checked against its hash. Simulated data sets have none.

    Raises
    ------
    DataError
        If a file cannot be had, or is not the one the registry names.
    """
    found = entry(name)
    return {role: _fetch(found, role) for role, spec in found.files.items() if spec.source != "simulated"}


def file(name_or_path: str) -> Path:
    """The one file of a data set of the registry, or the path itself."""
    return next(iter(fetch(name_or_path).values())) if name_or_path in registry() else Path(name_or_path)


def at_hand(name: str) -> bool:
    """Whether every file of a data set is in the mirror, in the cache or in the checkout, so that nothing is downloaded."""
    found = entry(name)
    return all(
        spec.source in ("bundled", "simulated")
        or _from_mirror(spec) is not None
        or (paths.CACHE / name / role / spec.filename).exists()
        for role, spec in found.files.items()
    )


def _fetch(found: Entry, role: str) -> Path:
    spec = found.files[role]
    if spec.source == "bundled":
        return _checked(paths.DATA / spec.bundled, spec.sha256)
    if (mirrored := _from_mirror(spec)) is not None:
        return mirrored
    if spec.source == "mirror":
        msg = (
            f"{found.name}: {role} is held only as a conversion ({spec.mirror}, from {spec.origin}); "
            "set EPIGEN_DATA_MIRROR to a folder that has it"
        )
        raise DataError(msg)
    if spec.source == "geo":
        spec = dataclasses.replace(spec, geo="", url=geo.counts_url(_fetch(found, "series")))
    # Two files of a set may have one name in different folders of their package.
    target = paths.CACHE / found.name / role / spec.filename
    with locked(target.parent):
        expected = spec.sha256 or _seen(target)
        # What is there, and was never checked against its publisher's list, is checked now.
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
    """SHA-256 -> file of a mirror, from its MANIFEST.tsv where there is one."""
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
    """Fetch beside the target, check, rename: pooch does all three; a broken download goes on at the next call."""
    try:
        pooch.retrieve(
            url,
            known_hash=expected and f"sha256:{expected}",
            fname=target.name,
            path=target.parent,
            downloader=download.Resumed(target.with_name(target.name + ".part")),
        )
    except ValueError as error:
        got = re.search(r"but got '?([0-9a-f]{64})", str(error))
        raise DataError(
            f"{url}: wrong hash, SHA-256 is {got[1] if got else 'another'}, expected {expected}; retry, or mend the registry"
        ) from None
    except requests.RequestException as error:
        mend = "check the address" if isinstance(error, requests.HTTPError) else "retry: it goes on where it broke off"
        raise Unreachable(f"{url}: cannot be downloaded ({type(error).__name__}); {mend}") from None


def _text_of(url: str) -> str:
    try:
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise Unreachable(f"{url}: cannot be downloaded ({type(error).__name__}); retry") from None
    return answer.text


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _seen(target: Path) -> str | None:
    """The hash recorded when a file without a known one was first seen."""
    return _record(target).read_text() if _record(target).exists() else None


def _pip(*arguments: str) -> str:
    """What a question to pip prints, without the colours that a Jupyter kernel asks every program for."""
    plain = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=plain)
    return done.stdout


@cache
def _index() -> str:
    """The package index that pip uses: from the environment, from pip's files, else pip's own default."""
    if value := os.environ.get("PIP_INDEX_URL"):
        return value
    if found := re.search(
        r"^(?:global|download|install)\.index-url='(.*)'$", _pip("-m", "pip", "config", "list"), re.M
    ):
        return found[1]
    if default := _pip("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)").strip():
        return default
    raise DataError("package index: pip does not tell its address; set PIP_INDEX_URL")


def _archives(project: str, version: str) -> list[tuple[str, str, str]]:
    """(file name, URL, SHA-256) of a release's archives, wheels first.

    The index's simple API is read directly, because ``pip download`` of a source archive runs the package's build,
    and because a wheel for another platform holds the same data.
    """
    page = urljoin(_index().rstrip("/") + "/", re.sub(r"[-_.]+", "-", project).lower() + "/")
    try:
        answer = requests.get(page, headers={"Accept": "text/html"}, timeout=60)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise DataError(
            f"{project}: the package index did not answer ({type(error).__name__}); check the connection"
        ) from None
    named = re.compile(
        re.sub(r"[-_.]+", "[-_.]", project) + "-" + re.escape(version) + r"(-.*\.whl|\.tar\.gz|\.zip)", re.I
    )
    found = []
    for href in re.findall(r'<a[^>]*?href="([^"]+)"', answer.text):
        url, _, digest = urljoin(page, html.unescape(href)).partition("#sha256=")
        if named.fullmatch(name := url.rsplit("/", 1)[-1]):
            found.append((name, url, digest))
    return sorted(found, key=lambda row: not row[0].endswith(".whl"))


def _from_package(spec: File, target: Path, expected: str | None) -> None:
    """Take one member out of a release on the package index; nothing of the package is imported or built."""
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
        "Small tables are bundled here; everything else is fetched, checked against its SHA-256 and kept in the user's cache.",
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
    for known in registry().values():
        lines += [
            "",
            f"## {known.name}",
            "",
            f"{known.title}. {known.card}",
            "",
            f"- Kind: {known.kind}, {known.nature}; species: {known.species.replace('_', ' ')}",
            f"- Licence: {known.licence}",
            f"- Source: {known.citation}",
        ]
        if known.group:
            lines.append(
                f"- Group: `{known.group}`"
                + (f", reference `{known.reference}`" if known.reference else "")
                + (f"; donor: `{known.donor}`" if known.donor else "")
            )
        for role, spec in known.files.items():
            where = getattr(spec, spec.source) + (f" (from {spec.origin})" if spec.origin else "")
            digest = f", SHA-256 {spec.sha256[:12]}..." if spec.sha256 else ""
            lines.append(f"- {role}: {spec.source} `{where}`{digest}")
    return "\n".join(lines) + "\n"
