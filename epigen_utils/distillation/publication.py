"""An exported model put on a model hub, under the user's own account."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import HfApi, constants

from epigen_utils import hub
from epigen_utils.errors import DataError
from epigen_utils.geneformer import published_settings
from epigen_utils.models import checkpoints

#: Files that are uploaded, as `export.save_model` writes them.
WEIGHTS, CARD = "model.safetensors", "README.md"
FILES = (checkpoints.CONFIG, WEIGHTS, checkpoints.VOCABULARY, CARD)


@dataclass(frozen=True)
class Publication:
    """What would be uploaded, and to where.

    Attributes
    ----------
    sizes
        File -> bytes.
    licence, title
        Of the model card.
    vocabulary
        Name, tokens and hash of the vocabulary, as text.
    kept
        Other names in the folder, which stay where they are.
    """

    folder: Path
    hub_id: str
    sizes: dict[str, int]
    licence: str
    title: str
    vocabulary: str
    kept: tuple[str, ...]

    def __str__(self) -> str:
        width = max(map(len, self.sizes))
        lines = [f"{self.folder} -> {constants.ENDPOINT}/{self.hub_id} (public, if it is new)"]
        lines += [f"  {name:{width}}  {size:>13,} bytes" for name, size in self.sizes.items()]
        lines += [f"card: {self.title}", f"licence: {self.licence}", f"vocabulary: {self.vocabulary}"]
        return "\n".join(lines + ([f"not uploaded: {', '.join(self.kept)}"] if self.kept else []))


def plan(folder: str | Path, hub_id: str) -> Publication:
    """Check a folder that is to be uploaded, without contacting the hub.

    Parameters
    ----------
    folder
        As `export.save_model` writes it: `FILES`.
    hub_id
        ``owner/name``.

    Raises
    ------
    DataError
        If files are missing, do not belong together or cannot be read, the card names no licence, or the id is none.
    """
    folder = Path(folder)
    place = hub.HUB_ID.fullmatch(hub_id)
    if not place or place["subfolder"]:
        raise DataError(f"{hub_id}: no hub id; give owner/name, your account and the model's name")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise DataError(f"{folder}: no {', '.join(missing)}; write the folder by export.save_model")
    vocabulary = published_settings.vocabulary_of(checkpoints.find(folder))
    card = (folder / CARD).read_text(errors="replace")
    licence, title = _licence(card), next((line for line in card.splitlines() if line.startswith("# ")), "")
    if not licence or not title:
        raise DataError(f"{folder / CARD}: no {'title' if licence else 'licence'}; write it by export.model_card")
    kept = tuple(sorted(path.name for path in folder.iterdir() if path.name not in FILES))
    sizes = {name: (folder / name).stat().st_size for name in FILES}
    described = f"{vocabulary.name}, {vocabulary.size:,} tokens, {vocabulary.sha256[:12]}"
    return Publication(folder, hub_id, sizes, licence, title.removeprefix("# "), described, kept)


def upload(publication: Publication) -> str:
    """Upload a model in one commit, with the token of `huggingface_hub`; return the commit's address.

    Raises
    ------
    DataError
        If the hub refuses or does not answer.
    """
    api = HfApi()
    try:
        api.create_repo(publication.hub_id, exist_ok=True)
        commit = api.upload_folder(
            repo_id=publication.hub_id, folder_path=publication.folder, allow_patterns=list(FILES)
        )
    except hub.HUB_ERRORS as error:
        raise hub.hub_error(publication.hub_id, error) from None
    return str(commit.commit_url)


def _licence(card: str) -> str:
    """Licence of a model card's metadata, empty if it has none."""
    _, _, rest = card.partition("---\n")
    try:
        metadata = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return ""
    return str(metadata.get("license") or "") if isinstance(metadata, dict) else ""
