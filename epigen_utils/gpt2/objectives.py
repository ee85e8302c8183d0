"""Training objectives of GPT-2 on gene sentences: class labels and next genes."""

import hashlib
from collections.abc import Iterator, Sequence

import datasets as arrow
import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from epigen_utils.gpt2 import sentence_model
from epigen_utils.gpt2.sentence_model import GeneSentenceModel
from epigen_utils.gpt2.sentences import PAD_ID, PaddedSentences
from epigen_utils.models import losses
from epigen_utils.models.batching import IGNORED, length_batches


def collate_sentences(
    encoded: PaddedSentences,
    rows: Sequence[int],
    scale: tuple[float, float],
    device: torch.device | str = "cpu",
) -> dict[str, torch.Tensor]:
    """Sentences as a batch: ``input_ids``, ``bins`` and ``values`` (standardised by ``scale``), sentences x length."""
    length = encoded.lengths[rows].max(initial=0)
    ids, bins, values = (array[rows, :length] for array in (encoded.ids, encoded.bins, encoded.values))
    standardised = np.where(ids == PAD_ID, 0.0, (values - scale[0]) / scale[1]).astype(np.float32)
    batch = {"input_ids": ids, "bins": bins, "values": standardised}
    return {name: torch.as_tensor(array).to(device) for name, array in batch.items()}


