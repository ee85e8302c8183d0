"""The random analyses themselves: what is drawn, how it is written, and that a planted disagreement is seen."""

import collections
import dataclasses
import json

import deseq_draws
import fuzz_deseq
import numpy as np
import pandas as pd
import pytest
from fuzz_deseq import Outcome

from epigen_utils.expression import designs

DRAWN = 240


@pytest.fixture(scope="module")
def drawn():
    return [deseq_draws.draw(7, number) for number in range(DRAWN)]


def test_a_case_depends_on_its_seed_and_number_alone(drawn):
    again = deseq_draws.draw(7, 31)
    pd.testing.assert_frame_equal(again.counts, drawn[31].counts)
    pd.testing.assert_frame_equal(again.obs, drawn[31].obs)
    assert (again.contrast, again.options, again.kinds) == (drawn[31].contrast, drawn[31].options, drawn[31].kinds)
    assert not deseq_draws.draw(8, 31).counts.equals(again.counts)


def test_every_kind_occurs(drawn):
    seen = collections.Counter(kind for case in drawn for kind in case.kinds)
    for prefix, kinds in {
        "design: ": [*deseq_draws.DESIGNS, "real"],
        "contrast: ": deseq_draws.CONTRASTS,
        "counts: ": deseq_draws.COUNTS,
        "data: ": ("airway", "pasilla", "simulated"),
        "size factors: ": ("ratio", "poscounts", "given", "normalization factors"),
        "alternative: ": ("greaterAbs", "lessAbs", "greater", "less"),
        "trend: ": ("parametric", "mean", "local"),
        "test: ": ("Wald", "LRT"),
        "min_replicates_for_replace: ": (7, 3, None),
        "": (
            "few genes",
            "odd names",
            "unused level",
            "shrink: normal",
            "independent_filter: off",
            "cooks_filter: off",
        ),
    }.items():
        assert {kind for kind in kinds if not seen[f"{prefix}{kind}"]} == set(), prefix


def test_cases_are_what_they_say(drawn):
    for case in drawn:
        counts = case.counts.to_numpy()
        assert counts.min() >= 0
        assert counts.max() <= deseq_draws.LARGEST
        assert list(case.counts.index) == list(case.obs.index)
        if "counts: no gene everywhere" in case.kinds:
            assert (counts == 0).any(axis=0).all()
        full_rank = designs.is_full_rank(designs.design_matrix(case.adata(), case.design))
        if {"design: alias", "design: empty cell"} & set(case.kinds):
            assert not full_rank, case.number
        if isinstance(case.contrast, dict):
            assert set(case.contrast) <= set(designs.design_matrix(case.adata(), case.design)), case.number
        if case.reduced is not None:
            assert set(case.reduced) < set(case.terms)


def test_a_case_comes_back_from_its_files(drawn, tmp_path):
    for case in drawn[:60]:
        deseq_draws.write(case, tmp_path / str(case.number))
        found = deseq_draws.read(tmp_path / str(case.number))
        pd.testing.assert_frame_equal(found.obs, case.obs)
        pd.testing.assert_frame_equal(found.counts, case.counts, check_names=False)
        if case.normalization_factors is not None:
            pd.testing.assert_frame_equal(found.normalization_factors, case.normalization_factors, check_names=False)
        for field in ("terms", "reduced", "contrast", "options", "kinds"):
            assert getattr(found, field) == getattr(case, field), field


def test_r_gets_names_that_it_leaves_alone(tmp_path):
    obs = pd.DataFrame({"cell line": deseq_draws.factor(["a b", "a.b", "x+y", "a b"], ["x+y", "a b", "a.b", "none"])})
    counts = pd.DataFrame([[1], [2], [3], [4]], obs.index, ["g"])
    case = deseq_draws.Case(1, 1, counts, obs, (("cell line",),), ("cell line", "a.b", "a b"))
    deseq_draws.write(case, tmp_path / "case")
    about = json.loads((tmp_path / "case" / "case.json").read_text())
    assert about["design"] == "~ col1q"
    assert about["columns"] == {"col1q": {"kind": "factor", "levels": ["lev1q", "lev2q", "lev3q", "none"]}}
    assert about["contrast"] == ["col1q", "lev3q", "lev2q"]
    weights = dataclasses.replace(case, contrast={"cell line[T.a b]": 2.0})
    deseq_draws.write(weights, tmp_path / "weights")
    about = json.loads((tmp_path / "weights" / "case.json").read_text())
    assert about["contrast"] == {"col1q_lev2q_vs_lev1q": 2.0}


