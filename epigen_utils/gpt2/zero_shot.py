"""Models not trained on expression, applied to gene sentences without fine-tuning: paper A, section III.E.

"GPT-2 XL is either fine-tuned or used in a zero-shot inference mode ... in the form of hidden-state embeddings,
attention weights, or generated continuations".
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.gpt2 import sentences
from epigen_utils.models import attention_kernels, checkpoints, presets
from epigen_utils.models.checkpoints import Checkpoint

#: Maximum tokens of a text for all-MiniLM-L6-v2.
ENCODER_TOKENS = 256


def load_sentence_encoder(
    name: str = "all-minilm-l6-v2", *, fresh_seed: int | None = None
) -> tuple[BertModel, BertTokenizer]:
    """Load a sentence encoder of the registry and its tokenizer.

    Parameters
    ----------
    fresh_seed
        Seed of random weights, the control for what pretraining gives; None for the published ones.
    """
    files = fetching.fetch(name)
    if fresh_seed is not None:
        torch.manual_seed(fresh_seed)
    model = BertModel(BertConfig.from_json_file(files["config"]), add_pooling_layer=False)
    if fresh_seed is None:
        weights = {key: value for key, value in load_file(files["weights"]).items() if not key.startswith("pooler")}
        model.load_state_dict(weights, strict=False)
    return model.eval(), BertTokenizer(str(files["words"]))


def load_language_model(
    start: str | Checkpoint, *, preset: str, files: dict[str, Path], seed: int = 0
) -> tuple[GPT2LMHeadModel, GPT2Tokenizer]:
    """Load GPT-2 with its word vocabulary, with published weights or, as a control, with random ones.

    Parameters
    ----------
    start
        The published weights (`sentence_model.find_start`); empty for random ones.
    files
        ``encoder`` and ``merges`` of the byte-pair encoding.

    Raises
    ------
    DataError
        If there is no checkpoint.
    """
    tokenizer = GPT2Tokenizer(str(files["encoder"]), str(files["merges"]))
    if not start:
        return presets.build(presets.preset(preset), "causal-lm", seed=seed).eval(), tokenizer
    return checkpoints.load(GPT2LMHeadModel, start).eval(), tokenizer


#: Names of the readers of texts (`load_readers`).
ENCODER, RANDOM_ENCODER = "sentence encoder, published", "sentence encoder, random weights"
GPT2, RANDOM_GPT2 = "GPT-2, published", "GPT-2, random weights"


def load_readers(
    encoder: str, start: str | Checkpoint, *, preset: str, files: dict[str, Path], n_tokens: int, seed: int = 0
) -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase, str, int]]:
    """Models that read texts, with published and with random weights: name -> model, tokenizer, pooling, most tokens.

    Parameters
    ----------
    encoder
        A sentence encoder of the registry.
    start, preset, files
        Of `load_language_model`; there is no published GPT-2 without a start.
    n_tokens
        Most tokens that GPT-2 reads.
    """
    readers = {
        name: (*load_sentence_encoder(encoder, fresh_seed=fresh_seed), "mean", ENCODER_TOKENS)
        for name, fresh_seed in ((ENCODER, None), (RANDOM_ENCODER, seed))
    }
    sources = ({GPT2: start} if start else {}) | {RANDOM_GPT2: ""}
    for name, source in sources.items():
        readers[name] = (*load_language_model(source, preset=preset, files=files, seed=seed), "last", n_tokens)
    return readers


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, n: int) -> torch.Tensor:
    """The first ``n`` tokens of a text, 1 x length."""
    return torch.tensor([tokenizer(text, truncation=True, max_length=n)["input_ids"]])


@torch.no_grad()
def embed_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], *, pooling: str, max_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """One vector per text from the last hidden states (texts x width), and the number of tokens read.

    Parameters
    ----------
    pooling
        ``mean`` over tokens, scaled to unit length (as for all-MiniLM-L6-v2), or ``last``, the only token that attends
        to all others in GPT-2.

    Raises
    ------
    DataError
        If there is no such pooling.
    """
    if pooling not in ("mean", "last"):
        raise DataError(f"pooling {pooling!r}: give mean or last")
    vectors, n_tokens = [], []
    for text in texts:
        ids = first_tokens(tokenizer, text, max_tokens)
        states = model.base_model(ids).last_hidden_state[0]  # (length, width)
        vector = states[-1] if pooling == "last" else torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        vectors.append(vector.numpy())
        n_tokens.append(ids.shape[1])
    return np.array(vectors), np.array(n_tokens)


@torch.no_grad()
def text_attention_by_position(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], *, max_tokens: int, bins: int = 20
) -> pd.DataFrame:
    """Attention of the last token along a text, times its length, mean over texts, layers and heads.

    Returns
    -------
    ``place`` (0 the first token, 1 the last) and ``attention`` (1 is uniform).
    """
    with attention_kernels.attention_implementation(model, "eager"):
        rows = []
        for text in texts:
            ids = first_tokens(tokenizer, text, max_tokens)
            layers = torch.stack(model.base_model(ids, output_attentions=True).attentions)
            weights = layers[:, 0, :, -1].mean(dim=(0, 1))  # (length,)
            mean, _ = sentences.mean_by_position(weights.numpy(), np.arange(len(weights)) / len(weights), bins)
            rows.append(mean * len(weights))
    return pd.DataFrame({"place": (np.arange(bins) + 0.5) / bins, "attention": np.mean(rows, axis=0)})


@torch.no_grad()
def continuations(
    model: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    texts: list[str],
    gene_symbols: set[str],
    *,
    n_prompt_words: int = 50,
    n_tokens: int = 60,
    seed: int = 0,
) -> pd.DataFrame:
    """Text sampled from GPT-2 after the first genes of a sentence.

    Parameters
    ----------
    gene_symbols
        Symbols of all genes.
    n_prompt_words, n_tokens
        Number of words in the prompt, and of generated tokens.

    Returns
    -------
    A row a text: ``given`` (last five words of the prompt), ``written``, ``words`` (their number), and the shares of
    the generated words that are ``genes`` and that occur ``later`` in the sentence.
    """
    rows = []
    for text in texts:
        words = text.split(" ")
        ids = first_tokens(tokenizer, " ".join(words[:n_prompt_words]), model.config.n_positions - n_tokens)
        torch.manual_seed(seed)
        for _ in range(n_tokens):
            p = torch.softmax(model(ids, logits_to_keep=1).logits[0, -1].float(), dim=-1)
            ids = torch.cat([ids, torch.multinomial(p, 1)[None]], dim=1)
        written = tokenizer.decode(ids[0, -n_tokens:].tolist())
        # The first and the last word may be incomplete.
        generated = written.split()[1:-1]
        later = set(words[n_prompt_words:])
        rows.append(
            {
                "given": " ".join(words[:n_prompt_words][-5:]),
                "written": written,
                "words": len(generated),
                "genes": np.mean([word in gene_symbols for word in generated]) if generated else 0.0,
                "later": np.mean([word in later for word in generated]) if generated else 0.0,
            }
        )
    return pd.DataFrame(rows)
