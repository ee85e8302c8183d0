"""GPT-2 on gene sentences: paper A, sections III.B and III.F.

The input of a position is the sum of the embeddings of its gene, its bin and its position (GPT-2's own), and with
``continuous`` a projection of the expression. The class is read off the sentence's last gene, the only position that
attends to all others. The language head is tied to the gene embeddings, as in GPT-2.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2Config, GPT2Model, GPT2PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.pytorch_utils import Conv1D

from epigen_utils.errors import DataError, suggest
from epigen_utils.gpt2.sentences import PAD_ID, GeneSentenceEncoder
from epigen_utils.models import checkpoints, presets
from epigen_utils.models.checkpoints import Checkpoint

#: Input of a position besides gene and position: nothing, the expression bin, or the bin and the expression itself.
POSITION_INPUTS = ("rank", "bins", "continuous")


class GeneSentenceModel(GPT2PreTrainedModel):
    """GPT-2's body with embeddings of genes and bins, a classification head and a next-gene head.

    Parameters
    ----------
    config
        Made by `sentence_config`.
    """

    config_class = GPT2Config

    def __init__(self, config: GPT2Config):
        super().__init__(config)
        self.transformer = GPT2Model(config)
        self.bins = nn.Embedding(config.n_bins, config.n_embd) if config.position_input != "rank" else None
        self.value = nn.Linear(1, config.n_embd) if config.position_input == "continuous" else None
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
        """Logits of the classes, and hidden states if options of `classified` ask for them.

        Parameters
        ----------
        input_ids, bins, attention_mask
            Sentences x length, padded on the right.
        values
            Expression on the scale of training, sentences x length.

        Returns
        -------
        ``logits`` (sentences x classes) and ``hidden_states`` (`classified`).
        """
        mask = input_ids != PAD_ID if attention_mask is None else attention_mask
        return self.classified(self.input_embeddings(input_ids, bins, values), mask, **options)

    def input_embeddings(
        self, input_ids: torch.Tensor, bins: torch.Tensor | None, values: torch.Tensor | None
    ) -> torch.Tensor:
        """Input embeddings without positions: sentences x length x width."""
        inputs = self.transformer.wte(input_ids)
        if self.bins is not None:
            inputs = inputs + self.bins(bins)
        if self.value is not None:
            inputs = inputs + self.value(values[..., None].to(inputs.dtype))
        return inputs

    def classified(
        self,
        inputs: torch.Tensor,
        mask: torch.Tensor,
        *,
        all_positions: bool = False,
        output_hidden_states: bool = False,
        layer_inputs: bool = False,
    ) -> SequenceClassifierOutput:
        """Output of `forward` from `input_embeddings`, for attributions with respect to them.

        Parameters
        ----------
        all_positions, output_hidden_states, layer_inputs
            What ``hidden_states`` hold, each sentences x length x width: the output of the last layer after the final
            layer norm; the input of each layer too, before it; or the inputs of the layers alone. Without the first
            two the last layer is computed for the last gene alone, which saves almost all of that layer.
        """
        last = mask.long().sum(dim=1) - 1
        # The eager kernel needs a causal mask, which GPT-2 itself makes.
        if all_positions or output_hidden_states or self.config._attn_implementation != "sdpa":
            # Padding follows the last gene, so causal attention never reads it; without a mask GPT-2 takes the fast
            # kernel.
            output = self.transformer(inputs_embeds=inputs, output_hidden_states=output_hidden_states)
            pooled = output.last_hidden_state[torch.arange(len(last), device=last.device), last]  # (sentences, width)
            states = output.hidden_states or (output.last_hidden_state,)
            return SequenceClassifierOutput(logits=self.score(pooled), hidden_states=states)
        body, layers = self.transformer, []
        states = body.drop(inputs + body.wpe.weight[: inputs.shape[1]])
        for block in body.h[:-1]:
            layers.append(states)
            states = block(states)
        layers.append(states)
        pooled = body.ln_f(_last_gene_output(body.h[-1], states, last, mask))
        return SequenceClassifierOutput(
            logits=self.score(pooled), hidden_states=tuple(layers) if layer_inputs else None
        )

    def next_gene(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of the next gene from the last hidden states, by the tied gene embeddings."""
        return nn.functional.linear(states, self.transformer.wte.weight)


