"""Classification of cells by a fine-tuned model: paper B, section 3.2, with official Geneformer's conventions.

A pooler and a linear head predict the class from the first position (``<cls>`` in V2, the cell's first gene in V1).
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import PAD, Vocabulary
from epigen_utils.models import batching, presets, search, training
from epigen_utils.models.training import Settings
from epigen_utils.stats import folds

#: Published settings (official trainer_state.json, which paper B's repository reuses): 7,020 steps of 12 cells, with
#: 1,812 warm-up steps.
PUBLISHED_SETTINGS = Settings(
    learning_rate=8.04e-4, warmup_steps=1812, weight_decay=0.258828, batch_size=12, epochs=0.9, schedule="polynomial"
)
PUBLISHED_STEPS = 7_020

#: Cells whose token ids are held at once when classes are predicted.
BLOCK = 8192


def published_settings(n_cells: int, *, epochs: float = PUBLISHED_SETTINGS.epochs) -> Settings:
    """Scale the published warm-up to the number of steps; 1,812 steps would outlast a smaller data set."""
    steps = epochs * n_cells / PUBLISHED_SETTINGS.batch_size
    return replace(
        PUBLISHED_SETTINGS, epochs=epochs, warmup_steps=round(steps * PUBLISHED_SETTINGS.warmup_steps / PUBLISHED_STEPS)
    )


class CellClassObjective:
    """Training objective of cell classification (`training.fit`).

    Parameters
    ----------
    labels, valid_labels
        Class index of each training cell, and of each held-out cell.
    """

    loss = None

    def __init__(self, vocabulary: Vocabulary, labels: np.ndarray, valid_labels: np.ndarray):
        self.vocabulary, self.labels, self.valid_labels = vocabulary, np.asarray(labels), np.asarray(valid_labels)
        digest = hashlib.sha256(self.labels.astype(np.int64).tobytes()).hexdigest()
        self.about = {"cell classes": digest, "vocabulary": vocabulary.sha256}

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` (cells x length), ``labels`` (cells)."""
        labels = torch.from_numpy(self.labels[[row["row"] for row in rows]].astype(np.int64))
        batch = batching.pad_batch([row["input_ids"] for row in rows], self.vocabulary.tokens[PAD])
        return batch | {"labels": labels}

    def measure(self, model: PreTrainedModel, valid: EncodedCells) -> dict[str, float]:
        """Mean loss (nats), accuracy and macro-F1 on held-out cells."""
        p = class_probabilities(model, valid, self.vocabulary)
        predicted = p.argmax(axis=1)
        loss = -np.log(np.maximum(p[np.arange(len(p)), self.valid_labels], 1e-12)).mean()
        macro = f1_score(self.valid_labels, predicted, average="macro")
        accuracy = (predicted == self.valid_labels).mean()
        return {"loss": float(loss), "accuracy": float(accuracy), "macro_f1": float(macro)}


@torch.no_grad()
def class_probabilities(model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary) -> np.ndarray:
    """Predict the probability of each class, cells x classes, in the order of the cells."""
    model.eval()
    ids = token_ids(cells)
    predicted = np.empty((len(ids), model.config.num_labels), np.float32)
    for rows in batching.length_batches([len(cell) for cell in ids]):
        batch = batching.pad_batch([ids[row] for row in rows], vocabulary.tokens[PAD], model.device)
        logits = model(**batch).logits  # (cells, classes)
        predicted[rows] = nn.functional.softmax(logits.float(), dim=-1).cpu().numpy()
    return predicted


