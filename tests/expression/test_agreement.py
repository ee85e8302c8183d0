import numpy as np
import pandas as pd
import pytest

from epigen_utils.expression import agreement


def results(**columns):
    base = {"baseMean": 100.0, "log2FoldChange": 0.0, "lfcSE": 0.1, "stat": 0.0, "pvalue": 0.5, "padj": 0.5}
    return pd.DataFrame(base | columns, index=["a", "b", "c", "d"])


THEIRS = results(padj=[0.01, 0.06, 0.01, np.nan], baseMean=[100, 100, 100, 1.0], pvalue=[0.5, 0.5, 0.5, 1e-200])
OURS = results(padj=[0.01, 0.04, 0.2, 0.3], baseMean=[101, 100, 100, 1.0], pvalue=[0.5, 0.504, np.nan, 2e-200])


def test_differences_by_column_by_hand():
    found = agreement.compare_with_reference(OURS, THEIRS).set_index("column")
    assert found.loc["baseMean", "largest"] == pytest.approx(0.01)
    assert found.loc["padj", ["genes", "NA here", "NA there"]].tolist() == [3, 0, 1]
    assert found.loc["pvalue", ["genes", "NA here", "NA there"]].tolist() == [3, 1, 0]
    assert found.loc["padj", "largest"] == pytest.approx(0.19)


def test_calls_by_hand():
    found = agreement.compare_calls(OURS, THEIRS, alpha=0.05)
    assert found == {"called": 2, "by both": 1, "alone": 1, "reference alone": 1}


def test_every_gene_that_differs_is_listed_with_what_differs():
    """A p-value within a hundredth is equal, one of 2e-200 for 1e-200 is not; missing values and calls are listed too."""
    found = agreement.differing_genes(OURS, THEIRS, alpha=0.05)
    assert found[["gene", "column"]].to_numpy().tolist() == [
        ["a", "baseMean"],
        ["c", "pvalue"],
        ["d", "pvalue"],
        ["d", "padj"],
        ["b", "call"],
        ["c", "call"],
    ]
    assert found[found["column"] == "call"][["here", "there"]].to_numpy().tolist() == [[0.04, 0.06], [0.2, 0.01]]
    assert agreement.differing_genes(THEIRS, THEIRS, alpha=0.05).empty


def test_small_differences_of_fold_changes_are_none():
    theirs = results(log2FoldChange=[1.0, 1.0, 0.0, 0.0])
    ours = results(log2FoldChange=[1.0009, 1.0011, 9e-7, 2e-6])
    assert agreement.differing_genes(ours, theirs, alpha=0.05)["gene"].tolist() == ["b", "d"]


def test_tables_are_compared_entry_by_entry():
    theirs = pd.DataFrame([[1.0, 2], [3, 4]], ["x", "y"], ["g", "h"])
    found = agreement.compare_tables(pd.DataFrame([[3.0, 4.5], [1, 2]], ["y", "x"], ["g", "h"]), theirs)
    assert found["largest"] == 0.5
    assert found["median"] == 0


PARITY = {
    "data sets": [
        {
            "name": "pasilla",
            "samples": 7,
            "genes": 4,
            "design": "~type + condition",
            "called by R": 2,
            "calls that differ": 0,
            "NA that differ": 0,
            "n beyond": 1,
            "errors": {"log2FoldChange": {"99.9%": 1e-9, "largest": 2e-3}},
            "R 1.50.2": {"ours": {"genes": 4, "beyond": 1}, "R 1.38.3": {"genes": 4, "beyond": 2}},
            "beyond": [
                {"gene": "b", "column": "pvalue", "ours": 0.1, "R": 0.2, "error": 0.5, "cause": "the trend: rounding"}
            ],
        },
        {"name": "refused", "samples": 2, "genes": 4, "design": "~x", "ours": "no", "R": None, "within": False},
    ]
}


def test_recorded_data_sets_and_their_differences():
    table = agreement.list_datasets(PARITY)
    assert table["data set"].tolist() == ["pasilla", "refused"]
    assert table.loc[0, "log2FC"] == 2e-3
    assert table["called"].isna().tolist() == [False, True]
    assert agreement.list_differences(PARITY).to_dict("records") == [
        {
            "data set": "pasilla",
            "gene": "b",
            "column": "pvalue",
            "here": 0.1,
            "there": 0.2,
            "error": 0.5,
            "cause": "the trend: rounding",
        }
    ]


