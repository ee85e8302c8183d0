"""The random cells themselves, the plain versions beside the official code's outputs, and that a planted fault is found."""

import collections
import itertools
import json

import encoding_draws
import fuzz_encoding
import numpy as np
import pandas as pd
import pytest
from encoding_draws import Case, Request

from epigen_utils.data import cell_source, fetching
from epigen_utils.downstream import perturbation
from epigen_utils.geneformer import encoding, vocabularies
from epigen_utils.models import presets

#: Types for which other tests have compiled the encoder too.
COMPILED = ("int64", "float32")


def drawn(n, *kinds, seed=1):
    """The first cases of a seed that have some kinds."""
    cases = (encoding_draws.draw(seed, number) for number in itertools.count())
    found = (case for case in cases if set(kinds) <= set(case.kinds) and case.dtype in COMPILED)
    return list(itertools.islice(found, n))


def test_random_cells_are_encoded_and_perturbed_as_the_plain_versions_do():
    rows = [row for case in drawn(20) for row in fuzz_encoding.compare(case)]
    assert [str(row) for row in rows if any(finding.cause is None for finding in row.findings)] == []
    verdicts = collections.Counter((row.what, row.verdict) for row in rows)
    for what in ("encoding", "delete", "overexpress"):
        assert verdicts[what, "equal"] >= 3, what
    assert verdicts["encoding", "refused by both"] >= 3