class SentenceObjective:
    """Encoded training sentences in memory, addressed by their row."""

    def __init__(self, encoded: PaddedSentences, scale: tuple[float, float]):
        self.scale, self.lengths = scale, torch.as_tensor(encoded.lengths)
        self.sentences = collate_sentences(encoded, np.arange(len(encoded)), scale)
        digest = hashlib.sha256(repr(encoded.ids.shape).encode())
        for array in (encoded.ids, encoded.bins, encoded.values):
            digest.update(np.ascontiguousarray(array).tobytes())
        self.about = {"sentences": digest.hexdigest(), "scale": list(scale)}

    def __len__(self) -> int:
        return len(self.lengths)

    def cells(self) -> arrow.Dataset:
        """Tokens and lengths of the sentences, as `training.fit` takes them."""
        ids = [row[:length].tolist() for row, length in zip(self.sentences["input_ids"], self.lengths, strict=True)]
        return arrow.Dataset.from_dict({"input_ids": ids, "length": self.lengths.tolist()})

    def batch(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        index = torch.tensor([row["row"] for row in rows])
        length = int(self.lengths[index].max())
        return {name: tensor[index, :length] for name, tensor in self.sentences.items()}


class ClassObjective(SentenceObjective):
    """Training objective (`training.fit`): the classes of samples.

    Parameters
    ----------
    encoded
        Training sentences (`GeneSentenceEncoder.padded`).
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
        encoded: PaddedSentences,
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
        """Batch of `collate_sentences` with ``labels`` (sentences)."""
        return self.batch(rows) | {"labels": self.labels[[row["row"] for row in rows]]}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Hybrid loss of a batch, or its share of a step over ``n_labels`` sentences."""
        if self.language_weight or (self.weight > 0 and self.prior is not None):
            total = self.parts(model, batch)["total"]
        else:
            inputs = {name: batch[name] for name in ("input_ids", "bins", "values")}
            total = nn.functional.cross_entropy(model(**inputs).logits.float(), batch["labels"])
        return total if n_labels is None else total * len(batch["labels"]) / n_labels

    def parts(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Loss and its terms, as returned by `losses.attention_aligned_hybrid_loss`."""
        inputs = {name: batch[name] for name in ("input_ids", "bins", "values")}
        ids, mask = inputs["input_ids"], inputs["input_ids"] != PAD_ID
        aligned = self.weight > 0 and self.prior is not None
        # Language modelling reads the last layer at all positions, alignment the inputs of the layers.
        language = self.language_weight > 0
        output = model(**inputs, output_hidden_states=language, layer_inputs=aligned)
        unwrapped = getattr(model, "module", model)
        prior = attention = mask.float()
        if aligned:
            prior = self.prior.to(ids.device)[ids] * mask
            attention = sentence_model.last_gene_attention(unwrapped, output.hidden_states, mask, layers=self.layers)
        language = _next_gene_loss(unwrapped, output.hidden_states[-1], ids) if language else None
        options = {"weight": self.weight if aligned else 0.0, "language_weight": self.language_weight}
        return losses.attention_aligned_hybrid_loss(
            output.logits.float(), batch["labels"], attention, prior, language=language, **options
        )

    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean cross entropy (nats) and accuracy on held-out sentences (`HeldOutSentences`)."""
        p = sentence_class_probabilities(model, valid.encoded, self.scale)
        p_true = p[np.arange(len(p)), valid.labels]
        return {
            "loss": float(-np.log(np.maximum(p_true, 1e-12)).mean()),
            "accuracy": float((p.argmax(1) == valid.labels).mean()),
        }


class NextGeneObjective(SentenceObjective):
    """Training objective (`training.fit`): causal language modelling of sentences, without labels."""

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of `collate_sentences` with ``labels``: the predicted genes, all but the first."""
        batch = self.batch(rows)
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == PAD_ID, IGNORED)
        labels[:, 0] = IGNORED
        return batch | {"labels": labels}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Mean cross entropy over the predicted genes, or its share of a step over ``n_labels`` genes."""
        inputs = {name: batch[name] for name in ("input_ids", "bins", "values")}
        output = model(**inputs, all_positions=True)
        mean = _next_gene_loss(getattr(model, "module", model), output.hidden_states[-1], batch["input_ids"])
        return mean if n_labels is None else mean * (batch["labels"] != IGNORED).sum() / n_labels

    @torch.no_grad()
    def measure(self, model: GeneSentenceModel, valid: object) -> dict[str, float]:
        """Mean cross entropy (nats) over the predicted genes of held-out sentences."""
        total = n = 0
        for rows, ids, output in iter_outputs(model, valid.encoded, self.scale, all_positions=True):
            n_predicted = int((ids != PAD_ID).sum()) - len(rows)
            total += float(_next_gene_loss(model, output.hidden_states[-1], ids)) * n_predicted
            n += n_predicted
        return {"loss": total / max(n, 1)}


def _next_gene_loss(model: GeneSentenceModel, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logits = model.next_gene(states[:, :-1]).float()  # (sentences, length - 1, vocabulary)
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD_ID)


class HeldOutSentences:
    """Held-out sentences with their classes, for the ``measure`` of the objectives."""

    def __init__(self, encoded: PaddedSentences, labels: np.ndarray):
        self.encoded, self.labels = encoded, np.asarray(labels)

    def __len__(self) -> int:
        return len(self.encoded)


@torch.no_grad()
def iter_outputs(
    model: GeneSentenceModel, encoded: PaddedSentences, scale: tuple[float, float], **options
) -> Iterator[tuple[np.ndarray, torch.Tensor, SequenceClassifierOutput]]:
    """Iterate over batches of sentences of similar length: their rows, tokens (sentences x length) and model output.

    Options are those of `GeneSentenceModel.classified`.
    """
    model.eval()
    for rows in length_batches(encoded.lengths):
        batch = collate_sentences(encoded, rows, scale, model.device)
        yield rows, batch["input_ids"], model(**batch, **options)


def sentence_class_probabilities(
    model: GeneSentenceModel, encoded: PaddedSentences, scale: tuple[float, float]
) -> np.ndarray:
    """Probability of each class, samples x classes."""
    p = np.empty((len(encoded), model.config.num_labels), np.float32)
    for rows, _, output in iter_outputs(model, encoded, scale):
        p[rows] = nn.functional.softmax(output.logits.float(), dim=-1).cpu().numpy()
    return p
