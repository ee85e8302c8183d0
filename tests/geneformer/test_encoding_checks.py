import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_cells
from epigen_utils.geneformer import curation, encoding, encoding_checks, vocabularies

GENES = [f"ENSG{i:011d}" for i in range(6)]


@pytest.fixture
def encoder():
    return encoding.RankValueEncoder.of(
        vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="v"), least_coverage=0
    )


def test_places_by_hand(encoder):
    cells = {"input_ids": [[2, 3, 4, 5], [5, 4, 3, 2], [6, 7]]}
    found = encoding_checks.class_ranks(cells, encoder, {"a": {GENES[0], GENES[1]}, "none": {"ENSG99"}})
    assert found["cell"].tolist() == [0, 1], "a class must have genes inside and outside"
    assert found["auc"].tolist() == [1, 0]
    assert found["place"].tolist() == pytest.approx([0.5 / 3, 2.5 / 3])
    one = encoding_checks.class_ranks({"input_ids": [[4, 2, 5, 3]]}, encoder, {"a": {GENES[0], GENES[1]}})
    assert one["auc"].item() == pytest.approx(0.25)


def test_intervals_draw_whole_units():
    found = pd.DataFrame({"cell": range(40), "class": "a", "auc": np.repeat([0.2, 0.8], 20)})
    narrow = encoding_checks.means_by_class(found, np.arange(40))
    wide = encoding_checks.means_by_class(found, np.repeat([0, 1, 2, 3], 10))
    assert narrow["mean"].item() == wide["mean"].item() == pytest.approx(0.5)
    assert wide["high"].item() - wide["low"].item() == pytest.approx(0.6)
    assert narrow["high"].item() - narrow["low"].item() < 0.3
    assert (narrow["cells"].item(), wide["units"].item()) == (40, 4)
    few = encoding_checks.means_by_class(found, np.arange(40) % 3)
    assert few[["low", "high"]].isna().all(axis=None), "three donors have no interval"


def test_changes_of_the_encoding_are_paired_by_cell():
    """Cells differ far more than the encodings do: the change has a narrow interval."""
    rng = np.random.default_rng(0)
    by_counts = pd.DataFrame({"cell": range(40), "class": "a", "auc": rng.random(40)})
    by_rank = by_counts.assign(auc=by_counts["auc"] - 0.3 + 0.01 * rng.random(40)).sample(frac=1, random_state=1)
    change = encoding_checks.rank_changes(by_rank, by_counts, np.arange(40)).iloc[0]
    assert change["mean"] == pytest.approx(-0.295, abs=0.002)
    assert change["high"] - change["low"] < 0.004


def test_housekeeping_goes_back_by_medians_and_stays_in_front_without():
    few = {"n_cells": 200, "n_genes": 600, "n_targets": 25, "n_housekeeping": 40, "lengths": {0: 100, 1: 300}}
    corpus = simulated_cells.cell_corpus(**few, spread=1.3, effect=2.0)
    vocabulary = vocabularies.vocabulary_from_medians(curation.exact_medians([corpus]), name="v")
    encoder = encoding.RankValueEncoder.of(vocabulary)
    classes = {"housekeeping": set(corpus.var_names[corpus.var["housekeeping"]])}
    by_rank = encoding_checks.class_ranks(encoder.encode(corpus), encoder, classes)["auc"].mean()
    by_counts = encoding_checks.class_ranks(
        encoding_checks.unit_median_encoder(encoder).encode(corpus), encoder, classes
    )["auc"].mean()
    assert by_counts > by_rank + 0.2
    lost = encoding_checks.expression_from_ranks(corpus, encoder, classes).set_index("class")
    assert list(lost.index) == ["all genes", "housekeeping"]
    assert lost.loc["housekeeping", "off"] > lost.loc["all genes", "off"], "high everywhere, and ranked low"
    assert lost["within"].between(0, 1).all()


def test_thinning_loses_more_with_less(encoder):
    corpus = simulated_cells.cell_corpus(n_cells=60, n_genes=600, n_housekeeping=40, lengths={0: 200, 1: 300})
    vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(corpus.var_names, 1.0), name="v")
    some = encoding.RankValueEncoder.of(vocabulary)
    found = encoding_checks.thinning_stability(corpus, some, shares=(1.0, 0.5, 0.1), n_top=50)
    mean = found.groupby("share")[["kept", "top", "spearman"]].mean()
    assert mean.loc[1.0].tolist() == pytest.approx([1, 1, 1])
    assert (mean.loc[0.5] > mean.loc[0.1]).all()


def test_magnitude_is_exact_where_rank_tells_all(encoder):
    counts = np.array([[64, 32, 16, 8, 4, 2], [2, 4, 8, 16, 32, 64]])
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=GENES), layers={"counts": counts}
    )
    found = encoding_checks.expression_from_ranks(adata, encoder, {})
    assert found["pairs"].item() == 12
    assert found["within"].item() > 0.9


def test_classes_are_planted_or_by_symbol():
    genes = pd.DataFrame(
        {"symbol": ["RPL3", "RPS4X", "RPL13A", "RPS6KA1", "MRPL3", "SOX2", None]}, index=list("abcdefg")
    )
    assert encoding_checks.reference_gene_classes(genes, ["SOX2"]) == {
        "housekeeping": set("abc"),
        "transcription factors": {"f"},
    }
    assert encoding_checks.reference_gene_classes(genes, []) == {"housekeeping": set("abc")}
    planted = genes.assign(housekeeping=[True] + [False] * 6, regulator=[False] * 6 + [True])
    assert encoding_checks.reference_gene_classes(planted, ["SOX2"]) == {
        "housekeeping": {"a"},
        "transcription factors": {"g"},
    }