def test_differences_by_cause():
    genes = [("a", 0.1, "x", "rounding"), ("b", 0.2, "y", "rounding"), ("c", 0.9, "x", "optimiser")]
    table = agreement.summarise_causes(pd.DataFrame(genes, columns=["gene", "error", "data set", "cause"]))
    assert table.to_numpy().tolist() == [["rounding", 2, 2, 0.2], ["optimiser", 1, 1, 0.9]]


def test_versions_of_r():
    assert agreement.list_versions(PARITY).to_numpy().tolist() == [["pasilla", 4, 1, 2]]


def test_causes_are_those_recorded():
    differing = agreement.differing_genes(OURS, THEIRS, alpha=0.05)
    causes = agreement.add_causes(differing, PARITY, "pasilla").set_index("gene")["cause"]
    assert causes["b"] == "the trend: rounding"
    assert set(causes.drop("b")) == {"not known"}
    assert set(agreement.add_causes(differing, None, "pasilla")["cause"]) == {"not known"}


def test_causes_of_random_analyses_come_most_frequent_first():
    record = {"findings by cause": {"rare": 1, "frequent": 5}, "causes": {"frequent": "why"}}
    table = agreement.list_causes(record)
    assert table.to_numpy().tolist() == [["frequent", 5, "why"], ["rare", 1, ""]]


def test_errors_of_random_analyses_stand_beside_their_tolerances():
    record = {"worst relative error within tolerance or share": {"pvalue": {"tolerance": 0.01, "worst": 0.003}}}
    assert agreement.list_errors(record).to_numpy().tolist() == [["pvalue", 0.01, 0.003]]


def test_ratios_of_times_are_taken_repeat_by_repeat_on_as_many_cores():
    runs = [
        {"samples": 8, "cores": 1, "engine": "epigen_utils", "device": "cpu", "seconds": [1.0, 2.0, 1.0], "MiB": 300.0},
        {"samples": 8, "cores": 1, "engine": "R DESeq2", "device": "cpu", "seconds": [10.0, 30.0, 12.0], "MiB": 900.0},
        {"samples": 8, "cores": 2, "engine": "epigen_utils", "device": "cpu", "seconds": [0.5], "MiB": 300.0},
        {"samples": 8, "cores": 1, "engine": "epigen_utils", "device": "cuda", "seconds": [0.1], "MiB": 300.0},
    ]
    runs[1]["calls that differ from R's"] = 0
    table = agreement.list_speeds({"runs": runs, "device": "H100"})
    assert table["engine"].tolist() == [
        "this book's engine",
        "R DESeq2",
        "this book's engine",
        "this book's engine, H100",
    ]
    assert table.loc[1, ["seconds", "times ours", "low", "high"]].tolist() == [12.0, 12.0, 10.0, 15.0]
    assert table["times ours"].isna().tolist() == [True, False, True, False]
    assert table.loc[3, "times ours"] == pytest.approx(0.1)


def test_equal_calls_are_those_of_analyses_that_both_fit():
    rows = [{"findings": [{"quantity": "calls"}, {"quantity": "padj"}]}, {"findings": [{"quantity": "padj"}]}]
    record = {"verdicts": {"equal": 5, "differs": 2, "refused by both": 3}, "rows": rows}
    assert agreement.count_equal_calls(record) == (6, 7)


def test_times_on_a_gpu_are_a_sentence():
    run = {"samples": 100, "device": "cuda", "seconds": [0.26, 0.36, 0.259], "repeats": 3}
    run["calls that differ from R's"] = 0
    record = {"device": "NVIDIA H200", "date": "2026-11-27", "commit": "abc"}
    record["deseq"] = {"runs": [run, run | {"device": "cpu", "seconds": [2.0]}]}
    text = agreement.describe_gpu(record)
    assert "0.26 s for 100 samples (0.26 to 0.36 in 3 repeats), transfers" in text
    assert "2.0" not in text
    assert text.endswith("It calls the same genes as R.")
    assert agreement.describe_gpu(None) == agreement.describe_gpu({"training": {}}) == ""