def sentence_config(
    preset: str, encoder: GeneSentenceEncoder, classes: list[str], *, position_input: str = "bins"
) -> GPT2Config:
    """Configuration of a preset for the genes and bins of an encoder.

    Parameters
    ----------
    position_input
        One of `POSITION_INPUTS`.

    Raises
    ------
    DataError
        If ``position_input`` is not one of `POSITION_INPUTS`, or sentences are longer than the model's positions.
    ValueError
        If there is no such preset.
    """
    if position_input not in POSITION_INPUTS:
        raise DataError(f"position input {position_input!r}: {suggest(position_input, POSITION_INPUTS)}")
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD_ID, "use_cache": False}
    # GPT-2's activation as one kernel instead of eight operations.
    ends["activation_function"] = "gelu_pytorch_tanh"
    config = presets.preset(preset, vocab_size=len(encoder.genes) + 1, **ends)
    if encoder.max_length > config.n_positions:
        raise DataError(f"sentences of {encoder.max_length} genes: {preset} has {config.n_positions} positions")
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: label for label, name in enumerate(classes)}
    config.n_bins, config.position_input = encoder.n_bins, position_input
    return config


def find_start(start: str | Path | Checkpoint, *, revision: str = "") -> Checkpoint | str:
    """Find the published GPT-2 that a model starts from (`checkpoints.find`), at its commit; empty: random weights."""
    return checkpoints.find(start, revision=revision) if start else ""


def describe_model(preset: str, start: str | Checkpoint = "", *, n_genes: int, trained: bool = True) -> str:
    """Name, size and start of a model of gene sentences beside paper A's, in sentences.

    Parameters
    ----------
    start
        The published weights that it starts from (`find_start`); empty for random ones.
    n_genes
        Genes of its vocabulary.
    trained
        Whether it is fine-tuned.

    Examples
    --------
    >>> from epigen_utils.gpt2 import sentence_model
    >>> print(sentence_model.describe_model("gpt2-tiny", n_genes=64))
    GPT-2 on this page is gpt2-tiny: 2 layers of width 64 with 4 heads, 170,560 parameters with 64 genes as \
vocabulary, fine-tuned from random weights. Paper A's is GPT-2 XL: 48 layers of width 1,600 with 25 heads, \
fine-tuned from the published weights.
    """
    config = presets.preset(preset, vocab_size=n_genes + 1)
    config.n_bins, config.position_input = 10, "bins"
    with torch.device("meta"):
        n = presets.n_parameters(GeneSentenceModel(config))
    verb = "fine-tuned from" if trained else "with"
    begun = f"{verb} the published weights {start}" if start else f"{verb} random weights"
    text = f"GPT-2 on this page is {preset}: {_shape(config)}, {n:,} parameters with {n_genes:,} genes as vocabulary, "
    paper = f"Paper A's is GPT-2 XL: {_shape(presets.preset('gpt2-xl'))}, fine-tuned from the published weights."
    return f"{text}{begun}." + ("" if preset == "gpt2-xl" else f" {paper}")


def _shape(config: GPT2Config) -> str:
    return f"{config.n_layer} layers of width {config.n_embd:,} with {config.n_head} heads"


def build_sentence_model(
    config: GPT2Config, *, seed: int = 0, start: str | Path | Checkpoint = "", vectors: torch.Tensor | None = None
) -> GeneSentenceModel:
    """A model with fresh weights, or with the body of a published GPT-2.

    Parameters
    ----------
    start
        Hub id or folder of a GPT-2 of the same shape (`checkpoints.find`); its word embeddings are not used.
    vectors
        Initial gene embeddings, vocabulary x width, padding first; default noise.

    Raises
    ------
    DataError
        If the checkpoint is missing, or has another shape.
    """
    torch.manual_seed(seed)
    model = GeneSentenceModel(config)
    if start:
        _load_body(model, start)
    if vectors is not None:
        with torch.no_grad():
            model.transformer.wte.weight.copy_(vectors)
    return model


def _load_body(model: GeneSentenceModel, start: str | Path | Checkpoint) -> None:
    body = checkpoints.load(GPT2Model, start)
    expected = model.transformer.state_dict()
    weights = {name: value for name, value in body.state_dict().items() if name != "wte.weight"}
    wrong = [name for name, value in weights.items() if name not in expected or expected[name].shape != value.shape]
    if wrong or len(weights) != len(expected) - 1:
        raise DataError(
            f"{start}: its body is not of this model's shape ({wrong[0] if wrong else 'other layers'}); "
            "give the preset of that size"
        )
    model.transformer.load_state_dict(weights, strict=False)


