"""Random cells: our rank value encoding and in silico perturbation beside plain versions, and what both refuse.

    python tests/fuzz_encoding.py --draws 2000 --seed 1 [--record FILE.json] [--only N]

The plain versions go cell by cell and gene by gene, by what Theodoris et al. 2023 (Methods) and the documentation of
official Geneformer's ``TranscriptomeTokenizer`` and ``InSilicoPerturber`` say. tests/test_fuzz_encoding.py compares them
with the recorded outputs of the official code. `encoding_draws` draws the cases. The exit code is 1 if a disagreement has
no listed cause (`CAUSES`).
"""

import argparse
import collections
import dataclasses
import functools
import json
import math
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import encoding_draws
import numpy as np
import pandas as pd
import torch
from encoding_draws import POSITIONS, TOKENS, Case, Request

from epigen_utils.downstream import perturbation
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically
from epigen_utils.geneformer import encoding
from epigen_utils.geneformer.vocabularies import CLS, EOS, Vocabulary
from epigen_utils.models import presets

#: Largest difference of a cosine: 32 bits, and batches that are padded otherwise.
LOOSE = 5e-6
#: Cells of a case that are perturbed.
PERTURBED_CELLS = 3
#: Names of the two states to which shifts are measured.
STATES = ("early", "late")

