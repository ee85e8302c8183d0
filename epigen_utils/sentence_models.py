"""GPT-2 that reads gene sentences: paper A, sections III.B and III.F.

Each position is the sum of a gene's vector, its bin's, its place's (GPT-2's own), and with ``continuous`` of its expression, projected;
the class is read off the sentence's last gene, the only position that sees all of it. The language head shares the genes' vectors, as
GPT-2's does.
"""

import hashlib
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel, GPT2Config, GPT2Model, GPT2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from epigen_utils import models
from epigen_utils.errors import DataError, closest
from epigen_utils.sentences import PAD, GeneSentenceEncoder

#: What a position shows beside its gene and place: nothing, the bin of its expression, or the bin and the expression itself.
SHOWN = ("rank", "bins", "continuous")


class GeneSentenceModel(GPT2PreTrainedModel):
    """GPT-2's body with tables for genes and bins, a head for classes and one for the next gene.

    Parameters
    ----------
    config
        As `configured` makes it.
    """

    config_class = GPT2Config

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.bins = nn.Embedding(config.n_bins, config.n_embd) if config.shown != "rank" else None
        self.value = nn.Linear(1, config.n_embd) if config.shown == "continuous" else None
        self.score = nn.Linear(config.n_embd, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        bins: torch.Tensor | None = None,
        values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **options,
    ) -> SequenceClassifierOutput:
        """Logits of the classes, and hidden states where they are asked for.

        Parameters
        ----------
        input_ids, bins, attention_mask
            Sentences x length, padded on the right.
        values
            Sentences x length, expression on the scale that the model was trained on.

        Returns
        -------
        ``logits`` (sentences x classes) and ``hidden_states`` (of each layer's input and the last one's output, the last normed).
        """
        mask = input_ids != PAD if attention_mask is None else attention_mask
        return self.classified(self.shown(input_ids, bins, values), mask, **options)

    def shown(self, input_ids: torch.Tensor, bins: torch.Tensor | None, values: torch.Tensor | None) -> torch.Tensor:
        """What the body is given of each gene, its place left out: sentences x length x width."""
        found = self.transformer.wte(input_ids)
        if self.bins is not None:
            found = found + self.bins(bins)
        if self.value is not None:
            found = found + self.value(values[..., None].to(found.dtype))
        return found

    def classified(self, shown: torch.Tensor, mask: torch.Tensor, **options) -> SequenceClassifierOutput:
        """As `forward`, from what `shown` gives: what attributions are taken with respect to."""
        # Padding is behind the last gene, where nothing that is read looks: without it as a mask GPT-2 takes the fast kernel.
        found = self.transformer(inputs_embeds=shown, **options)
        last = mask.long().sum(dim=1) - 1
        read = found.last_hidden_state[torch.arange(len(last), device=last.device), last]
        states = found.hidden_states or (found.last_hidden_state,)
        return SequenceClassifierOutput(logits=self.score(read), hidden_states=states)

    def next_gene(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of the gene that follows, from last hidden states: the genes' own vectors."""
        return nn.functional.linear(states, self.transformer.wte.weight)


def configured(preset: str, encoder: GeneSentenceEncoder, classes: list[str], *, shown: str = "bins") -> GPT2Config:
    """GPT-2's shape for the genes and bins of an encoder.

    Raises
    ------
    DataError
        If positions cannot show that, or the sentences are longer than the model.
    ValueError
        If there is no such model.
    """
    if shown not in SHOWN:
        raise DataError(f"positions show {shown!r}: {closest(shown, SHOWN)}")
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD, "use_cache": False}
    config = models.preset(preset, vocab_size=len(encoder.genes) + 1, **ends)
    if encoder.max_length > config.n_positions:
        raise DataError(f"sentences of {encoder.max_length} genes: {preset} has {config.n_positions} positions")
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: label for label, name in enumerate(classes)}
    config.n_bins, config.shown, config.genes_sha256 = encoder.n_bins, shown, vocabulary_sha256(encoder)
    return config


def vocabulary_sha256(encoder: GeneSentenceEncoder) -> str:
    """What says whether two encoders have the same tokens."""
    return hashlib.sha256("\n".join(encoder.genes).encode()).hexdigest()


def build(
    config: GPT2Config, *, seed: int = 0, start: str | Path = "", vectors: torch.Tensor | None = None
) -> GeneSentenceModel:
    """A model with fresh weights, or with the body of a published GPT-2.

    Parameters
    ----------
    start
        Hub id or folder of a GPT-2 of the same shape; its table of words is left out, since genes are none of them.
    vectors
        Of the genes, vocabulary x width, padding first: what their table starts from in the place of noise.

    Raises
    ------
    DataError
        If the checkpoint is not there, or has another shape.
    """
    torch.manual_seed(seed)
    model = GeneSentenceModel(config)
    if start:
        _take_body(model, start)
    if vectors is not None:
        with torch.no_grad():
            model.transformer.wte.weight.copy_(vectors)
    return model


