"""Classification of samples by GPT-2 from their gene sentences: paper A, sections III.B and III.F.

`training.fit` trains with the Hugging Face Trainer; `losses.attention_aligned_hybrid_loss` is the Attention-Aligned
Hybrid Loss.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import datasets as arrow
import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from torch import nn

from epigen_utils import in_fold, losses, sentence_models, training
from epigen_utils.batching import pad
from epigen_utils.hidden_states import batches
from epigen_utils.models import IGNORED
from epigen_utils.sentence_models import GeneSentenceModel
from epigen_utils.sentences import PAD, POSITIONS, GeneSentenceEncoder
from epigen_utils.training import Settings


def collated(rows: list[dict], scale: tuple[float, float]) -> dict[str, torch.Tensor]:
    """Sentences as a batch: ``input_ids``, ``bins`` and ``values`` (standardised by ``scale``), sentences x length."""
    ids = pad([row["input_ids"] for row in rows], PAD)
    values = torch.zeros(ids.shape)
    for i, row in enumerate(rows):
        standardised = (np.asarray(row["values"]) - scale[0]) / scale[1]
        values[i, : len(standardised)] = torch.as_tensor(standardised, dtype=torch.float32)
    return {"input_ids": ids, "bins": pad([row["bins"] for row in rows], 0), "values": values}


class _Sentences:
    """Encoded training sentences in memory, addressed by their row."""

    def __init__(self, encoded: arrow.Dataset, scale: tuple[float, float]):
        self.rows = [encoded[row] for row in range(len(encoded))]
        self.scale = scale
        digest = hashlib.sha256(repr([(row["input_ids"], row["bins"]) for row in self.rows]).encode())
        self.about = {"sentences": digest.hexdigest(), "scale": list(scale)}

    def batch(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return collated([self.rows[row["row"]] for row in rows], self.scale)


class SampleClasses(_Sentences):
    """Training objective (`training.fit`): the classes of samples.

    Parameters
    ----------
    encoded
        Training sentences (`GeneSentenceEncoder.encode`).
    labels
        Index of each sentence's class.
    scale
        Mean and standard deviation of the training values.
    prior
        Weight of each token, padding first, with which attention is aligned; None without a prior.
    weight, layers
        Lambda of the Attention-Aligned Hybrid Loss, and the number of last layers whose attention it aligns.
    language_weight
        Mu, the weight of causal language modelling.
    """

    def __init__(
        self,
        encoded: arrow.Dataset,
        labels: np.ndarray,
        *,
        scale: tuple[float, float],
        prior: np.ndarray | None = None,
        weight: float = 0.0,
        layers: int = 1,
        language_weight: float = 0.0,
    ):
        super().__init__(encoded, scale)
        self.labels = torch.as_tensor(np.asarray(labels), dtype=torch.int64)
        self.prior = None if prior is None else torch.as_tensor(prior, dtype=torch.float32)
        self.weight, self.layers, self.language_weight = weight, layers, language_weight
        digest = hashlib.sha256(self.labels.numpy().tobytes() + (b"" if prior is None else np.asarray(prior).tobytes()))
        self.about |= {"classes": digest.hexdigest(), "weights": [weight, language_weight], "layers": layers}

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of `collated` with ``labels`` (sentences)."""
        return self.batch(rows) | {"labels": self.labels[[row["row"] for row in rows]]}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Hybrid loss of a batch, or its share of a step over ``n_labels`` sentences."""
        total = self.parts(model, batch)["total"]
        return total if n_labels is None else total * len(batch["labels"]) / int(n_labels)

    def parts(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Loss and its terms, as returned by `losses.attention_aligned_hybrid_loss`."""
        inputs = {name: batch[name] for name in ("input_ids", "bins", "values")}
        ids, mask = inputs["input_ids"], inputs["input_ids"] != PAD
        aligned = self.weight > 0 and self.prior is not None
        output = model(**inputs, output_hidden_states=aligned)
        unwrapped = getattr(model, "module", model)
        prior = attention = mask.float()
        if aligned:
            prior = self.prior.to(ids.device)[ids] * mask
            attention = sentence_models.read_out_attention(unwrapped, output.hidden_states, mask, layers=self.layers)
        language = _next_gene(unwrapped, output.hidden_states[-1], ids) if self.language_weight else None
        options = {"weight": self.weight if aligned else 0.0, "language_weight": self.language_weight}
        return losses.attention_aligned_hybrid_loss(
            output.logits.float(), batch["labels"], attention, prior, language=language, **options
        )

    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean cross entropy (nats) and accuracy on held-out sentences (`Held`)."""
        p = probabilities(model, valid.encoded, self.scale)
        p_true = p[np.arange(len(p)), valid.labels]
        return {
            "loss": float(-np.log(np.maximum(p_true, 1e-12)).mean()),
            "accuracy": float((p.argmax(1) == valid.labels).mean()),
        }


class NextGene(_Sentences):
    """Training objective (`training.fit`): causal language modelling of sentences, without labels."""

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of `collated` with ``labels``: the predicted genes, all but the first."""
        batch = self.batch(rows)
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == PAD, IGNORED)
        labels[:, 0] = IGNORED
        return batch | {"labels": labels}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Mean cross entropy over the predicted genes, or its share of a step over ``n_labels`` genes."""
        output = model(**{name: batch[name] for name in ("input_ids", "bins", "values")})
        mean = _next_gene(getattr(model, "module", model), output.hidden_states[-1], batch["input_ids"])
        return mean if n_labels is None else mean * int((batch["labels"] != IGNORED).sum()) / int(n_labels)

    @torch.no_grad()
    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean cross entropy (nats) over the predicted genes of held-out sentences."""
        model.eval()
        total = n = 0
        for rows in batches(np.array(valid.encoded["length"])):
            batch = collated([valid.encoded[int(row)] for row in rows], self.scale)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            n_predicted = int((batch["input_ids"] != PAD).sum()) - len(rows)
            states = model(**batch).hidden_states[-1]
            total += float(_next_gene(model, states, batch["input_ids"])) * n_predicted
            n += n_predicted
        return {"loss": total / max(n, 1)}