def last_gene_attention(
    model: GeneSentenceModel, states: Sequence[torch.Tensor], mask: torch.Tensor, *, layers: int = 1
) -> torch.Tensor:
    """Attention of a sentence's last gene, mean over the heads of the last layers: sentences x length, 0 at padding.

    Recomputed from the inputs of these layers for one query a sentence, because fused attention returns no weights and
    eager attention takes memory quadratic in length (tests/gpt2/test_sentence_model.py compares the two).
    Differentiable; attention dropout is left out.

    Parameters
    ----------
    states
        Hidden states of `GeneSentenceModel`, each sentences x length x width.
    mask
        Sentences x length, true at genes.
    layers
        Number of layers, from the last.

    Raises
    ------
    DataError
        If the model has fewer layers.
    """
    n = model.config.n_layer
    if not 1 <= layers <= n:
        raise DataError(f"attention of {layers} layers: the model has {n}")
    last = mask.long().sum(dim=1) - 1
    blocks = list(model.transformer.h)[n - layers :]
    by_layer = [
        _last_gene_attention_of_layer(block, states[n - layers + i], last, mask) for i, block in enumerate(blocks)
    ]
    return torch.stack(by_layer).mean(dim=0)  # (sentences, length)


def _last_gene_attention_of_layer(
    block: GPT2Block, states: torch.Tensor, last: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    query, key = _queries_and_keys(block, states)
    query = query[torch.arange(len(mask), device=mask.device), last][:, None]  # (sentences, 1, heads, width of a head)
    weights = torch.einsum("bqhd,bkhd->bhk", query, key) * block.attn.head_dim**-0.5
    weights = weights.float().masked_fill(~mask.bool()[:, None], -torch.inf)  # (sentences, heads, length)
    return torch.softmax(weights, dim=-1).mean(dim=1)  # (sentences, length)


def _last_gene_output(block: GPT2Block, states: torch.Tensor, last: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Output of a layer at the last gene of each sentence, sentences x width, from its input at all genes.

    Only keys and values of the other genes are needed; equal to the block's own output there
    (tests/gpt2/test_sentence_model.py).
    """
    attention, rows = block.attn, torch.arange(len(last), device=last.device)
    width, heads = attention.split_size, (attention.num_heads, attention.head_dim)
    normed, weight, bias = block.ln_1(states), attention.c_attn.weight, attention.c_attn.bias
    weight = weight.T if isinstance(attention.c_attn, Conv1D) else weight  # outputs x inputs
    query = torch.nn.functional.linear(normed[rows, last], weight[:width], bias[:width]).unflatten(-1, heads)
    keys_and_values = torch.nn.functional.linear(normed, weight[width:], bias[width:])
    keys_and_values = keys_and_values.unflatten(-1, (2, *heads)).permute(2, 0, 3, 1, 4)
    attended = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, None],  # (sentences, heads, 1, width of a head)
        *keys_and_values,  # (sentences, heads, length, width of a head) each
        attn_mask=mask.bool()[:, None, None],
        dropout_p=attention.attn_dropout.p if attention.training else 0.0,
    )
    output = states[rows, last] + attention.resid_dropout(attention.c_proj(attended.flatten(1)))
    return output + block.mlp(block.ln_2(output))


def _queries_and_keys(block: GPT2Block, states: torch.Tensor) -> list[torch.Tensor]:
    """Queries and keys of a layer from its input (... x width), each ... x heads x width of a head."""
    attention = block.attn
    query, key, _ = attention.c_attn(block.ln_1(states)).split(attention.split_size, dim=-1)
    return [part.unflatten(-1, (attention.num_heads, attention.head_dim)) for part in (query, key)]


def layer_attention(block: GPT2Block, states: torch.Tensor) -> torch.Tensor:
    """Causal attention of one layer in one sentence without padding: heads x queries x keys.

    Layer by layer, so that a large model's attention is never in memory as a whole; equal to the eager kernel's
    (tests/gpt2/test_readout_attention.py).

    Parameters
    ----------
    states
        Input of the layer, length x width.
    """
    query, key = _queries_and_keys(block, states)
    weights = torch.einsum("qhd,khd->hqk", query, key).float()  # (heads, queries, keys)
    weights = weights * block.attn.head_dim**-0.5
    later = torch.ones(weights.shape[1:], dtype=torch.bool, device=weights.device).triu(1)
    return torch.softmax(weights.masked_fill(later, -torch.inf), dim=-1)
