"""Samples told apart by GPT-2 from their gene sentences: paper A, sections III.B and III.F.

Training is the Hugging Face Trainer's (`training.fit`); the Attention-Aligned Hybrid Loss is `losses.attention_aligned_hybrid_loss`.
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
    """Sentences as a batch: ``input_ids``, ``bins`` and ``values`` (less ``scale``'s mean, over its SD), sentences x length."""
    ids = pad([row["input_ids"] for row in rows], PAD)
    values = torch.zeros(ids.shape)
    for place, row in enumerate(rows):
        shown = (np.asarray(row["values"]) - scale[0]) / scale[1]
        values[place, : len(shown)] = torch.as_tensor(shown, dtype=torch.float32)
    return {"input_ids": ids, "bins": pad([row["bins"] for row in rows], 0), "values": values}


class _Sentences:
    """Rows of a training set by their position, with all that an encoder gives of them."""

    def __init__(self, encoded: arrow.Dataset, scale: tuple[float, float]):
        self.rows = [encoded[row] for row in range(len(encoded))]
        self.scale = scale
        digest = hashlib.sha256(repr([(row["input_ids"], row["bins"]) for row in self.rows]).encode())
        self.about = {"sentences": digest.hexdigest(), "scale": list(scale)}

    def batch(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return collated([self.rows[row["row"]] for row in rows], self.scale)


class SampleClasses(_Sentences):
    """Classes of samples as something to train for (`training.fit`).

    Parameters
    ----------
    encoded
        Training sentences (`GeneSentenceEncoder.encode`).
    labels
        Number of the class of each.
    scale
        Mean and standard deviation of the training values.
    prior
        Weight of each token, padding first: where attention is to go; None without a prior.
    weight, layers
        Lambda of the Attention-Aligned Hybrid Loss, and how many last layers' attention it aligns.
    language_weight
        Mu, of causal language modelling.
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
        """As `collated`, and ``labels`` (sentences)."""
        return self.batch(rows) | {"labels": self.labels[[row["row"] for row in rows]]}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_asked: int | None) -> torch.Tensor:
        """The hybrid loss of a batch, or of its share of all parts and devices."""
        labels = batch["labels"]
        found = self.parts(model, batch)["total"]
        return found if n_asked is None else found * len(labels) / int(n_asked)

    def parts(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The loss and what it is made of, as `losses.attention_aligned_hybrid_loss` gives them."""
        shown = {name: batch[name] for name in ("input_ids", "bins", "values")}
        ids, mask = shown["input_ids"], shown["input_ids"] != PAD
        aligned = self.weight > 0 and self.prior is not None
        found = model(**shown, output_hidden_states=aligned)
        own = getattr(model, "module", model)
        prior = attention = mask.float()
        if aligned:
            prior = self.prior.to(ids.device)[ids] * mask
            attention = sentence_models.read_out_attention(own, found.hidden_states, mask, layers=self.layers)
        language = _next_gene(own, found.hidden_states[-1], ids) if self.language_weight else None
        options = {"weight": self.weight if aligned else 0.0, "language_weight": self.language_weight}
        return losses.attention_aligned_hybrid_loss(
            found.logits.float(), batch["labels"], attention, prior, language=language, **options
        )

    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean cross entropy (nats) and accuracy on held-out sentences (`Held`)."""
        p = probabilities(model, valid.encoded, self.scale)
        found = p[np.arange(len(p)), valid.labels]
        return {
            "loss": float(-np.log(np.maximum(found, 1e-12)).mean()),
            "accuracy": float((p.argmax(1) == valid.labels).mean()),
        }


class NextGene(_Sentences):
    """Causal language modelling of sentences, without labels: each gene from those before it."""

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """As `collated`, and ``labels``: the genes that are asked for, all but the first."""
        found = self.batch(rows)
        labels = found["input_ids"].masked_fill(found["input_ids"] == PAD, IGNORED)
        labels[:, 0] = IGNORED
        return found | {"labels": labels}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_asked: int | None) -> torch.Tensor:
        """Mean cross entropy over the genes that are asked for."""
        found = model(**{name: batch[name] for name in ("input_ids", "bins", "values")})
        mean = _next_gene(getattr(model, "module", model), found.hidden_states[-1], batch["input_ids"])
        return mean if n_asked is None else mean * int((batch["labels"] != IGNORED).sum()) / int(n_asked)

    @torch.no_grad()
    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean loss (nats) over the genes of held-out sentences."""
        model.eval()
        total = n = 0
        for rows in batches(np.array(valid.encoded["length"])):
            batch = collated([valid.encoded[int(row)] for row in rows], self.scale)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            asked = int((batch["input_ids"] != PAD).sum()) - len(rows)
            states = model(**batch).hidden_states[-1]
            total, n = total + float(_next_gene(model, states, batch["input_ids"])) * asked, n + asked
        return {"loss": total / max(n, 1)}


def _next_gene(model: GeneSentenceModel, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logits = model.next_gene(states[:, :-1]).float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)


class Held:
    """Held-out sentences with their classes, as `SampleClasses.measure` and `NextGene.measure` read them."""

    def __init__(self, encoded: arrow.Dataset, labels: np.ndarray):
        self.encoded, self.labels = encoded, np.asarray(labels)

    def __len__(self) -> int:
        return len(self.encoded)


@torch.no_grad()
def probabilities(model: GeneSentenceModel, encoded: arrow.Dataset, scale: tuple[float, float]) -> np.ndarray:
    """Probability of each class, samples x classes."""
    model.eval()
    found = np.empty((len(encoded), model.config.num_labels), np.float32)
    for rows in batches(np.array(encoded["length"])):
        batch = collated([encoded[int(row)] for row in rows], scale)
        logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        found[rows] = nn.functional.softmax(logits.float(), dim=-1).cpu().numpy()
    return found


#: Genes of a prior that is found in the training samples.
PRIOR_GENES = 16
#: Fine-tuning of a small GPT-2 on few samples; the paper gives no hyper-parameters, only that they were searched for.
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
    """GPT-2 fine-tuned on the sentences of some samples and asked about others, as scikit-learn's estimators are.

    Parameters
    ----------
    preset
        Of `models.GPT2`.
    shown
        What a position shows (`sentence_models.SHOWN`).
    n_bins, bins_by, max_length
        Of the encoder, which is learned from the training samples.
    aligned, prior, layers
        Lambda of the hybrid loss; the genes that attention is to be paid to, or of `in_fold.SELECTIONS`, by which the first
        `PRIOR_GENES` of the training samples are taken; and how many last layers' attention it is.
    language
        Mu: causal language modelling beside the classes.
    start
        Hub id or folder of a published GPT-2 that the body starts from; empty for fresh weights.
    vectors
        Genes x dimensions (`sequence.gene_vectors`) that the genes' table starts from; None for noise.
    language_epochs
        Of a first stage, causal language modelling on the training sentences and on ``unlabelled`` (samples x genes).
    folder
        Where each fit keeps its run, under a name that follows from its data and settings, so that it can be gone on with.
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
            Samples and classes to be measured on the way where ``settings.evaluate_every`` asks for it; nothing is chosen by them.
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
            place = {name: label for label, name in enumerate(self.classes_)}
            valid = Held(self.encoder_.encode(held[0]), [place[str(name)] for name in held[1]])
        self.history_ = self._train(model, encoded, valid, objective, self.settings)
        self.model_ = model
        return self

    def untrained(self, values: pd.DataFrame, y: np.ndarray) -> "GPT2Classifier":
        """The model that `fit` starts from, with the encoder of the same samples: the control of what was learned."""
        self.classes_ = np.unique(np.asarray(y).astype(str))
        self.model_, self.encoder_, self.scale_ = self.started(values, [str(name) for name in self.classes_])
        self.model_.eval()
        return self

    def started(
        self, values: pd.DataFrame, classes: Sequence[str] = ("control", "case")
    ) -> tuple[GeneSentenceModel, GeneSentenceEncoder, tuple[float, float]]:
        """The model before it is told of classes, after the first stage where there is one; its encoder and scale."""
        encoder = GeneSentenceEncoder.fit(
            values, n_bins=self.n_bins, kind=self.bins_by, max_length=min(self.max_length, values.shape[1])
        )
        encoded = encoder.encode(values)
        shown = np.concatenate(encoded["values"])
        scale = (float(shown.mean()), float(shown.std()) or 1.0)
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
            return {str(values.columns[place]) for place in order[:PRIOR_GENES]}
        return set(self.prior)

    def _train(
        self, model: GeneSentenceModel, encoded: arrow.Dataset, valid: Held, objective: _Sentences, settings: Settings
    ) -> pd.DataFrame:
        settings = settings if len(valid) else replace(settings, evaluate_every=0)
        asked = repr((objective.about, settings, self.precision, self.seed, training.fingerprint(model), len(valid)))
        return training.fit(
            model,
            encoded,
            valid,
            objective=objective,
            precision=self.precision,
            seed=self.seed,
            output_dir=Path(self.folder) / hashlib.sha256(asked.encode()).hexdigest()[:16],
            settings=settings,
            progress=False,
        )

    def predict_proba(self, values: pd.DataFrame) -> np.ndarray:
        """Probabilities, samples x classes."""
        return probabilities(self.model_, self.encoder_.encode(values), self.scale_)

    @torch.no_grad()
    def attention(self, values: pd.DataFrame, *, prior: set[str]) -> pd.DataFrame:
        """Attention that the last gene of each sentence pays to some genes, mean over the heads of the last `layers`.

        Returns
        -------
        A row a sample: ``share`` of the attention, and what it would be were it spread ``even``ly.
        """
        encoded = self.encoder_.encode(values)
        inside = torch.tensor([False, *(gene in prior for gene in self.encoder_.genes)])
        rows = []
        self.model_.eval()
        for row in range(len(encoded)):
            batch = {name: x.to(self.model_.device) for name, x in collated([encoded[row]], self.scale_).items()}
            states = self.model_(**batch, output_hidden_states=True).hidden_states
            mask = batch["input_ids"] != PAD
            paid = sentence_models.read_out_attention(self.model_, states, mask, layers=self.layers)[0].cpu()
            some = inside[batch["input_ids"][0].cpu()]
            rows.append({"share": float(paid[some].sum()), "even": float(some.float().mean())})
        return pd.DataFrame(rows)


def next_gene_losses(classifier: GPT2Classifier, train: pd.DataFrame, held: pd.DataFrame) -> dict[str, float]:
    """What the first stage, causal language modelling, does for sentences that it has not seen.

    Returns
    -------
    Cross entropy of the next gene (nats): ``before``, ``after``, and ``even``, of guessing among all genes of the vocabulary.
    """
    found = {}
    for name, made in (("before", clone(classifier).set_params(language_epochs=0.0)), ("after", classifier)):
        model, encoder, scale = made.started(train)
        found[name] = NextGene(encoder.encode(train), scale).measure(model, Held(encoder.encode(held), []))["loss"]
    return found | {"even": float(np.log(len(encoder.genes)))}


def _table(vectors: pd.DataFrame, encoder: GeneSentenceEncoder, config: object, seed: int) -> torch.Tensor:
    """Vectors of the encoder's genes at the model's width and with the spread of its fresh weights; genes without one get noise."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0, config.initializer_range, (config.vocab_size, config.n_embd))
    place = [row for row, gene in enumerate(encoder.genes) if gene in vectors.index]
    known = vectors.loc[[encoder.genes[row] for row in place]].to_numpy(float)
    # Johnson and Lindenstrauss 1984: a random projection keeps distances, at any width and with any number of genes.
    known = (known - known.mean(axis=0)) @ rng.normal(size=(known.shape[1], config.n_embd))
    spread = known.std()
    if spread > 0:
        found[np.array(place) + 1] = known * config.initializer_range / spread
    found[PAD] = 0
    return torch.as_tensor(found, dtype=torch.float32)
