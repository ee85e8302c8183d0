"""Language-model heads evaluated at masked positions alone."""

from types import MethodType

import torch
from torch import nn
from transformers import BertForMaskedLM, PretrainedConfig
from transformers.modeling_outputs import MaskedLMOutput

from epigen_utils.models import batching


def masked_positions_only(model: BertForMaskedLM) -> BertForMaskedLM:
    """Restrict a masked language model's projection to the vocabulary to labelled positions, in place.

    The projection dominates the cost of a small model with a large vocabulary, and 85% of its output would be
    discarded. Loss and gradients equal those of the unmodified model (tests/models/test_masked_heads.py), and so
    does the output without labels, unless the configuration has a ``visible_penalty`` (`lower_visible`).
    """
    model.forward = MethodType(_forward_labelled, model)
    return model


def lower_visible(
    logits: torch.Tensor, input_ids: torch.Tensor, selected: torch.Tensor, config: PretrainedConfig
) -> torch.Tensor:
    """Lower the logits, at positions that show the mask token, of the tokens that are visible elsewhere in the cell.

    A rank value encoding has a gene once, so that a gene that is shown is not the hidden one, save where a random gene
    replaced another by chance; a finite penalty leaves room for that. Geneformer has none: the published configuration,
    without ``visible_penalty``, is left as it is.

    Parameters
    ----------
    logits
        Selected positions x vocabulary.
    input_ids, selected
        Tokens shown, and the positions that the logits are of: cells x length.
    config
        The model's: ``visible_penalty`` in logits, and ``mask_token_id``.
    """
    penalty = getattr(config, "visible_penalty", 0.0)
    if not penalty:
        return logits
    shown = torch.zeros(len(input_ids), logits.shape[-1], dtype=logits.dtype, device=logits.device)
    shown.scatter_(1, input_ids, penalty)
    hidden = (input_ids[selected] == config.mask_token_id)[:, None]
    return logits - shown[torch.where(selected)[0]] * hidden


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
        output = BertForMaskedLM.forward(self, input_ids, attention_mask, **options)
        everywhere = torch.ones_like(input_ids, dtype=torch.bool)
        lowered = lower_visible(output.logits.flatten(0, 1), input_ids, everywhere, self.config)
        output.logits = lowered.view_as(output.logits)
        return output
    n_labels = options.pop("num_items_in_batch", None)
    hidden = self.bert(input_ids, attention_mask=attention_mask, **options).last_hidden_state  # (cells, length, width)
    labelled = labels != batching.IGNORED
    logits = lower_visible(self.cls(hidden[labelled]), input_ids, labelled, self.config)  # (labelled, vocabulary)
    if len(logits):
        loss = nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum")
    else:
        # A batch of very short cells can lack masked genes: zero loss, zero gradient.
        loss = hidden.sum() * 0
    n_labels = len(logits) if n_labels is None else n_labels
    return MaskedLMOutput(loss=loss / max(int(n_labels), 1), logits=logits)