@pytest.fixture
def both_sides():
    """A case, and the same outcome of it on both sides, of a hundred genes of which the first has no counts."""
    case = next(case for case in (deseq_draws.draw(7, n) for n in range(99)) if case.options.alpha == 0.05)
    rng, genes = np.random.default_rng(0), [f"g{i}" for i in range(100)]
    results = pd.DataFrame(rng.uniform(0.001, 1, size=(100, 6)), genes, list(fuzz_deseq.RESULTS))
    results.loc["g0", results.columns[1:]] = np.nan
    dispersions = pd.DataFrame(rng.uniform(0.01, 1, size=(99, 4)), genes[1:], ["genewise", "trend", "map", "final"])
    dispersions["outlier"] = False

    def side(**changes):
        parts = {"results": results.copy(), "dispersions": dispersions.copy()}
        return Outcome(
            **{
                "flagged": pd.Series(False, genes),
                "unsettled": pd.Series(False, genes),
                "rounded": pd.Series(False, genes),
                "replaced": pd.Series(False, genes),
                **parts,
                **changes,
            }
        )

    return case, side


def quantities(row):
    return {finding.quantity for finding in row.findings}


def test_equal_outcomes_are_equal(both_sides):
    case, side = both_sides
    row = fuzz_deseq.compare(case, side(), side(fit={"fitType": "parametric"}))
    assert (row.verdict, row.findings) == ("equal", [])
    assert set(row.errors) >= {"baseMean", "log2FoldChange", "lfcSE", "pvalue", "final"}


@pytest.mark.parametrize(
    ("table", "column", "factor", "expected"),
    [
        ("results", "log2FoldChange", 1.002, {"log2FoldChange"}),
        ("results", "log2FoldChange", 1.0005, set()),
        ("results", "lfcSE", 0.998, {"lfcSE"}),
        ("results", "pvalue", 1.02, {"pvalue"}),
        ("results", "pvalue", 1.005, set()),
        ("results", "pvalue", np.nan, {"NA of pvalue"}),
        ("results", "padj", np.nan, {"NA of padj"}),
        ("results", "baseMean", 1 + 1e-6, {"baseMean"}),
        ("dispersions", "genewise", 1.01, {"genewise"}),
        ("dispersions", "final", np.nan, {"NA of final"}),
    ],
)
def test_a_planted_difference_of_one_gene_is_seen(both_sides, table, column, factor, expected):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    getattr(ours, table).loc["g5", column] *= factor
    row = fuzz_deseq.compare(case, ours, theirs)
    assert quantities(row) == expected
    assert row.verdict == ("differs" if expected else "equal")
    assert len(row.unexplained) == len(expected)
    assert all("g5" in str(finding) for finding in row.findings)


