"""Language-model heads evaluated at masked positions alone."""

from types import MethodType

import torch
from torch import nn
from transformers import BertForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from epigen_utils.models import batching


def masked_positions_only(model: BertForMaskedLM) -> BertForMaskedLM:
    """Restrict a masked language model's projection to the vocabulary to labelled positions, in place.

    The projection dominates the cost of a small model with a large vocabulary, and 85% of its output would be
    discarded. Loss and gradients equal those of the unmodified model (tests/models/test_masked_heads.py), and so
    does the output without labels.
    """
    model.forward = MethodType(_forward_labelled, model)
    return model


def _forward_labelled(
    self: BertForMaskedLM,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    **options,
) -> MaskedLMOutput:
    """`BertForMaskedLM.forward`; given labels, ``logits`` cover the labelled positions only, labelled x vocabulary.

    ``num_items_in_batch``, set by the Trainer, counts the labels over all devices and accumulated parts.
    """
    if labels is None:
        return BertForMaskedLM.forward(self, input_ids, attention_mask, **options)
    n_labels = options.pop("num_items_in_batch", None)
    hidden = self.bert(input_ids, attention_mask=attention_mask, **options).last_hidden_state  # (cells, length, width)
    labelled = labels != batching.IGNORED
    logits = self.cls(hidden[labelled])  # (labelled, vocabulary)
    if len(logits):
        loss = nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum")
    else:
        # A batch of very short cells can lack masked genes: zero loss, zero gradient.
        loss = hidden.sum() * 0
    n_labels = len(logits) if n_labels is None else n_labels
    return MaskedLMOutput(loss=loss / max(int(n_labels), 1), logits=logits)
