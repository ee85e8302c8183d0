"""Export of models: safetensors with a model card, and ONNX in 32 and 8 bits."""

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.errors import DataError
from epigen_utils.files import whole_file, whole_folder
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import PAD, Vocabulary, save_vocabulary
from epigen_utils.models.batching import pad_batch

#: Files of an exported model.
FP32_FILE, INT8_FILE = "model.onnx", "model_int8.onnx"
#: Operators whose weights are stored in 8 bits.
QUANTISED = ["MatMul", "Gather"]


def model_card(name: str, facts: dict[str, object], *, description: str, licence: str = "mit") -> str:
    """Model card in the format of model hubs: metadata, description, table of facts, and limits of use."""
    front = yaml.safe_dump({"license": licence, "library_name": "transformers", "tags": ["single-cell", "geneformer"]})
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return (
        f"---\n{front}---\n\n# {name}\n\n{description}\n\n| | |\n| --- | --- |\n{rows}\n\n"
        "Cells are given as ids of `vocabulary.json`, genes in rank value encoding, highest first.\n\n"
        "For research; not for the diagnosis of a patient.\n"
    )


def save_model(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path, *, card_text: str) -> None:
    """Save weights (safetensors), configuration, vocabulary and card in a folder, atomically."""
    with whole_folder(Path(folder)) as part:
        model.save_pretrained(part)
        save_vocabulary(vocabulary, part / "vocabulary.json")
        (part / "README.md").write_text(card_text)


class _Logits(nn.Module):
    """Wrap a model so that it returns its logits alone."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def write_onnx(model: PreTrainedModel, folder: Path) -> tuple[Path, Path]:
    """Write ``model.onnx`` and ``model_int8.onnx`` (weights of products and embeddings in 8 bits), atomically.

    Inputs are ``input_ids`` and ``attention_mask``, any number of cells of any length; the output is ``logits``, of
    each position for a masked language model, of each cell for a classifier.
    """
    full, small = Path(folder) / FP32_FILE, Path(folder) / INT8_FILE
    cells, length = torch.export.Dim("cells"), torch.export.Dim("length", max=model.config.max_position_embeddings)
    ids = torch.ones(2, 8, dtype=torch.long)
    model = model.eval()
    with warnings.catch_warnings():
        # The exporter emits deprecation warnings of its own; `export_agreement` checks its output.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Logits(model),
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=({0: cells, 1: length},) * 2,
            dynamo=True,
            opset_version=23,  # the first with an operator of attention: three times as fast as its parts
            verbose=False,
        )
    with whole_file(full) as part:
        program.save(part, external_data=False)
    log_level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        # The exporter notes the shapes of weights before their transposition, and the quantiser fails on them.
        program = onnx.load(full)
        del program.graph.value_info[:]
        with whole_file(small) as part:
            quantize_dynamic(program, part, op_types_to_quantize=QUANTISED, weight_type=QuantType.QInt8)
    finally:
        logging.getLogger().setLevel(log_level)
    return full, small


class OnnxModel:
    """An exported model, run by ONNX Runtime on the CPU.

    Raises
    ------
    DataError
        If the file is missing.
    """

    def __init__(self, path: Path, *, threads: int = 1):
        if not Path(path).exists():
            raise DataError(f"{path}: no such file; write it by export.write_onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> np.ndarray:
        """Logits of a batch."""
        inputs = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return self.session.run(None, inputs)[0]


@torch.no_grad()
def export_agreement(
    model: PreTrainedModel, path: Path, cells: list[np.ndarray], vocabulary: Vocabulary
) -> dict[str, float]:
    """Agreement of an exported model with its original.

    Parameters
    ----------
    cells
        Token ids of each cell.

    Returns
    -------
    ``largest`` (absolute difference of a logit, without padding), ``same`` (share of equal predictions), ``megabytes``.
    """
    batch = pad_batch(cells, vocabulary.tokens[PAD])
    expected = model.eval()(**batch).logits.numpy()
    exported = OnnxModel(path).logits(**batch)
    if expected.ndim == 3:  # (cells, length, vocabulary) -> (tokens, vocabulary)
        mask = batch["attention_mask"].bool().numpy()
        expected, exported = expected[mask], exported[mask]
    same = float((expected.argmax(axis=-1) == exported.argmax(axis=-1)).mean())
    megabytes = Path(path).stat().st_size / 1e6
    return {"largest": float(np.abs(expected - exported).max()), "same": same, "megabytes": megabytes}


@torch.no_grad()
def compare_exports(
    model: PreTrainedModel,
    onnx_files: tuple[Path, ...],
    cells: EncodedCells,
    vocabulary: Vocabulary,
    *,
    name: str,
    repeats: int = 3,
) -> list[dict[str, object]]:
    """Compare a model with its exported files: size, speed on one thread and predictions.

    Parameters
    ----------
    cells
        Encoded cells; evaluated as one batch.
    repeats
        Number of timings; the best counts.

    Returns
    -------
    One row per file, PyTorch first: ``model``, ``file``, ``megabytes``, ``cells a second``, and `export_agreement`'s
    ``largest`` and ``same``.
    """
    ids = token_ids(cells)
    batch = pad_batch(ids, vocabulary.tokens[PAD])

    def speed(run: Callable) -> float:
        run()
        best = np.inf
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return len(ids) / best

    model, threads = model.eval(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pytorch_speed = speed(lambda: model(**batch))
    finally:
        torch.set_num_threads(threads)
    megabytes = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 1e6
    row = {"model": name, "file": "PyTorch", "megabytes": megabytes, "cells a second": pytorch_speed}
    rows = [row | {"largest": 0.0, "same": 1.0}]
    for path in onnx_files:
        exported = OnnxModel(path)
        row = {"model": name, "file": path.name}
        row["cells a second"] = speed(lambda exported=exported: exported.logits(**batch))
        rows.append(row | export_agreement(model, path, ids, vocabulary))
    return rows