def test_a_case_depends_on_its_seed_and_number_alone():
    one, again, other = (encoding_draws.draw(seed, 5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.counts, again.counts)
    assert (one.names, one.vocabulary, one.requests, one.kinds) == (
        again.names, again.vocabulary, again.requests, again.kinds
    )  # fmt: skip
    assert one.names != other.names


def test_every_kind_occurs():
    seen = {kind for number in range(400) for kind in encoding_draws.draw(1, number).kinds}
    for prefix, kinds in {
        "vocabulary": encoding_draws.VOCABULARIES,
        "medians": encoding_draws.MEDIANS,
        "counts": encoding_draws.COUNTS,
        "type": encoding_draws.TYPES,
        "form": encoding_draws.FORMS,
        "defect": encoding_draws.DEFECTS,
        "depth": encoding_draws.DEPTHS,
        "perturbation": encoding_draws.PERTURBED,
        "perturbed": encoding_draws.GENES,
        "genes": set(encoding_draws.SPOILT) - {"nothing"},
    }.items():
        assert {f"{prefix}: {kind}" for kind in kinds} <= seen, prefix


def test_a_matrix_is_the_same_in_every_form():
    for case in drawn(6, "defect: none", "counts: small"):
        for form in encoding_draws.FORMS:
            held = encoding_draws.in_form(case.counts, case.dtype, form)
            held = held if isinstance(held, np.ndarray) else held.toarray()
            np.testing.assert_array_equal(held, case.counts, err_msg=form)


def without_medians(monkeypatch):
    whole = encoding._Columns.of

    def of(vocabulary, source):
        columns = whole(vocabulary, source)
        columns.median = np.ones_like(columns.median)
        return columns

    monkeypatch.setattr(encoding._Columns, "of", of)


@pytest.mark.parametrize(
    ("plant", "kinds", "quantity"),
    [
        (without_medians, ("medians: spread", "defect: none", "max_length: long"), "token ids"),
        (
            lambda patch: patch.setattr(encoding, "_first_invalid_count", lambda *_: -1),
            ("defect: negative",),
            "refusal",
        ),
        (
            lambda patch: patch.setitem(
                perturbation.PERTURBATIONS,
                "overexpress",
                (lambda ranks, *_: np.broadcast_to(np.zeros(ranks.shape[1], int), ranks.shape), False),
            ),
            ("perturbation: overexpress", "perturbed: group", "defect: none", "vocabulary: own"),
            "effects",
        ),
        (
            lambda patch: patch.setitem(perturbation.PERTURBATIONS, "delete", (perturbation._nowhere, False)),
            ("perturbation: delete", "perturbed: group", "defect: none", "vocabulary: own"),
            "refusal",
        ),
    ],
    ids=["medians", "negative counts", "order", "genes not expressed"],
)  # fmt: skip
def test_a_planted_fault_is_found(monkeypatch, plant, kinds, quantity):
    plant(monkeypatch)
    findings = [finding for case in drawn(6, *kinds) for row in fuzz_encoding.compare(case) for finding in row.findings]
    assert (quantity, None) in {(finding.quantity, finding.cause) for finding in findings}


def test_the_report_counts_what_was_compared(tmp_path, capsys):
    number = drawn(1, "defect: none", "vocabulary: own", "depth: sums")[0].number
    assert fuzz_encoding.main(["--only", str(number), "--record", str(tmp_path / "report.json")]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["drawn"] == 1
    assert found["compared"] == sum(sum(counts.values()) for counts in found["verdicts"].values())
    assert found["without a listed cause"] == []
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["drawn"] == 1


PART = pytest.mark.parametrize(
    "part", [pytest.param(1, id="some"), pytest.param(None, id="every", marks=pytest.mark.slow)]
)


@PART
@pytest.mark.parametrize(
    ("file", "version"), [("tokens_v1", "v1"), ("tokens_v1_long_cells", "v1"), ("tokens_v2", "v2")]
)
def test_the_plain_encoding_gives_the_official_tokens(mirror, file, version, part):
    held = np.load(mirror / f"reference/geneformer_official/{file}.npz")
    names = list(held["cell_id"][:part])
    (path,) = fetching.fetch("cardiac-ipsc").values()
    with cell_source.H5adCells(path) as source:
        places = source.obs.index.get_indexer(names)
        counts, genes = np.stack([source.counts_of(place) for place in places]), tuple(source.ensembl_ids)
    vocabulary = vocabularies.official_vocabulary(version)
    longest = 4096 if version == "v2" else 2048
    case = Case(0, 0, vocabulary, counts.astype(float), genes, False, "", "", None, longest, 0.2, 1, False, (), ())
    found = fuzz_encoding.plain_encoding(case, np.float32)
    assert found == [held["token_ids"][a:b].tolist() for a, b in itertools.pairwise(held["offset"][: len(names) + 1])]


@PART
@pytest.mark.parametrize(
    ("file", "kind", "genes", "layer", "version"),
    [
        ("delete_group3_layer0", "delete", "delete3", 0, "v1"),
        ("overexpress_group5_batch1", "overexpress", "over5", -1, "v1"),
        ("goal_delete_group3", "delete", "delete3", -1, "v1"),
        ("v2_delete_group3_cls", "delete", "delete3", -1, "v2"),
    ],
)
def test_the_plain_perturbations_give_the_official_cosines(mirror, file, kind, genes, layer, version, part):
    """Cosines, and shifts to two states, of 32 bits: they agree to about 1e-6."""
    folder = mirror / "reference/geneformer_official"
    held, theirs = np.load(folder / f"tokens_{version}.npz"), pd.read_csv(folder / f"{file}.csv")[:part]
    names = list(held["cell_id"])
    ids = [held["token_ids"][a:b].tolist() for a, b in itertools.pairwise(held["offset"])]
    cells = [ids[names.index(name)] for name in theirs["cell_id"]]
    group = tuple(gene["ensembl_id"] for gene in json.loads((folder / "selection.json").read_text())[genes])
    to_state = file.startswith("goal")
    request = Request(kind, group, True, "first" if version == "v2" else "mean", layer, to_state, False, None)
    model = presets.load_checkpoint(str(folder / f"checkpoint_{version}_small")).eval()
    rows = fuzz_encoding.plain_perturbations(
        cells, vocabularies.official_vocabulary(version), request, model.config.max_position_embeddings
    )
    centres = np.load(folder / "state_embeddings.npz")
    states = {day: centres[f"exact_mean_layer_minus1_{day}"] for day in ("day2", "day5")} if to_state else {}
    found = fuzz_encoding.plain_effects(rows, request, fuzz_encoding.PlainReader(model, layer), states)
    assert [row.cell for row in rows] == list(range(len(cells)))
    columns = [f"shift_to_{day}" for day in states] or ["cosine_similarity"]
    np.testing.assert_allclose(found, theirs[columns], rtol=0, atol=2e-6)
