"""Classification of samples by GPT-2 from their gene sentences: paper A, sections III.B and III.F.

`training.fit` trains with the Hugging Face Trainer, `short_training.train` without it where a run is too short for a
checkpoint; `losses.attention_aligned_hybrid_loss` is the Attention-Aligned Hybrid Loss.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from epigen_utils.expression import fold_selection
from epigen_utils.gpt2 import objectives, sentence_model, short_training
from epigen_utils.gpt2.sentence_model import GeneSentenceModel
from epigen_utils.gpt2.sentences import GPT2_POSITIONS, PAD_ID, GeneSentenceEncoder
from epigen_utils.models import training
from epigen_utils.models.checkpoints import Checkpoint
from epigen_utils.models.training import Settings

#: Positions of a batch of which the states of all layers are in memory; of GPT-2 XL they take 0.6 GB.
POSITIONS_WITH_STATES = 2048
#: Settings for fine-tuning a small GPT-2 on few samples; the paper does not report its hyper-parameters.
FINE_TUNING_SETTINGS = Settings(
    learning_rate=1e-3,
    warmup_steps=10,
    weight_decay=0.01,
    batch_size=8,
    epochs=20,
    grouped=False,
    evaluate_every=0,
    save_every=200,
)


class GPT2Classifier(ClassifierMixin, BaseEstimator):
    """GPT-2 fine-tuned on the gene sentences of samples, as a scikit-learn classifier.

    Parameters
    ----------
    preset
        One of `presets.GPT2_PRESETS`.
    position_input
        Input of a position beside its gene (`sentence_model.POSITION_INPUTS`).
    n_bins, bins_by, max_length
        Of the encoder, which is fitted on the training samples.
    aligned, prior, layers
        Lambda of the hybrid loss; the genes of the prior, or one of `fold_selection.SELECTIONS` to select the first
        `fold_selection.PRIOR_GENES` in the training samples; number of last layers whose attention is aligned.
    language
        Mu, the weight of causal language modelling beside the classification loss.
    start
        Published GPT-2 whose body initialises the model (`sentence_model.find_start`); empty for random weights.
    vectors
        Initial gene embeddings, genes x dimensions (`kmers.gene_vectors`); None for noise.
    language_epochs
        Epochs of a first stage, causal language modelling on the training sentences and on ``unlabelled`` (log2
        expression, samples x genes).
    folder
        Folder of the runs, which several pages may share: each fit is named by its data and settings, a short one
        also by its code. A finished fit is loaded, one with checkpoints is resumed.
    """

    def __init__(
        self,
        preset: str = "gpt2-tiny",
        position_input: str = "bins",
        n_bins: int = 10,
        bins_by: str = "quantile",
        max_length: int = GPT2_POSITIONS,
        settings: Settings = FINE_TUNING_SETTINGS,
        aligned: float = 0.0,
        prior: Sequence[str] | str = (),
        layers: int = 1,
        language: float = 0.0,
        start: str | Checkpoint = "",
        vectors: pd.DataFrame | None = None,
        language_epochs: float = 0.0,
        unlabelled: pd.DataFrame | None = None,
        folder: str | Path = "results/alone/gpt2",
        precision: str = "fp32",
        seed: int = 0,
    ):
        self.preset, self.position_input, self.max_length = preset, position_input, max_length
        self.n_bins, self.bins_by = n_bins, bins_by
        self.settings, self.aligned, self.prior, self.layers, self.language = settings, aligned, prior, layers, language
        self.start, self.vectors, self.language_epochs, self.unlabelled = start, vectors, language_epochs, unlabelled
        self.folder, self.precision, self.seed = folder, precision, seed

    def __sklearn_clone__(self) -> "GPT2Classifier":
        return GPT2Classifier(**self.get_params(deep=False))

    def fit(
        self, values: pd.DataFrame, y: np.ndarray, held_out: tuple[pd.DataFrame, np.ndarray] | None = None
    ) -> "GPT2Classifier":
        """Fine-tune on samples.

        Parameters
        ----------
        values
            Log2 expression, samples x genes.
        held_out
            Samples and classes evaluated during training with ``settings.evaluate_every``; nothing is selected by them.
        """
        self.classes_, labels = np.unique(np.asarray(y).astype(str), return_inverse=True)
        model, self.encoder_, self.scale_ = self.started(values, [str(name) for name in self.classes_])
        encoded = self.encoder_.padded(values)
        self.prior_ = self._prior(values, y)
        prior = np.array([0.0, *(float(gene in self.prior_) for gene in self.encoder_.genes)])
        weights = {"weight": self.aligned, "layers": self.layers, "language_weight": self.language}
        objective = objectives.ClassObjective(
            encoded, labels, scale=self.scale_, prior=prior if self.prior_ else None, **weights
        )
        valid = None
        if held_out is not None:
            label_of = {name: label for label, name in enumerate(self.classes_)}
            valid = objectives.HeldOutSentences(
                self.encoder_.padded(held_out[0]), [label_of[str(name)] for name in held_out[1]]
            )
        self.history_ = self._train(model, objective, self.settings, valid)
        self.model_ = model
        return self

    def untrained(self, values: pd.DataFrame, y: np.ndarray) -> "GPT2Classifier":
        """Initial model of `fit` with the encoder of the same samples: the control for fine-tuning."""
        self.classes_ = np.unique(np.asarray(y).astype(str))
        self.model_, self.encoder_, self.scale_ = self.started(values, [str(name) for name in self.classes_])
        self.model_.eval()
        return self

    def started(
        self, values: pd.DataFrame, classes: Sequence[str] = ("control", "case")
    ) -> tuple[GeneSentenceModel, GeneSentenceEncoder, tuple[float, float]]:
        """Model before fine-tuning, after the first stage if there is one; its encoder; mean and SD of the values."""
        encoder = GeneSentenceEncoder.fit(
            values, n_bins=self.n_bins, kind=self.bins_by, max_length=min(self.max_length, values.shape[1])
        )
        encoded = encoder.padded(values)
        log2_values = encoded.values[encoded.ids != PAD_ID]
        scale = (float(log2_values.mean()), float(log2_values.std()) or 1.0)
        config = sentence_model.sentence_config(self.preset, encoder, list(classes), position_input=self.position_input)
        table = None if self.vectors is None else _initial_embeddings(self.vectors, encoder, config, self.seed)
        model = sentence_model.build_sentence_model(config, seed=self.seed, start=self.start, vectors=table)
        if self.language_epochs:
            if self.unlabelled is not None:
                encoded = encoder.padded(pd.concat([values, self.unlabelled[values.columns]]))
            settings = replace(self.settings, epochs=self.language_epochs)
            self._train(model, objectives.NextGeneObjective(encoded, scale), settings)
        return model, encoder, scale

    def _prior(self, values: pd.DataFrame, y: np.ndarray) -> set[str]:
        if isinstance(self.prior, str):
            order = fold_selection.ranked_genes(values.to_numpy(), np.asarray(y).astype(str), self.prior)
            return {str(gene) for gene in values.columns[order[: fold_selection.PRIOR_GENES]]}
        return set(self.prior)

    def _train(
        self,
        model: GeneSentenceModel,
        objective: objectives.SentenceObjective,
        settings: Settings,
        valid: objectives.HeldOutSentences | None = None,
    ) -> pd.DataFrame:
        if valid is None:
            valid = ()
            settings = replace(settings, evaluate_every=0)
        start = training.weights_fingerprint(model)
        identity = repr((objective.about, settings, self.position_input, self.precision, self.seed, start, len(valid)))
        if short_training.is_short(len(objective), settings, self.precision):
            identity += short_training.code_fingerprint()
            folder = training.folder_by_hash(self.folder, identity.encode())
            short_training.fit(model, objective, settings, seed=self.seed, output_dir=folder)
            return pd.DataFrame()
        return training.fit(
            model,
            objective.cells(),
            valid,
            objective=objective,
            precision=self.precision,
            seed=self.seed,
            output_dir=training.folder_by_hash(self.folder, identity.encode()),
            settings=settings,
            progress=False,
        )

    def predict_proba(self, values: pd.DataFrame) -> np.ndarray:
        """Probabilities, samples x classes."""
        return objectives.sentence_class_probabilities(self.model_, self.encoder_.padded(values), self.scale_)

    @torch.no_grad()
    def iter_hidden_states(self, values: pd.DataFrame) -> Iterator[tuple[np.ndarray, tuple[torch.Tensor, ...]]]:
        """Iterate over the sentences of samples: the genes' columns in the encoder, and the states of all layers.

        States are length x width. The first is the input of the first layer; the last is the output of the last layer
        after the final layer norm (`GeneSentenceModel.forward`).
        """
        self.model_.eval()
        encoded = self.encoder_.padded(values)
        size = max(POSITIONS_WITH_STATES // max(encoded.ids.shape[1], 1), 1)
        for rows in np.split(np.arange(len(encoded)), range(size, len(encoded), size)):
            batch = objectives.collate_sentences(encoded, rows, self.scale_, self.model_.device)
            states = self.model_(**batch, output_hidden_states=True).hidden_states
            for i, row in enumerate(rows):
                yield encoded.columns(row), tuple(state[i, : encoded.lengths[row]] for state in states)

    @torch.no_grad()
    def attention(self, values: pd.DataFrame, *, prior: set[str]) -> pd.DataFrame:
        """Attention of each sentence's last gene to the genes of a prior, mean over the heads of the last `layers`.

        Returns
        -------
        A row a sample: ``share`` of the attention, and ``even``, the share under uniform attention.
        """
        gene_in_prior = torch.tensor([gene in prior for gene in self.encoder_.genes])
        rows = []
        for columns, states in self.iter_hidden_states(values):
            mask = torch.ones((1, len(columns)), dtype=torch.bool, device=states[0].device)
            states = [state[None] for state in states]  # (1, length, width) for each layer
            attention = sentence_model.last_gene_attention(self.model_, states, mask, layers=self.layers)[0].cpu()
            in_prior = gene_in_prior[columns]  # (length,)
            rows.append({"share": float(attention[in_prior].sum()), "even": float(in_prior.float().mean())})
        return pd.DataFrame(rows)


def iter_seeds(
    classifier: GPT2Classifier, values: pd.DataFrame, y: np.ndarray, seeds: Iterable[int], *, trained: bool = True
) -> Iterator[GPT2Classifier]:
    """Iterate over models of several seeds, fine-tuned on the same samples or, as a control, untrained."""
    for seed in seeds:
        model = clone(classifier).set_params(seed=seed)
        yield model.fit(values, y) if trained else model.untrained(values, y)


def next_gene_losses(classifier: GPT2Classifier, train: pd.DataFrame, held_out: pd.DataFrame) -> dict[str, float]:
    """Effect of the first stage, causal language modelling, on held-out sentences.

    Returns
    -------
    Cross entropy of the next gene (nats): ``before``, ``after``, and ``even``, of a uniform distribution over the
    vocabulary.
    """
    cross_entropies = {}
    without = clone(classifier).set_params(language_epochs=0.0)
    for name, variant in (("before", without), ("after", classifier)):
        model, encoder, scale = variant.started(train)
        objective = objectives.NextGeneObjective(encoder.padded(train), scale)
        cross_entropies[name] = objective.measure(model, objectives.HeldOutSentences(encoder.padded(held_out), []))[
            "loss"
        ]
    return cross_entropies | {"even": float(np.log(len(encoder.genes)))}


def _initial_embeddings(vectors: pd.DataFrame, encoder: GeneSentenceEncoder, config: object, seed: int) -> torch.Tensor:
    """Vectors of the encoder's genes, at the model's width and initial SD; genes without a vector get noise."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, config.initializer_range, (config.vocab_size, config.n_embd))
    rows = np.array([row for row, gene in enumerate(encoder.genes) if gene in vectors.index], dtype=int)
    projected = vectors.loc[[encoder.genes[row] for row in rows]].to_numpy(float)
    # Johnson and Lindenstrauss 1984: a random projection keeps distances, at any width and with any number of genes.
    projected = (projected - projected.mean(axis=0)) @ rng.normal(size=(projected.shape[1], config.n_embd))
    sd = projected.std()
    if sd > 0:
        table[rows + 1] = projected * config.initializer_range / sd
    table[PAD_ID] = 0
    return torch.as_tensor(table, dtype=torch.float32)