def test_a_call_of_one_side_and_an_outlier_are_seen(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    theirs.results.loc["g7", "padj"], ours.results.loc["g7", "padj"] = 0.0499, 0.0501
    ours.dispersions.loc["g9", "outlier"] = True
    assert quantities(fuzz_deseq.compare(case, ours, theirs)) == {"calls", "outlier"}


def test_what_r_flags_is_not_compared(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    ours.results.loc["g5", "log2FoldChange"] = 30.0
    theirs.flagged["g5"] = True
    row = fuzz_deseq.compare(case, ours, theirs)
    assert row.verdict == "equal"
    assert row.n_flagged == 1


def test_refusals_and_crashes(both_sides):
    case, side = both_sides
    fits, refuses = side(fit={"fitType": "parametric"}), Outcome(refusal="not full rank")
    row = fuzz_deseq.compare(case, refuses, refuses)
    assert (row.verdict, row.findings) == ("refused by both", [])
    for ours, theirs, verdict in ((fits, refuses, "only R refuses"), (refuses, fits, "only ours refuses")):
        row = fuzz_deseq.compare(case, ours, theirs)
        assert row.verdict == verdict
        assert len(row.unexplained) == 1
        assert "not full rank" in str(row)
    row = fuzz_deseq.compare(case, Outcome(crash="Traceback ...\nValueError: x"), refuses)
    assert row.verdict == "crash"
    assert "ValueError: x" in str(row)
    assert row.unexplained


def test_a_warning_is_a_finding(both_sides, monkeypatch):
    case, side = both_sides

    def analyse(case):
        np.log(np.zeros(1))
        return side()

    monkeypatch.setattr(fuzz_deseq, "analyse", analyse)
    row = fuzz_deseq.compare(case, fuzz_deseq.run_ours(case), side(fit={"fitType": "parametric"}))
    assert quantities(row) == {"warning"}
    assert "divide by zero encountered in log (test_fuzz_deseq.py:" in str(row)


def test_a_listed_cause_explains_what_it_names_and_no_more(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "local"})
    ours.results.loc["g5", "pvalue"] *= 2
    ours.results.loc["g5", "baseMean"] *= 2
    row = fuzz_deseq.compare(case, ours, theirs)
    assert {finding.quantity: finding.cause for finding in row.findings} == {"pvalue": None, "baseMean": None}
    ours.dispersions["trend"] *= 1.01
    row = fuzz_deseq.compare(case, ours, theirs)
    causes = {"pvalue": "local trend", "baseMean": None, "trend": "local trend"}
    assert {finding.quantity: finding.cause for finding in row.findings} == causes
    shrunk = fuzz_deseq.compare(case, side(), side(fit={"shrinkError": "interactions"}))
    assert [finding.quantity for finding in shrunk.unexplained] == ["refusal to shrink"]
    lone = fuzz_deseq.compare(case, Outcome(refusal="'p' of 'lone' has one sample"), theirs)
    assert lone.findings[0].cause == "one sample"
    assert [cause.name for cause in fuzz_deseq.CAUSES if len(cause.explanation) < 20] == []


def test_genes_on_which_r_does_not_settle_are_told_apart(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    theirs.unsettled["g5"] = True
    ours.results.loc["g5", ["log2FoldChange", "pvalue"]] *= 3
    ours.results.loc[["g7", "g8"], "padj"] *= 1.1
    row = fuzz_deseq.compare(case, ours, theirs)
    causes = {(finding.quantity, finding.settled): finding.cause for finding in row.findings}
    assert causes == {
        ("log2FoldChange", False): "R's optimiser",
        ("pvalue", False): "R's optimiser",
        ("padj", True): "adjusted with others",
    }
    ours.results.loc["g8", "pvalue"] *= 3
    row = fuzz_deseq.compare(case, ours, theirs)
    assert {(finding.quantity, finding.settled) for finding in row.unexplained} == {("pvalue", True), ("padj", True)}


def test_rounding_decides_with_the_largest_counts_and_with_large_ones_at_the_start():
    table = pd.DataFrame({"baseMean": [2e7, 2e5, 2e5, 2e4], "dispGeneIter": [9, 2, 3, 2]})
    assert fuzz_deseq.decided_by_rounding(table).tolist() == [True, True, False, False]


def test_genes_that_rounding_decides_are_told_apart(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    theirs.rounded["g5"] = True
    ours.dispersions.loc["g5", "genewise"] *= 1.1
    ours.dispersions["map"] *= 1.002
    row = fuzz_deseq.compare(case, ours, theirs)
    causes = {(finding.quantity, finding.settled): finding.cause for finding in row.findings}
    assert causes == {
        ("genewise", False): "R's rounding",
        ("map", True): "trend through these",
        ("map", False): "R's rounding",
    }


def test_a_trend_follows_from_what_it_is_fitted_to(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    theirs.unsettled["g5"] = True
    ours.dispersions["trend"] *= 1.01
    assert {finding.quantity for finding in fuzz_deseq.compare(case, ours, theirs).unexplained} == {"trend"}
    ours.dispersions.loc["g5", "genewise"] *= 2
    assert fuzz_deseq.compare(case, ours, theirs).unexplained == []
    ours.dispersions.loc["g6", "genewise"] *= 2
    assert {finding.quantity for finding in fuzz_deseq.compare(case, ours, theirs).unexplained} == {"trend", "genewise"}


def test_shrunken_genes_whose_outliers_were_replaced(both_sides):
    case, side = both_sides
    ours, theirs = side(), side(fit={"fitType": "parametric"})
    theirs.shrunken, ours.shrunken = theirs.results.assign(betaIter=5), ours.results.copy()
    ours.shrunken.loc["g5", "log2FoldChange"] *= 2
    assert quantities(fuzz_deseq.compare(case, ours, theirs)) == {"shrunken log2FoldChange"}
    theirs.replaced["g5"] = True
    assert fuzz_deseq.compare(case, ours, theirs).unexplained == []
    ours.shrunken.loc["g6", "log2FoldChange"] *= 2
    assert len(fuzz_deseq.compare(case, ours, theirs).unexplained) == 1


def test_a_record_has_a_row_a_case(both_sides, tmp_path):
    case, side = both_sides
    theirs = side(fit={"fitType": "parametric"})
    ours = side()
    ours.results.loc["g5", "pvalue"] *= 2
    rows = [fuzz_deseq.compare(case, side(), theirs), fuzz_deseq.compare(case, ours, theirs)]
    fuzz_deseq.record(rows, {"DESeq2": "1.38.3"}, 7, tmp_path / "record.json")
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["verdicts"] == {"equal": 1, "differs": 1}
    assert found["without a listed cause"] == [case.number]
    assert [row["findings"][0]["quantity"] for row in found["rows"] if row["findings"]] == ["pvalue"]
    assert found["worst relative error within tolerance or share"]["pvalue"] == {"tolerance": 0.01, "worst": 0.0}


def test_without_r_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(fuzz_deseq.shutil, "which", lambda name: None)
    assert fuzz_deseq.main(["--draws", "1"]) == 2
    assert "Rscript is not in the path" in capsys.readouterr().err


@pytest.mark.slow("tests/fuzz_deseq.py", "tests/deseq_draws.py", "data/reference/deseq2_cases.R", "epigen_utils/deseq/")
def test_twenty_analyses_beside_r(tmp_path, capsys):
    if reason := fuzz_deseq.missing_r():
        pytest.skip(reason)
    from epigen_utils.expression import differential  # noqa: F401 - what this covers, for .ci/touched.py

    assert fuzz_deseq.main(["--draws", "20", "--seed", "2", "--keep", str(tmp_path)]) == 0, capsys.readouterr().out
