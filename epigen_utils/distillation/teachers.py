"""The frozen teacher, and its hidden states cached on disk."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from epigen_utils.errors import DataError
from epigen_utils.files import whole_folder
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.masked_genes import INFERENCE_BATCH_SIZE, MaskedGenes
from epigen_utils.geneformer.vocabularies import Vocabulary
from epigen_utils.models import batching, masked_heads, training
from epigen_utils.models.batching import IGNORED


class Teacher:
    """A frozen model and its predictions of masked genes.

    Final hidden states (as wide as the model) are cached instead of logits (as wide as the vocabulary); the output
    embedding maps one to the other.

    Raises
    ------
    DataError
        If the sizes of the model's and the given vocabulary differ.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        if model.config.vocab_size != vocabulary.size:
            raise DataError(
                f"teacher: it names {model.config.vocab_size} tokens, the vocabulary {vocabulary.name!r} has "
                f"{vocabulary.size}; give the vocabulary.json that lies beside the teacher"
            )
        self.model, self.vocabulary = model.eval().requires_grad_(False), vocabulary
        self.fingerprint = training.weights_fingerprint(model)

    def _move_to_device_of(self, values: torch.Tensor) -> None:
        # `model.to` visits every submodule even if nothing moves, which costs time in each step.
        if self.model.device != values.device:
            self.model.to(values.device)

    @torch.no_grad()
    def states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Final hidden states of the masked genes, in the order of the batch: genes x width."""
        self._move_to_device_of(batch["input_ids"])
        hidden = self.model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return self.model.cls.predictions.transform(hidden[batch["labels"] != IGNORED])  # (masked genes, width)

    @torch.no_grad()
    def logits(self, states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits of a batch's masked genes from their final hidden states: genes x vocabulary."""
        self._move_to_device_of(states)
        logits = self.model.cls.predictions.decoder(states)
        return masked_heads.lower_visible(logits, batch["input_ids"], batch["labels"] != IGNORED, self.model.config)

    def entropies(self, cells: EncodedCells, temperatures: Iterable[float], *, seed: int = 0) -> dict[float, float]:
        """Mean entropy, in nats, of its distribution over the vocabulary, over masked genes, by temperature."""
        totals, n = dict.fromkeys(temperatures, 0.0), 0
        for _, batch in MaskedGenes(self.vocabulary, seed=seed).batches(cells, INFERENCE_BATCH_SIZE):
            batch = batching.to_device(batch, self.model.device)
            logits = self.logits(self.states(batch), batch).double()  # (masked genes, vocabulary)
            for temperature in totals:
                log_p = torch.log_softmax(logits / temperature, dim=-1)
                totals[temperature] -= float((log_p.exp() * log_p).sum())
            n += len(logits)
        return {temperature: total / max(n, 1) for temperature, total in totals.items()}


class CachedStates:
    """A teacher's states on disk, for every cell and epoch, as functions of the masks (seed, cell and epoch).

    Worth the disk space if several students share one teacher, or if the teacher is much larger than its student
    (benchmarks/distillation.py).
    """

    def __init__(self, states: np.ndarray, starts: np.ndarray, n_cells: int):
        self.values, self.starts, self.n_cells = states, starts, n_cells

    @classmethod
    def of(cls, teacher: Teacher, cells: EncodedCells, *, epochs: float, seed: int, folder: Path) -> "CachedStates":
        """Read the states from the folder, or compute them and write them there atomically.

        Parameters
        ----------
        epochs
            Rounded up to whole epochs.
        seed
            Seed of the masks.
        """
        ids = token_ids(cells)
        n_epochs = int(np.ceil(epochs))
        digest = hashlib.sha256(f"{teacher.fingerprint} {teacher.vocabulary.sha256} {n_epochs} {seed}".encode())
        for cell in ids:
            digest.update(cell.astype(np.int64).tobytes() + b"|")
        folder = Path(folder) / digest.hexdigest()[:16]
        if not folder.is_dir():
            cls._write(teacher, ids, n_epochs, seed, folder)
        starts = np.load(folder / "starts.npy")
        return cls(np.load(folder / "states.npy", mmap_mode="r"), starts, len(ids))

    @staticmethod
    def _write(teacher: Teacher, ids: list[np.ndarray], n_epochs: int, seed: int, folder: Path) -> None:
        masked = MaskedGenes(teacher.vocabulary, seed=seed)
        cell_states: list[np.ndarray] = [np.empty(0)] * (n_epochs * len(ids))  # (masked genes, width) of each cell
        for epoch in range(n_epochs):
            for rows, batch in masked.batches({"input_ids": ids}, INFERENCE_BATCH_SIZE, epoch=epoch):
                states = teacher.states(batching.to_device(batch, teacher.model.device)).cpu().numpy()
                n_masked = (batch["labels"] != IGNORED).sum(dim=1).tolist()
                for row, part in zip(rows, np.split(states, np.cumsum(n_masked)[:-1]), strict=True):
                    cell_states[epoch * len(ids) + row] = part
        with whole_folder(folder) as part:
            np.save(part / "starts.npy", np.cumsum([0, *(len(states) for states in cell_states)]))
            np.save(part / "states.npy", np.concatenate(cell_states))

    def states(self, rows: list[dict]) -> torch.Tensor:
        """States of the masked genes of cells with ``row`` and ``epoch``, in the order of the cells: genes x width."""
        indices = [row["epoch"] * self.n_cells + row["row"] for row in rows]
        parts = [self.values[self.starts[index] : self.starts[index + 1]] for index in indices]
        return torch.from_numpy(np.concatenate(parts))