#: Why a plain version refuses, and what our message says then.
REASONS = {
    "no room": r"leaves no room for",
    "no genes": r"no genes; give|: no counts in ",
    "no Ensembl ids": r"no Ensembl ids",
    "no gene known": r"none of its \d+ genes is in the vocabulary",
    "gene twice": r"given more than once",
    "no count": r"is no count; give raw counts|: no counts in ",
    "no counts": r"has no counts|: no counts in ",
    "depth": r"n_counts is ",
    "bare cell": r"cell '.*': none of its genes is in the vocabulary",
    "coverage": r"% of the counts are of genes in the vocabulary",
    "kind": r"perturbation '.*': there are",
    "places": r"only deletions can keep places",
    "gene unknown": r"not in the vocabulary",
    "no gene given": r"genes: none is given",
    "one word": r"give a list of Ensembl ids, or 'all'",
    "no number": r"has values of type bool|: no counts in ",
    "not expressed": r"no cell expresses",
    "no tokens": r"cell \d+ has no tokens",
    "too long": r"the model has \d+ positions",
    "nothing left": r"nothing to ",
}
#: The disagreements that are allowed.
CAUSES = {
    "single precision": "official Geneformer, and ours, divide by the depth in 32 bits: values that differ by less are ties, "
    "and the lower token id goes first",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A disagreement: in what, both sides, and the listed cause, or None."""

    quantity: str
    text: str
    cause: str | None = None


@dataclasses.dataclass
class Row:
    """A case, or one of its perturbations, compared."""

    case: Case
    what: str
    verdict: str
    reason: str = ""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    n: int = 0

    def __str__(self) -> str:
        lines = [f"{self.case.number:5d}  {self.what:11s} {self.verdict:18s} {self.n:5d}  {self.reason}"]
        return "\n".join(
            lines + [f"      {f.quantity}: {f.text} [{f.cause or 'NO LISTED CAUSE'}]" for f in self.findings]
        )


# Plain versions


class Refused(Exception):
    """A plain version refuses, for one or several of `REASONS`."""

    def __init__(self, reasons: Iterable[str]):
        self.reasons = sorted(reasons)
        super().__init__(", ".join(self.reasons))


def plain_encoding(case: Case, precision: type = np.float64) -> list[list[int]]:
    """Token ids of each cell: counts over depth, times 10,000, over the median; zeros left out, highest first.

    Parameters
    ----------
    precision
        Of counts over depth.

    Raises
    ------
    Refused
        With every reason that there is.
    """
    vocabulary, reasons, found = case.vocabulary, set(), []
    room = case.max_length - 2 * case.special
    names = [re.sub(r"\.\d+$", "", name) for name in case.names]
    genes = [vocabulary.mapping.get(name.upper(), "") if vocabulary.mapping else name for name in names]
    listed = [gene for gene in genes if gene in vocabulary.medians and gene in vocabulary.tokens]
    known = set(listed)
    if room < 1:
        reasons.add("no room")
    if case.dtype == "bool":
        reasons.add("no number")
    if case.in_file and not len(case.counts):
        reasons.add("no counts")
    if not names:
        raise Refused({*reasons, "no genes"})
    if 2 * sum(bool(re.match(r"ENS[A-Z]*G\d", name)) for name in names) <= len(names):
        reasons.add("no Ensembl ids")
    if not known:
        reasons.add("no gene known")
    if len(known) < len(listed) and not vocabulary.mapping:
        reasons.add("gene twice")
    inside = outside = 0.0
    for cell, counts in enumerate(case.counts):
        if not (np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))).all():
            reasons.add("no count")
            continue
        depth = counts.sum() if case.depth is None else pd.to_numeric(case.depth[cell], errors="coerce")
        if counts.sum() == 0:
            reasons.add("no counts")
        if not depth >= counts.sum() * (1 - 1e-6):
            reasons.add("depth")
        sums = collections.defaultdict(float)
        for gene, count in zip(genes, counts, strict=True):
            if gene in known and count > 0:
                sums[gene] += count
        if not sums and counts.sum() > 0:
            reasons.add("bare cell")
        inside, outside = inside + sum(sums.values()), outside + counts.sum() - sum(sums.values())
        with np.errstate(all="ignore"):
            values = {
                gene: float(precision(precision(count) / precision(depth)) * precision(10_000))
                / vocabulary.medians[gene]
                for gene, count in sums.items()
            }
        ranked = sorted(values, key=lambda gene: (-values[gene], vocabulary.tokens[gene]))
        ids = [vocabulary.tokens[gene] for gene in ranked[: max(room, 0)]]
        found.append([vocabulary.tokens[CLS], *ids, vocabulary.tokens[EOS]] if case.special else ids)
    if inside + outside and inside / (inside + outside) < case.least_coverage:
        reasons.add("coverage")
    if reasons:
        raise Refused(reasons)
    return found


@dataclasses.dataclass(frozen=True)
class Perturbed:
    """A cell before and after a perturbation: token ids, their places in the model, and what the row says.

    ``before`` and ``after`` are genes alone, as both are read: between ``head`` and ``tail``.
    """

    cell: int
    gene: str
    rank: int
    head: list[int]
    tail: list[int]
    before: list[int]
    after: list[int]
    group: list[int]
    places: list[int]


def plain_perturbations(
    cells: list[list[int]], vocabulary: Vocabulary, request: Request, positions: int
) -> list[Perturbed]:
    """What becomes of each cell: perturbed genes leave their ranks and, overexpressed, go to the front in their order.

    A cell longer than the model reads is cut first. Where overexpression lengthens it, the end of it is left out, and as
    many genes of the unperturbed one.

    Raises
    ------
    Refused
        With every reason that there is.
    """
    tokens, reasons = vocabulary.tokens, set()
    known = {gene for gene in tokens if gene not in ("<pad>", "<mask>", CLS, EOS)}
    if request.kind not in ("delete", "overexpress"):
        raise Refused({"kind"})
    if request.keep_places and request.kind != "delete":
        reasons.add("places")
    if not request.genes:
        reasons.add("no gene given")
    if isinstance(request.genes, str):
        reasons |= set() if request.genes == "all" else {"one word"}
    elif not set(request.genes) <= known:
        reasons.add("gene unknown")
    if not all(cells):
        reasons.add("no tokens")
    longest = positions if request.max_length is None else request.max_length
    if longest > positions:
        reasons.add("too long")
    if longest <= (2 if CLS in tokens and EOS in tokens else 0):
        reasons.add("no room")
    if reasons:
        raise Refused(reasons)
    names, found, parts = {token: gene for gene, token in tokens.items()}, [], []
    for cell in cells:
        head = [token for token in cell[:1] if token == tokens.get(CLS)]
        tail = [token for token in cell[-1:] if token == tokens.get(EOS)]
        room = longest - len(head) - len(tail)
        parts.append((head, cell[len(head) : len(cell) - len(tail)][:room], tail, room))
    named = None
    if request.genes != "all":
        ids = [tokens[gene] for gene in request.genes]
        named = [list(dict.fromkeys(ids))] if request.together else [[token] for token in ids]
        expressed = [any(set(group) <= set(genes) for _, genes, _, _ in parts) for group in named]
        if request.kind == "delete" and not all(expressed):
            raise Refused({"not expressed"})
    for number, (head, genes, tail, room) in enumerate(parts):
        rows = []
        for group in named or [[gene] for gene in genes[int(request.kind == "overexpress") :]]:
            if request.kind == "delete" and not set(group) <= set(genes):
                continue
            left = [gene for gene in genes if gene not in group]
            after = left if request.kind == "delete" else group + left
            over = max(len(after) - room, 0)
            if over >= len(genes) > 0 and after:
                raise Refused({"no room"})
            if not after:
                continue
            after, before = after[: len(after) - over], genes[: len(genes) - over]
            single = len(group) == 1 and group[0] in genes
            rank = genes.index(group[0]) + len(head) if single else -1
            places = list(range(len(head) + len(after) + len(tail)))
            if request.keep_places:
                places = [*range(len(head)), *(genes.index(gene) + len(head) for gene in after)]
                places += [len(head) + len(before)] * len(tail)
            gene = "+".join(names[token] for token in group)
            rows.append(Perturbed(number, gene, rank, head, tail, before, after, group, places))
        found += sorted(rows, key=lambda row: row.rank)
    if not found:
        raise Refused({"nothing left"})
    return found


class PlainReader:
    """A model that reads cells without padding, those of one length at once.

    Parameters
    ----------
    layer
        As in official Geneformer: 0 is the last, -1 the one before.
    """

    def __init__(self, model, layer: int):
        self.model, self.layer, self.known = model, layer, {}

    @torch.no_grad()
    def read(self, cells: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
        """Read cells, each as token ids and places."""
        by_length = collections.defaultdict(list)
        for cell in dict.fromkeys(cells):
            by_length[len(cell[0])].append(cell)
        for some in by_length.values():
            ids, places = (torch.tensor([cell[i] for cell in some]) for i in range(2))
            states = self.model.base_model(input_ids=ids, position_ids=places, output_hidden_states=True).hidden_states
            states = states[len(states) - 1 + self.layer].double().numpy()
            self.known |= dict(zip(some, states, strict=True))


def plain_effects(
    rows: list[Perturbed], request: Request, reader: PlainReader, states: dict[str, np.ndarray]
) -> np.ndarray:
    """Effect of each perturbation, rows x 1 (cosine) or x states (shift)."""
    both = []
    for row in rows:
        ids = tuple(row.head + row.before + row.tail)
        both.append(((ids, tuple(range(len(ids)))), (tuple(row.head + row.after + row.tail), tuple(row.places))))
    reader.read(cell for pair in both for cell in pair)
    return np.array(
        [
            _effect(row, request, *(reader.known[cell] for cell in pair), states)
            for row, pair in zip(rows, both, strict=True)
        ]
    )


def _effect(row: Perturbed, request: Request, before: np.ndarray, after: np.ndarray, states: dict) -> list[float]:
    n = len(row.head)
    of_genes = [before[n : n + len(row.before)], after[n : n + len(row.after)]]
    if not states and request.pooling == "mean":
        remain = [gene for gene in row.before if gene in row.after and gene not in row.group]
        of_both = [
            [table[ids.index(gene)] for table, ids in zip(of_genes, (row.before, row.after), strict=True)]
            for gene in remain
        ]
        return [float(np.mean([cosine(*pair) for pair in of_both])) if of_both else math.nan]
    pool = {"mean": lambda table: table.mean(axis=0), "max": lambda table: table.max(axis=0)}
    one, other = (
        whole[0] if request.pooling == "first" else pool[request.pooling](table)
        for whole, table in zip((before, after), of_genes, strict=True)
    )
    if not states:
        return [cosine(one, other)]
    return [cosine(other, state) - cosine(one, state) for state in states.values()]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of two vectors."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


# Ours


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What ours made of a case: a value, the message of a refusal, or the traceback of any other error."""

    value: object = None
    refusal: str | None = None
    crash: str | None = None


def ours(make: Callable[[], object]) -> Outcome:
    """What a call of ours gives; a warning is an error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return Outcome(make())
    except DataError as error:
        return Outcome(refusal=str(error))
    except Exception:  # noqa: BLE001 - any other error is what this looks for
        return Outcome(crash=traceback.format_exc())


def our_encoding(case: Case) -> list[list[int]]:
    """Token ids of each cell by `epigen_utils.geneformer.encoding`."""
    encoder = encoding.RankValueEncoder.of(
        case.vocabulary, max_length=case.max_length, least_coverage=case.least_coverage
    )
    with mock.patch.object(encoding, "CHUNK", case.chunk), tempfile.TemporaryDirectory() as folder:
        if case.in_file:
            path = Path(folder) / "cells.h5ad"
            case.adata().write_h5ad(path)
            encoded = encoder.encode_file(path, Path(folder) / "encoded", threads=1 + case.number % 2)
        else:
            encoded = encoder.encode(case.adata(), threads=1 + case.number % 2)
        ids = encoded["input_ids"][:]
        if encoded["cell_id"][:] != [f"c{i}" for i in range(len(ids))] or encoded["length"][:] != list(map(len, ids)):
            raise AssertionError("names or lengths of the cells are others")
        return ids


@functools.cache
def model_of(size: int):
    """A small model with weights large enough that every gene and place matters."""
    config = presets.preset("bert-tiny", vocab_size=size, max_position_embeddings=POSITIONS, initializer_range=0.2)
    return presets.build(config, "masked-lm").eval()


def our_perturbations(
    cells: list[list[int]], vocabulary: Vocabulary, request: Request, model, states: dict[str, np.ndarray]
) -> pd.DataFrame:
    """The table of `epigen_utils.downstream.perturbation`."""
    return perturbation.perturb(
        model,
        {"input_ids": cells},
        vocabulary,
        request.kind,
        request.genes if isinstance(request.genes, str) else list(request.genes),
        together=request.together,
        states=states or None,
        layer=request.layer,
        pooling=request.pooling,
        keep_places=request.keep_places,
        max_length=request.max_length,
    )


# Comparison


def compare_refusals(case: Case, what: str, found: Outcome, refused: Refused | None) -> Row | None:
    """A row where a side refused or ours crashed; None where both gave a value."""
    if found.crash:
        text = found.crash.strip().splitlines()[-1]
        return Row(case, what, "crash", findings=[Finding("crash", f"{text}; plain: {refused or 'a value'}")])
    if found.refusal and "\n" in found.refusal:
        return Row(case, what, "message", findings=[Finding("message", found.refusal)])
    if found.refusal and refused:
        reason = next((one for one in refused.reasons if re.search(REASONS[one], found.refusal)), "")
        findings = [] if reason else [Finding("reason", f"ours: {found.refusal}; plain: {refused}")]
        return Row(case, what, "refused by both" if reason else "other reason", reason, findings)
    if found.refusal or refused:
        who, text = ("ours", found.refusal) if found.refusal else ("plain", str(refused))
        return Row(case, what, f"only {who} refuses", findings=[Finding("refusal", text)])
    return None


def compare_encodings(case: Case, found: Outcome) -> Row:
    """Our encoding of a case beside the plain one."""
    try:
        plain, refused = plain_encoding(case), None
    except Refused as error:
        plain, refused = [], error
    if row := compare_refusals(case, "encoding", found, refused):
        return row
    if found.value == plain:
        return Row(case, "encoding", "equal", n=len(plain))
    single = found.value == plain_encoding(case, np.float32)
    off = [i for i, (one, other) in enumerate(zip(found.value, plain, strict=False)) if one != other]
    text = f"{len(off)} of {len(plain)} cells"
    text += f", the first: ours {found.value[off[0]]}, plain {plain[off[0]]}" if off else f", ours {len(found.value)}"
    finding = Finding("token ids", text, "single precision" if single else None)
    return Row(case, "encoding", "differs", findings=[finding], n=len(plain))


def compare_perturbations(case: Case, cells: list[list[int]], request: Request) -> Row:
    """Our table of a perturbation beside the plain one."""
    model, vocabulary = model_of(max(case.vocabulary.size, TOKENS)), case.vocabulary
    cells = [*cells[:PERTURBED_CELLS], *([[]] if request.empty_cell else [])]
    centres = np.random.default_rng(case.number).normal(size=(len(STATES), model.config.hidden_size))
    states = dict(zip(STATES, centres.astype(np.float32), strict=True)) if request.to_state else {}
    found = ours(lambda: our_perturbations(cells, vocabulary, request, model, states))
    try:
        rows, refused = plain_perturbations(cells, vocabulary, request, POSITIONS), None
    except Refused as error:
        rows, refused = [], error
    if row := compare_refusals(case, request.kind, found, refused):
        return row
    table, effects = found.value, plain_effects(rows, request, PlainReader(model, request.layer), states)
    columns = [f"shift_{name}" for name in states] or ["cosine"]
    findings = []
    listed = [(row.cell, row.gene, row.rank) for row in rows]
    if list(table.columns) != ["cell", "gene", "rank", *columns] or listed != list(
        table[["cell", "gene", "rank"]].itertuples(index=False, name=None)
    ):
        findings.append(Finding("rows", f"ours {len(table)}, plain {len(rows)}"))
    else:
        off = ~np.isclose(table[columns].to_numpy(), effects, rtol=0, atol=LOOSE, equal_nan=True).all(axis=1)
        if off.any():
            first = int(off.argmax())
            text = f"{off.sum()} of {len(rows)}, the first {listed[first]}: ours {table[columns].to_numpy()[first]}, plain {effects[first]}"
            findings.append(Finding("effects", f"{text} ({request})"))
    return Row(case, request.kind, "differs" if findings else "equal", findings=findings, n=len(rows))


def compare(case: Case) -> list[Row]:
    """A case's encoding and, of the cells that it gives, its perturbations."""
    found = ours(lambda: our_encoding(case))
    rows = [compare_encodings(case, found)]
    if found.value:
        rows += [compare_perturbations(case, found.value, request) for request in case.requests]
    return rows


# Runs


def summary(rows: list[Row]) -> dict:
    """Counts of verdicts by what was compared, of reasons and causes, and of what was drawn."""
    by_what = collections.defaultdict(collections.Counter)
    for row in rows:
        by_what[row.what][row.verdict] += 1
    findings = [finding for row in rows for finding in row.findings]
    drawn = {row.case.number: row.case for row in rows}
    return {
        "drawn": len(drawn),
        "compared": len(rows),
        "cells encoded": sum(row.n for row in rows if row.what == "encoding"),
        "perturbed cells": sum(row.n for row in rows if row.what != "encoding"),
        "verdicts": {what: dict(counts) for what, counts in sorted(by_what.items())},
        "refused by both": dict(collections.Counter(row.reason for row in rows if row.reason).most_common()),
        "findings by cause": dict(collections.Counter(finding.cause or "no listed cause" for finding in findings)),
        "without a listed cause": [row.case.number for row in rows if any(f.cause is None for f in row.findings)],
        "kinds": dict(sorted(collections.Counter(kind for case in drawn.values() for kind in case.kinds).items())),
    }


def record(rows: list[Row], seed: int, path: Path) -> None:
    """Write the summary, and every row that has findings."""
    found = summary(rows)
    listed = [
        {"number": row.case.number, "what": row.what, "verdict": row.verdict, "kinds": row.case.kinds}
        | {"findings": [dataclasses.asdict(finding) for finding in row.findings]}
        for row in rows
        if row.findings
    ]
    about = {"made by": f"tests/fuzz_encoding.py --seed {seed} --draws {found['drawn']}"}
    content = json.dumps(about | found | {"causes": CAUSES, "rows": listed}, ensure_ascii=False)
    write_atomically(path, content.replace('{"number"', '\n{"number"') + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20, help="number of cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the case of this number alone")
    parser.add_argument("--record", type=Path, help="JSON file for the report")
    options = parser.parse_args(arguments)
    numbers = range(options.draws) if options.only is None else [options.only]
    rows = []
    for number in numbers:
        for row in compare(encoding_draws.draw(options.seed, number)):
            rows.append(row)
            if row.findings or options.only is not None:
                print(row, flush=True)
    if options.record:
        record(rows, options.seed, options.record)
    found = summary(rows)
    print(json.dumps({key: value for key, value in found.items() if key != "kinds"}, indent=1))
    return 1 if found["without a listed cause"] else 0


if __name__ == "__main__":
    sys.exit(main())