class CellClassifier(ClassifierMixin, BaseEstimator):
    """Scikit-learn estimator that fine-tunes a pretrained model on cells.

    Parameters
    ----------
    encoded
        All cells; ``fit`` and ``predict_proba`` take positions in it.
    start
        Pretrained model whose body initialises the classifier.
    settings
        Training settings; None for the published ones (`published_settings`).
    layers_frozen
        Number of first layers with frozen weights.
    random_init
        Start from random weights of the same shape with no layer frozen, a control for the effect of pretraining.
    folder
        Folder of all runs; each fit is stored under a hash of its rows, labels and settings, and can be resumed.
    """

    def __init__(
        self,
        encoded: datasets.Dataset,
        vocabulary: Vocabulary,
        start: PreTrainedModel,
        folder: Path,
        settings: Settings | None = None,
        layers_frozen: int = 0,
        random_init: bool = False,
        precision: str = "fp32",
        seed: int = 0,
    ):
        self.encoded, self.vocabulary, self.start, self.folder = encoded, vocabulary, start, folder
        self.settings, self.layers_frozen, self.random_init = settings, layers_frozen, random_init
        self.precision, self.seed = precision, seed

    def __sklearn_clone__(self) -> "CellClassifier":
        return CellClassifier(**self.get_params(deep=False))

    def fit(self, rows: np.ndarray, y: np.ndarray) -> "CellClassifier":
        """Fine-tune on the cells at the given positions."""
        self.classes_, labels = np.unique(y, return_inverse=True)
        body = presets.build(self.start.config, "masked-lm", seed=self.seed) if self.random_init else self.start
        model = presets.with_head(body, "cell-class", [str(name) for name in self.classes_], seed=self.seed)
        model = presets.freeze_layers(model, 0 if self.random_init else self.layers_frozen)
        settings = self.settings or published_settings(len(rows))
        # No evaluation during training: all choices were made earlier, within the training cells.
        settings = replace(settings, evaluate_every=0)
        identity = np.ascontiguousarray(rows).tobytes() + labels.tobytes() + str((settings, self.random_init)).encode()
        objective = CellClassObjective(self.vocabulary, labels, labels[:0])
        training.fit(
            model,
            self.encoded.select(rows),
            self.encoded.select([]),
            objective=objective,
            precision=self.precision,
            seed=self.seed,
            output_dir=training.folder_by_hash(self.folder, identity),
            settings=settings,
            progress=False,
        )
        self.model_ = model
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Predict class probabilities of cells at the given positions, cells x classes, holding a block of them."""
        blocks = np.split(rows, range(BLOCK, len(rows), BLOCK))
        parts = [class_probabilities(self.model_, self.encoded.select(block), self.vocabulary) for block in blocks]
        return np.concatenate(parts)


def tune_settings(
    estimator: CellClassifier,
    rows: np.ndarray,
    y: np.ndarray,
    donors: np.ndarray,
    *,
    n_trials: int,
    epochs: tuple[float, float],
    seed: int = 0,
    n_splits: int = 3,
    inner_folds: int = 1,
    held_out: np.ndarray | None = None,
) -> tuple[Settings, int, pd.DataFrame]:
    """Choose settings by macro-F1 on donors held out within the training cells.

    Parameters
    ----------
    rows, y, donors
        Positions, labels and donors of the training cells alone.
    epochs
        Smallest and largest number of epochs.
    n_splits, inner_folds
        Number of donor folds within the training cells, and how many of them are evaluated.
    held_out
        Mask of the cells of the donors to choose by, instead of folds.

    Returns
    -------
    The best settings, the number of frozen layers, and the trials of `search.search`.
    """
    names, labels = np.unique(y, return_inverse=True)
    if held_out is None:
        splits = list(folds.donor_folds(y, donors, n_splits=n_splits, seed=seed))[:inner_folds]
    else:
        splits = [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]
    sizes = estimator.start.config.num_hidden_layers, len(rows)

    def score(trial: optuna.Trial) -> dict[str, float]:
        settings, layers = _suggest_settings(trial, epochs, *sizes)
        scores = []
        for train, test in splits:
            candidate = estimator.__sklearn_clone__().set_params(settings=settings, layers_frozen=layers)
            p = candidate.fit(rows[train], y[train]).predict_proba(rows[test])
            scores.append(f1_score(labels[test], p.argmax(axis=1), labels=range(len(names)), average="macro"))
        return {"macro_f1": float(np.mean(scores))}

    trials = search.search(score, by="macro_f1", direction="maximize", n_trials=n_trials, seed=seed)
    best = optuna.trial.FixedTrial(trials.iloc[0].to_dict())
    return *_suggest_settings(best, epochs, *sizes), trials


def _suggest_settings(
    trial: optuna.Trial | optuna.trial.FixedTrial, epochs: tuple[float, float], n_layers: int, n_cells: int
) -> tuple[Settings, int]:
    """Suggest settings and frozen layers in official Geneformer's search space."""
    n_epochs = trial.suggest_float("epochs", *epochs)
    steps = n_epochs * n_cells / PUBLISHED_SETTINGS.batch_size
    settings = Settings(
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        warmup_steps=round(steps * trial.suggest_float("warm_up", 0.02, 0.3)),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        batch_size=PUBLISHED_SETTINGS.batch_size,
        epochs=n_epochs,
        schedule=trial.suggest_categorical("schedule", ["linear", "cosine", "polynomial"]),
    )
    return settings, trial.suggest_int("layers_frozen", 0, n_layers // 2)