def _next_gene(model: GeneSentenceModel, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logits = model.next_gene(states[:, :-1]).float()  # (sentences, length - 1, vocabulary)
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)


class Held:
    """Held-out sentences with their classes, for `SampleClasses.measure` and `NextGene.measure`."""

    def __init__(self, encoded: arrow.Dataset, labels: np.ndarray):
        self.encoded, self.labels = encoded, np.asarray(labels)

    def __len__(self) -> int:
        return len(self.encoded)


@torch.no_grad()
def probabilities(model: GeneSentenceModel, encoded: arrow.Dataset, scale: tuple[float, float]) -> np.ndarray:
    """Probability of each class, samples x classes."""
    model.eval()
    p = np.empty((len(encoded), model.config.num_labels), np.float32)
    for rows in batches(np.array(encoded["length"])):
        batch = collated([encoded[int(row)] for row in rows], scale)
        logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        p[rows] = nn.functional.softmax(logits.float(), dim=-1).cpu().numpy()
    return p


#: Number of genes in a prior selected from the training samples.
PRIOR_GENES = 16
#: Settings for fine-tuning a small GPT-2 on few samples; the paper does not report its hyper-parameters.
SETTINGS = Settings(
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
        One of `models.GPT2`.
    shown
        Input of a position (`sentence_models.SHOWN`).
    n_bins, bins_by, max_length
        Of the encoder, which is fitted on the training samples.
    aligned, prior, layers
        Lambda of the hybrid loss; the genes of the prior, or one of `in_fold.SELECTIONS` to select the first
        `PRIOR_GENES` in the training samples; number of last layers whose attention is aligned.
    language
        Mu, the weight of causal language modelling beside the classification loss.
    start
        Hub id or folder of a published GPT-2 whose body initialises the model; empty for random weights.
    vectors
        Initial gene embeddings, genes x dimensions (`sequence.gene_vectors`); None for noise.
    language_epochs
        Epochs of a first stage, causal language modelling on the training sentences and on ``unlabelled`` (log2
        expression, samples x genes).
    folder
        Folder of the runs; each fit resumes the run that is named by its data and settings.
    """

    def __init__(
        self,
        preset: str = "gpt2-tiny",
        shown: str = "bins",
        n_bins: int = 10,
        bins_by: str = "quantile",
        max_length: int = POSITIONS,
        settings: Settings = SETTINGS,
        aligned: float = 0.0,
        prior: Sequence[str] | str = (),
        layers: int = 1,
        language: float = 0.0,
        start: str = "",
        vectors: pd.DataFrame | None = None,
        language_epochs: float = 0.0,
        unlabelled: pd.DataFrame | None = None,
        folder: str | Path = "results/alone/gpt2",
        precision: str = "fp32",
        seed: int = 0,
    ):
        self.preset, self.shown, self.n_bins, self.bins_by, self.max_length = preset, shown, n_bins, bins_by, max_length
        self.settings, self.aligned, self.prior, self.layers, self.language = settings, aligned, prior, layers, language
        self.start, self.vectors, self.language_epochs, self.unlabelled = start, vectors, language_epochs, unlabelled
        self.folder, self.precision, self.seed = folder, precision, seed

    def __sklearn_clone__(self) -> "GPT2Classifier":
        return GPT2Classifier(**self.get_params(deep=False))

    def fit(
        self, values: pd.DataFrame, y: np.ndarray, held: tuple[pd.DataFrame, np.ndarray] | None = None
    ) -> "GPT2Classifier":
        """Fine-tune on samples.

        Parameters
        ----------
        values
            Log2 expression, samples x genes.
        held
            Samples and classes evaluated during training with ``settings.evaluate_every``; nothing is selected by them.
        """
        self.classes_, labels = np.unique(np.asarray(y).astype(str), return_inverse=True)
        model, self.encoder_, self.scale_ = self.started(values, [str(name) for name in self.classes_])
        encoded = self.encoder_.encode(values)
        self.prior_ = self._prior(values, y)
        prior = np.array([0.0, *(float(gene in self.prior_) for gene in self.encoder_.genes)])
        weights = {"weight": self.aligned, "layers": self.layers, "language_weight": self.language}
        objective = SampleClasses(encoded, labels, scale=self.scale_, prior=prior if self.prior_ else None, **weights)
        valid = Held(encoded.select([]), [])
        if held is not None:
            label_of = {name: label for label, name in enumerate(self.classes_)}
            valid = Held(self.encoder_.encode(held[0]), [label_of[str(name)] for name in held[1]])
        self.history_ = self._train(model, encoded, valid, objective, self.settings)
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
        encoded = encoder.encode(values)
        log2_values = np.concatenate(encoded["values"])
        scale = (float(log2_values.mean()), float(log2_values.std()) or 1.0)
        config = sentence_models.configured(self.preset, encoder, list(classes), shown=self.shown)
        table = None if self.vectors is None else _table(self.vectors, encoder, config, self.seed)
        model = sentence_models.build(config, seed=self.seed, start=self.start, vectors=table)
        if self.language_epochs:
            if self.unlabelled is not None:
                encoded = encoder.encode(pd.concat([values, self.unlabelled[values.columns]]))
            settings = replace(self.settings, epochs=self.language_epochs, evaluate_every=0)
            self._train(model, encoded, Held(encoded.select([]), []), NextGene(encoded, scale), settings)
        return model, encoder, scale

    def _prior(self, values: pd.DataFrame, y: np.ndarray) -> set[str]:
        if isinstance(self.prior, str):
            order = in_fold.ranked_genes(values.to_numpy(), np.asarray(y).astype(str), self.prior)
            return {str(gene) for gene in values.columns[order[:PRIOR_GENES]]}
        return set(self.prior)

    def _train(
        self, model: GeneSentenceModel, encoded: arrow.Dataset, valid: Held, objective: _Sentences, settings: Settings
    ) -> pd.DataFrame:
        settings = settings if len(valid) else replace(settings, evaluate_every=0)
        identity = repr((objective.about, settings, self.precision, self.seed, training.fingerprint(model), len(valid)))
        return training.fit(
            model,
            encoded,
            valid,
            objective=objective,
            precision=self.precision,
            seed=self.seed,
            output_dir=Path(self.folder) / hashlib.sha256(identity.encode()).hexdigest()[:16],
            settings=settings,
            progress=False,
        )

    def predict_proba(self, values: pd.DataFrame) -> np.ndarray:
        """Probabilities, samples x classes."""
        return probabilities(self.model_, self.encoder_.encode(values), self.scale_)

    @torch.no_grad()
    def attention(self, values: pd.DataFrame, *, prior: set[str]) -> pd.DataFrame:
        """Attention of each sentence's last gene to the genes of a prior, mean over the heads of the last `layers`.

        Returns
        -------
        A row a sample: ``share`` of the attention, and ``even``, the share under uniform attention.
        """
        encoded = self.encoder_.encode(values)
        token_in_prior = torch.tensor([False, *(gene in prior for gene in self.encoder_.genes)])
        rows = []
        self.model_.eval()
        for row in range(len(encoded)):
            batch = {name: x.to(self.model_.device) for name, x in collated([encoded[row]], self.scale_).items()}
            states = self.model_(**batch, output_hidden_states=True).hidden_states
            mask = batch["input_ids"] != PAD
            attention = sentence_models.read_out_attention(self.model_, states, mask, layers=self.layers)[0].cpu()
            in_prior = token_in_prior[batch["input_ids"][0].cpu()]  # (length,)
            rows.append({"share": float(attention[in_prior].sum()), "even": float(in_prior.float().mean())})
        return pd.DataFrame(rows)


def next_gene_losses(classifier: GPT2Classifier, train: pd.DataFrame, held: pd.DataFrame) -> dict[str, float]:
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
        objective = NextGene(encoder.encode(train), scale)
        cross_entropies[name] = objective.measure(model, Held(encoder.encode(held), []))["loss"]
    return cross_entropies | {"even": float(np.log(len(encoder.genes)))}


def _table(vectors: pd.DataFrame, encoder: GeneSentenceEncoder, config: object, seed: int) -> torch.Tensor:
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
    table[PAD] = 0
    return torch.as_tensor(table, dtype=torch.float32)
