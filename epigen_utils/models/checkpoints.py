"""Where a model comes from: a folder, or a model hub at one commit.

Weights are safetensors. A pickle can run any code when it is read, so it is read only on request.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from epigen_utils.errors import DataError, first_line, suggest
from epigen_utils.files import check_regular, read_json
from epigen_utils.hub import HUB_ERRORS, HUB_ID, hub_error

CONFIG, VOCABULARY = "config.json", "vocabulary.json"
#: Weights in one file, or in several with an index.
SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?")


@dataclass(frozen=True)
class Checkpoint:
    """Files of a model, and where they come from; as text, for a page, the place and the commit.

    Attributes
    ----------
    place
        The requested place: a folder or a hub id.
    folder
        Folder that holds ``config.json`` and the weights.
    commit
        Commit of the hub's repository; empty for a folder.
    """

    place: str
    folder: Path
    commit: str = ""

    def __str__(self) -> str:
        return f"{self.place} at commit {self.commit}" if self.commit else self.place


def find(place: "str | Path | Checkpoint", *, revision: str = "", allow_pickle: bool = False) -> Checkpoint:
    """Find the files of a model, fetching them if a hub has them.

    A hub's files are kept in the cache of `huggingface_hub`, whose ``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE`` and
    token count. Only the configuration, the weights and a ``vocabulary.json`` are fetched. If the hub cannot be
    reached, what an earlier call fetched is used. For a folder, no hub is contacted.

    Parameters
    ----------
    place
        A folder with ``config.json``, a folder with such a folder ``model``, or a hub id: ``owner/name``, or
        ``owner/name:subfolder``. What an earlier call found is given back.
    revision
        Branch, tag or commit of a hub id; by default its main branch.
    allow_pickle
        Accept a ``pytorch_model.bin`` where there is no safetensors file.

    Raises
    ------
    DataError
        If there is no such place or revision, it has no readable model, its weights are pickles alone, or the disk is
        full.
    UnreachableError
        If the hub does not answer, and the cache lacks the model.
    """
    if isinstance(place, Checkpoint):
        return place
    folder = Path(place).expanduser()
    if folder.is_dir():
        if revision:
            raise DataError(f"{place}: a folder has no revision {revision!r}; leave the revision empty")
        folder = model_folder(folder)
        _check_weights(folder, _weight_files(place, _names(folder), allow_pickle))
        return Checkpoint(str(place), folder)
    hub_id = HUB_ID.fullmatch(str(place))
    if not hub_id:
        raise DataError(
            f"{place}: no such folder, and no hub id; give the folder of a saved model, owner/name or "
            "owner/name:subfolder"
        )
    try:
        return _find_on_hub(str(place), hub_id["name"], hub_id["subfolder"] or "", revision or None, allow_pickle)
    except HUB_ERRORS as error:
        raise hub_error(place, error) from None


def load(
    model_class: type[PreTrainedModel],
    place: str | Path | Checkpoint,
    *,
    revision: str = "",
    allow_pickle: bool = False,
) -> PreTrainedModel:
    """Load a model with all of its weights, in 32 bits.

    Parameters
    ----------
    model_class
        A class of one architecture of `transformers`.
    place, revision, allow_pickle
        Of `find`.

    Raises
    ------
    DataError
        As `find`, and if the model is of another architecture, or lacks weights of this one.
    """
    folder = find(place, revision=revision, allow_pickle=allow_pickle).folder
    architecture = model_class.config_class.model_type
    config = read_json(folder / CONFIG, "fetch or copy it again")
    saved = config.get("model_type", architecture)
    if saved != architecture:
        raise DataError(f"{place}: its {CONFIG} is of a {saved}; give a {architecture}")
    _check_layers(place, folder, config)
    try:
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # noqa: BLE001 - transformers checks no value of a configuration before it builds by it
        raise DataError(f"{place}: cannot be loaded ({first_line(error)}); fetch or copy {folder} again") from None
    # transformers fills these with random numbers, and warns.
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"{place}: {len(missing)} weights of {model_class.__name__} are missing, {missing[0]} first; "
            "give a whole model with this head"
        )
    return model


def model_folder(folder: str | Path) -> Path:
    """Folder of ``config.json``: the folder, or its ``model``, as a run of this project writes it."""
    folder = Path(folder).expanduser()
    inner = folder / "model"
    return inner if (inner / CONFIG).exists() and not (folder / CONFIG).exists() else folder


def _find_on_hub(place: str, name: str, subfolder: str, revision: str | None, allow_pickle: bool) -> Checkpoint:
    if "ipykernel" in sys.modules:  # a page would keep the bars
        disable_progress_bars()
    try:
        # Without a timeout, a hub that hangs is waited for without end.
        files = HfApi().model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT).siblings
    except (HTTPError, OfflineModeIsEnabled) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise
        try:
            snapshot = Path(snapshot_download(name, revision=revision, local_files_only=True))
            folder = snapshot / subfolder
            weights = _weight_files(place, _names(folder), allow_pickle)
        except (LocalEntryNotFoundError, DataError):
            raise error from None
    else:
        prefix = f"{subfolder}/" if subfolder else ""
        paths = [file.rfilename for file in files]
        _check_subfolder(place, prefix, paths)
        names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
        weights = _weight_files(place, names, allow_pickle)
        # By its branch, so that the cache learns which commit that is; all others by the commit.
        config = Path(hf_hub_download(name, prefix + CONFIG, revision=revision))
        folder, snapshot = config.parent, config.parents[prefix.count("/")]
        for file in [*weights, VOCABULARY] if VOCABULARY in names else weights:
            hf_hub_download(name, prefix + file, revision=snapshot.name)
    _check_weights(folder, weights)
    return Checkpoint(place, folder, snapshot.name)


def _check_subfolder(place: str, prefix: str, paths: list[str]) -> None:
    """Raise unless the folder has a configuration; say which folders of the repository have one."""
    folders = [path.removesuffix(CONFIG) for path in paths if path == CONFIG or path.endswith(f"/{CONFIG}")]
    if prefix not in folders:
        others = [folder.rstrip("/") for folder in folders if folder]
        remedy = f"give owner/name:subfolder ({suggest(prefix.rstrip('/'), others)})" if others else "give another"
        where = f"in its subfolder {prefix.rstrip('/')}" if prefix else "at its top"
        raise DataError(f"{place}: no model {where}, since there is no {CONFIG}; {remedy}")


def _names(folder: Path) -> list[str]:
    # A link of the cache to nothing is no file.
    return sorted(path.name for path in folder.glob("*") if path.exists())


def _weight_files(place: str | Path, names: Iterable[str], allow_pickle: bool) -> list[str]:
    """Names of the files of weights among those of a folder."""
    if CONFIG not in names:
        raise DataError(f"{place}: no model there, since it has no {CONFIG}; give the folder of a saved model")
    safe, pickles = ([name for name in names if kind.fullmatch(name)] for kind in (SAFETENSORS, PICKLES))
    if not safe and pickles and not allow_pickle:
        raise DataError(
            f"{place}: its weights are a pickle alone ({pickles[0]}), which can run any code; give a revision with "
            "model.safetensors, or, if you trust its authors, allow_pickle=True"
        )
    if not safe and not pickles:
        raise DataError(f"{place}: no weights there, but a {CONFIG}; add its model.safetensors")
    return safe or pickles


def _check_layers(place: "str | Path | Checkpoint", folder: Path, config: dict) -> None:
    """Raise if a configuration has more layers than its weights can be of, before a model of as many is built."""
    n_tensors = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as stored:
            n_tensors += len(stored.keys())
    for key in ("num_hidden_layers", "n_layer"):
        if n_tensors and isinstance(n_layers := config.get(key), int) and n_layers > n_tensors:
            raise DataError(
                f"{place}: {key} of its {CONFIG} is {n_layers:,}, and its weights have {n_tensors:,} tensors"
            )


def _check_weights(folder: Path, names: list[str]) -> None:
    """Raise if a safetensors file is cut off or broken, by its header."""
    for path in [folder / name for name in names]:
        check_regular(path)
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            # In a hub's cache the name is a link, which is made again if its target is there.
            raise DataError(
                f"{path.resolve()}: no whole safetensors file ({first_line(error)}); delete it, and fetch or copy it "
                "again"
            ) from None