def _take_body(model: GeneSentenceModel, start: str | Path) -> None:
    try:
        body = AutoModel.from_pretrained(start, local_files_only=Path(start).exists())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{start}: no checkpoint of GPT-2 ({str(error).splitlines()[0]}); give a folder or hub id"
        ) from None
    ours = model.transformer.state_dict()
    theirs = {name: value for name, value in body.state_dict().items() if name != "wte.weight"}
    wrong = [name for name, value in theirs.items() if name not in ours or ours[name].shape != value.shape]
    if wrong or len(theirs) != len(ours) - 1:
        raise DataError(
            f"{start}: its body is not of this model's shape ({wrong[0] if wrong else 'other layers'}); give the preset of that size"
        )
    model.transformer.load_state_dict(theirs, strict=False)


def load(folder: str | Path, encoder: GeneSentenceEncoder) -> GeneSentenceModel:
    """A saved model, for sentences of an encoder.

    Raises
    ------
    DataError
        If there is none, or it was trained on another vocabulary.
    """
    if not (Path(folder) / "config.json").exists():
        raise DataError(f"{folder}: no model; give a folder with config.json and weights")
    config = GPT2Config.from_pretrained(folder)
    if getattr(config, "genes_sha256", "") != vocabulary_sha256(encoder):
        raise DataError(
            f"{folder}: trained on another vocabulary ({config.vocab_size - 1:,} genes, here {len(encoder.genes):,}); "
            "give the encoder that it was trained with"
        )
    return GeneSentenceModel.from_pretrained(folder, config=config, local_files_only=True)


def read_out_attention(
    model: GeneSentenceModel, states: tuple[torch.Tensor, ...], mask: torch.Tensor, *, layers: int = 1
) -> torch.Tensor:
    """Attention that a sentence's last gene pays, mean over the heads of the last layers: sentences x length, 0 at padding.

    Computed again from the inputs of these layers, for one query a sentence: fused attention returns no weights, and to give it up
    would cost the length squared (tests/test_sentence_models.py sets it beside the eager kernel's). Gradients flow through it; dropout
    of attention is left out.

    Parameters
    ----------
    states
        Inputs of the layers, as `GeneSentenceModel` gives them.
    mask
        Sentences x length, true where there is a gene.
    layers
        How many, from the last.

    Raises
    ------
    DataError
        If the model has fewer layers.
    """
    n = model.config.n_layer
    if not 1 <= layers <= n:
        raise DataError(f"attention of {layers} layers: the model has {n}")
    rows, last = torch.arange(len(mask), device=mask.device), mask.long().sum(dim=1) - 1
    blocks = list(model.transformer.h)[n - layers :]
    found = [_of_last(block, states[n - layers + i], rows, last, mask) for i, block in enumerate(blocks)]
    return torch.stack(found).mean(dim=0)


def _of_last(
    block: GPT2Block, states: torch.Tensor, rows: torch.Tensor, last: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    attention = block.attn
    query, key, _ = attention.c_attn(block.ln_1(states)).split(attention.split_size, dim=2)
    shape = (len(rows), -1, attention.num_heads, attention.head_dim)
    query = query[rows, last].view(shape)
    weights = torch.einsum("bqhd,bkhd->bhk", query, key.view(shape)) * attention.head_dim**-0.5
    weights = weights.float().masked_fill(~mask.bool()[:, None], -torch.inf)
    return torch.softmax(weights, dim=-1).mean(dim=1)


def layer_attention(block: GPT2Block, states: torch.Tensor) -> torch.Tensor:
    """Attention of one layer to one sentence without padding: heads x queries x keys; each query sees itself and what is before it.

    Layer by layer, so that a large model's attention never lies in memory whole; equal to the eager kernel's
    (tests/test_sentence_attention.py).

    Parameters
    ----------
    states
        Input of the layer, length x width.
    """
    attention = block.attn
    query, key, _ = attention.c_attn(block.ln_1(states)).split(attention.split_size, dim=1)
    query, key = (part.view(len(states), attention.num_heads, attention.head_dim) for part in (query, key))
    weights = torch.einsum("qhd,khd->hqk", query, key).float() * attention.head_dim**-0.5
    later = torch.ones(weights.shape[1:], dtype=torch.bool, device=weights.device).triu(1)
    return torch.softmax(weights.masked_fill(later, -torch.inf), dim=-1)
