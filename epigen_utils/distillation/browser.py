"""A student in a page: its weights, cells, cell types and reference results as scripts for ``book/_static/student.js``.

A page that is opened from ``file://`` may load a script, where it may not fetch a file. Each script is one call of
``epigenStudent`` with JSON; arrays of numbers are little-endian bytes in base64.
"""

import base64
import copy
import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel

from epigen_utils.data import cell_source, genes
from epigen_utils.distillation import students
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import write_atomically
from epigen_utils.geneformer import embeddings, encoding
from epigen_utils.geneformer.vocabularies import MASK, PAD, Vocabulary
from epigen_utils.models import batching

#: Largest script of weights, in bytes.
MOST_BYTES = 3_000_000
#: Activations that the page computes.
ACTIVATIONS = ("gelu", "relu")
POSITIONS = "bert.embeddings.position_embeddings.weight"


def load_student(folder: Path, name: str) -> PreTrainedModel:
    """Load a student of geneformer/06_distillation by the name of its run.

    Raises
    ------
    DataError
        If there is no such run.
    """
    runs = {run.name: run for run in students.read_runs(Path(folder))}
    if name not in runs:
        raise DataError(f"{folder}: no student {name!r}; {suggest(name, runs)}")
    return students.load_student(Path(folder), runs[name])


@dataclass(frozen=True)
class PageModel:
    """The model that a page runs.

    Attributes
    ----------
    model
        In PyTorch, with the weights of the script.
    bits
        Bits of a matrix's element: 32, or 8 with a 32-bit scale a row where 32 would be too large for a page.
    megabytes
        Size of the script.
    """

    model: PreTrainedModel
    bits: int
    megabytes: float


def write_weights(path: Path, model: PreTrainedModel, *, max_length: int) -> PageModel:
    """Write a masked language model's weights as a script of at most `MOST_BYTES`.

    Parameters
    ----------
    max_length
        Longest cell of the page; the embeddings of later positions are left out.

    Raises
    ------
    DataError
        If the page cannot compute the model's activation, or the model is too large in 8 bits too.
    """
    config = model.config
    if config.hidden_act not in ACTIVATIONS:
        raise DataError(f"activation {config.hidden_act!r}: the page computes {', '.join(ACTIVATIONS)}")
    settings = {
        "heads": config.num_attention_heads,
        "layers": config.num_hidden_layers,
        "activation": config.hidden_act,
        "epsilon": config.layer_norm_eps,
        "penalty": getattr(config, "visible_penalty", 0.0),
    }
    for bits in (32, 8):
        page_model = copy.deepcopy(model).eval()
        packed = _packed(page_model, max_length, bits)
        script = _script({"model": settings | packed})
        if len(script) <= MOST_BYTES:
            write_atomically(path, script)
            return PageModel(page_model, bits, len(script) / 1e6)
    raise DataError(
        f"{Path(path).name}: {len(script) / 1e6:.1f} MB in 8 bits, {MOST_BYTES / 1e6:g} at most; take a smaller student"
    )


def _packed(model: PreTrainedModel, max_length: int, bits: int) -> dict[str, object]:
    """Weights as bytes and the place of each; with 8 bits, the model's own matrices are rounded in place."""
    places, floats, integers = {}, [], []
    n_floats = n_integers = 0
    for name, parameter in model.named_parameters():
        weight = parameter.detach()[:max_length] if name == POSITIONS else parameter.detach()
        place = {"shape": list(weight.shape)}
        if bits == 8 and weight.ndim == 2:
            scales = weight.abs().amax(dim=1) / 127
            scales[scales == 0] = 1
            rounded = (weight / scales[:, None]).round()
            weight.copy_(rounded * scales[:, None])
            integers.append(rounded.to(torch.int8).numpy().ravel())
            place |= {"integers": n_integers}
            n_integers += integers[-1].size
            weight = scales
        floats.append(weight.numpy().ravel())
        places[name] = place | {"floats": n_floats}
        n_floats += floats[-1].size
    whole = np.concatenate(integers) if integers else np.zeros(0, np.int8)
    return {"tensors": places, "floats": _base64(np.concatenate(floats), "<f4"), "integers": _base64(whole, "i1")}


