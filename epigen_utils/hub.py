"""A hub of models and data sets: its ids, its data sets' folders, and what goes wrong with it as one line."""

import json
import re
import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars
from tqdm import tqdm

from epigen_utils.errors import DataError, UnreachableError, first_line, suggest

#: ``owner/name`` or ``owner/name:subfolder``.
HUB_ID = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(:(?P<subfolder>[\w.-]+(/[\w.-]+)*)/?)?", re.ASCII)
#: What a hub, the network or the disk can answer with.
HUB_ERRORS = (HTTPError, OSError, RuntimeError, HFValidationError, json.JSONDecodeError)
#: What a repository holds, by its type on the hub.
REPOSITORY_KINDS = {"model": "folder, and no such model", "dataset": "data set"}


def download_folder(place: str, target: Path, *, revision: str = "", bar: type[tqdm] | None = None) -> str:
    """Download a folder of a data set's repository; the next call goes on with an interrupted download.

    ``HF_ENDPOINT`` and the token of `huggingface_hub` count. The files come into a folder beside the target, which is
    replaced when all of them are there.

    Parameters
    ----------
    place
        ``owner/name:folder``, or ``owner/name`` for the whole repository.
    target
        Folder to make.
    revision
        Branch, tag or commit; by default the main branch.
    bar
        Class of the progress bar of each file; by default the library's own.

    Returns
    -------
    The commit.

    Raises
    ------
    DataError
        If the id is none, or there is no such data set, revision or folder.
    UnreachableError
        If the hub does not answer.
    OSError
        If the disk is full or cannot be written.
    """
    hub_id = HUB_ID.fullmatch(place)
    if not hub_id:
        raise DataError(f"{place}: no hub id; give owner/name or owner/name:folder")
    if "ipykernel" in sys.modules:  # a page would keep the bars
        disable_progress_bars()
    folder = hub_id["subfolder"] or ""
    part = target.with_name(f"{target.name}.part")
    try:
        # Without a timeout, a hub that hangs is waited for without end.
        found = HfApi().dataset_info(hub_id["name"], revision=revision or None, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        for file in _files_in(place, folder, [file.rfilename for file in found.siblings]):
            options = {"repo_type": "dataset", "revision": found.sha, "local_dir": part, "tqdm_class": bar}
            hf_hub_download(hub_id["name"], file, **options)
    except HUB_ERRORS as error:
        if _is_of_disk(error):
            raise
        raise hub_error(place, error, "dataset") from None
    shutil.rmtree(part / ".cache")
    shutil.rmtree(target, ignore_errors=True)
    (part / folder).replace(target)
    shutil.rmtree(part, ignore_errors=True)
    return found.sha


def _files_in(place: str, folder: str, paths: list[str]) -> list[str]:
    """Files in a folder of a repository, the folders of data sets suggested where it has none."""
    files = [path for path in paths if not folder or path.startswith(f"{folder}/")]
    if not files:
        # As `datasets` writes them.
        others = [path.rpartition("/")[0] for path in paths if path.endswith("/state.json")]
        raise DataError(f"{place}: no folder {folder} there; {suggest(folder, others or paths)}")
    return files


def _is_of_disk(error: Exception) -> bool:
    network = (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    return isinstance(error, OSError) and bool(error.errno) and not isinstance(error, network)


def hub_error(place: str | Path, error: Exception, kind: str = "model") -> DataError:
    """What a hub, the network or the disk raised (`HUB_ERRORS`), as one line with what to do.

    Parameters
    ----------
    kind
        One of `REPOSITORY_KINDS`.
    """
    hub = constants.ENDPOINT
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RevisionNotFoundError):
        return DataError(f"{place}: {hub} has no such revision of it; give a branch, a tag or a commit")
    if isinstance(error, GatedRepoError):
        return DataError(f"{place}: its owners grant access; ask for it on {hub}, then log in (hf auth login)")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return DataError(
            f"{place}: no such {REPOSITORY_KINDS[kind]} on {hub}; check the spelling, or log in (hf auth login) if it "
            "is private"
        )
    if status in (401, 403):
        return DataError(f"{place}: {hub} refuses the token; log in (hf auth login) with one that has the rights")
    if status:
        return UnreachableError(f"{place}: {hub} answers {status}; try again later")
    if isinstance(error, OfflineModeIsEnabled):
        return UnreachableError(f"{place}: {hub} is needed, and HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError)):
        return UnreachableError(
            f"{place}: {hub} cannot be reached ({type(error).__name__}); try again, or set HF_ENDPOINT to another hub"
        )
    if _is_of_disk(error):
        return DataError(
            f"{place}: cannot be kept in {constants.HF_HUB_CACHE} ({error.strerror}); free space there, or set HF_HOME "
            "to another folder"
        )
    if isinstance(error, HFValidationError):
        return DataError(f"{place}: no hub id ({first_line(error)}); give owner/name or owner/name:subfolder")
    if isinstance(error, json.JSONDecodeError):
        return DataError(f"{place}: {hub} answers, but not as a model hub; set HF_ENDPOINT to one")
    return DataError(f"{place}: cannot be fetched from {hub} ({first_line(error)}); try again")