def cell_type_probe() -> Pipeline:
    """Multinomial logistic regression on standardised cell embeddings, to be fitted on training donors."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def linear_form(probe: Pipeline) -> dict[str, object]:
    """A fitted probe as one linear map of the embedding, whose softmax gives the probabilities.

    Returns
    -------
    ``classes``, ``weight`` (classes x width) and ``bias`` (classes).
    """
    scaler, regression = probe[0], probe[-1]
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(weight) == 1:
        # Of two classes scikit-learn keeps the logit of the second alone.
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.r_[0.0, bias]
    return {"classes": list(map(str, probe.classes_)), "weight": weight, "bias": bias}


def example_cells(labels: np.ndarray, candidates: np.ndarray, *, n_cells: int = 20, seed: int = 0) -> np.ndarray:
    """Positions of random cells, as even over the classes as these allow, sorted by class.

    Parameters
    ----------
    labels
        Class of each cell.
    candidates
        Mask of the cells to choose from.
    """
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(candidates))
    turn = pd.Series(drawn).groupby(labels[drawn]).cumcount().to_numpy()
    chosen = drawn[np.argsort(turn, kind="stable")[:n_cells]]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def write_cells(
    path: Path,
    adata: anndata.AnnData,
    labels: np.ndarray,
    *,
    student: PageModel,
    encoder: encoding.RankValueEncoder,
    probe: Pipeline,
    score: str,
    n_references: int = 3,
) -> dict[str, float]:
    """Write cells, genes, probe and reference results as a script.

    Parameters
    ----------
    adata
        The cells to choose from, with counts, as for `encoding.RankValueEncoder.encode`.
    labels
        Class of each cell.
    encoder
        Without special tokens, as in V1.
    score
        Sentence on the probe's performance on held-out donors.
    n_references
        Cells whose logits at one masked position the script has, the first of the list and others at even distances.

    Returns
    -------
    ``logits`` (number of reference logits) and ``megabytes``.

    Raises
    ------
    DataError
        If the cells have no counts, the encoder's vocabulary has special tokens, or the cells cannot be encoded.
    """
    vocabulary = encoder.vocabulary
    if encoder.special or vocabulary.mapping:
        raise DataError(f"vocabulary {vocabulary.name!r}: the page encodes as V1 does; give a student of such cells")
    source = cell_source.InMemoryCells(adata)
    tokens = pd.Series(source.ensembl_ids).map(vocabulary.tokens).fillna(-1).to_numpy(int)
    (part,) = source.parts(max(adata.n_obs, 1))
    counts = part.counts()
    ids = [np.asarray(cell) for cell in encoder.encode(adata)["input_ids"][:]]
    shown = []
    for row, depth in enumerate(part.depth(counts)):
        cell = counts[row]
        kept = (tokens[cell.indices] >= 0) & (cell.data > 0)
        values = {"tokens": tokens[cell.indices[kept]], "counts": cell.data[kept].astype(int)}
        shown.append({"name": str(adata.obs_names[row]), "type": str(labels[row]), "depth": float(depth)} | values)
    rows = np.unique(np.linspace(0, len(ids) - 1, n_references).astype(int))
    references = [_reference(student.model, ids[row], vocabulary) | {"cell": row} for row in rows]
    embedded = embeddings.embed_cells(student.model, {"input_ids": ids}, vocabulary)
    content = {
        "cells": shown,
        "maxLength": encoder.max_length,
        "leastCoverage": encoder.least_coverage,
        "mask": vocabulary.tokens[MASK],
        "genes": _gene_names(vocabulary),
        "probe": linear_form(probe) | {"score": score},
        "expected": {
            "tokens": ids,
            "references": references,
            "embeddings": _base64(embedded, "<f4"),
            "probabilities": probe.predict_proba(embedded),
        },
    }
    script = _script(content)
    write_atomically(path, script)
    return {"logits": len(rows) * student.model.config.vocab_size, "megabytes": len(script) / 1e6}


@torch.no_grad()
def _reference(model: PreTrainedModel, ids: np.ndarray, vocabulary: Vocabulary) -> dict[str, object]:
    """A cell's logits at one masked position, a third of its length in."""
    position = len(ids) // 3
    masked = np.asarray(ids, np.int64).copy()
    masked[position] = vocabulary.tokens[MASK]
    logits = model(**batching.pad_batch([masked], vocabulary.tokens[PAD])).logits[0, position]  # (vocabulary,)
    return {"position": position, "logits": _base64(logits.numpy(), "<f4")}


def _gene_names(vocabulary: Vocabulary) -> dict[str, list]:
    """Token, Ensembl id, symbol (the id where there is none) and median of each gene."""
    ids = vocabulary.genes
    symbols = genes.gene_table("homo_sapiens").set_index("ensembl_id")["symbol"].reindex(ids)
    names = [symbol if isinstance(symbol, str) and symbol else gene for gene, symbol in symbols.items()]
    medians = [vocabulary.medians[gene] for gene in ids]
    return {"tokens": vocabulary.gene_tokens, "ids": ids, "symbols": names, "medians": medians}


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()


def _script(content: dict) -> str:
    """A call of the page's function; NumPy's arrays and numbers become JSON's."""
    return f"epigenStudent({json.dumps(content, separators=(',', ':'), default=lambda array: array.tolist())});\n"
