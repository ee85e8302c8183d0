import hashlib
import json
import shlex

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml

from epigen_utils import paths
from epigen_utils.book import notebooks, report
from epigen_utils.data import datasets, orthologs
from epigen_utils.plots import expression_plots


def test_value_is_a_python_float_and_is_kept(page, shown):
    import numpy as np

    report.value("auc", np.float64(0.5), low=0.4, high=np.float64(0.6), n=12)
    report.value("few", 0.5, low=np.nan, high=np.nan, n=3)
    assert type(shown[1]["auc"]) is float
    report.finish()
    kept = json.loads((page / "metrics.json").read_text())
    assert kept["metrics"]["auc"] == {"value": 0.5, "n": 12.0, "low": 0.4, "high": 0.6}
    assert kept["metrics"]["few"] == {"value": 0.5, "n": 3.0, "low": None, "high": None}
    assert kept["seed"] == 1


def test_columns_are_defined_under_their_table(page, shown):
    frame = pd.DataFrame({"macro_f1": [0.5]})
    report.table("t", frame, caption="Scores.", columns={"macro_f1": "mean over classes"})
    assert "Scores. *macro f1*: mean over classes." in shown[0][-1]["text/markdown"]
    with pytest.raises(ValueError, match="no column 'f1' to define"):
        report.table("u", frame, caption="Scores.", columns={"f1": "mean"})


def test_table_keeps_full_precision_and_escapes(page, shown):
    report.table("t", pd.DataFrame({"the_gene": ["<b>x</b>"], "p": [0.123456789]}), caption="A table.")
    myst = shown[0][-1]["text/markdown"]
    assert "<b>" not in myst
    assert r"0\.123 |" in myst
    assert "the gene" in myst
    assert ":name: epilepsy-02_table_two--alone-tab-t" in myst
    assert pd.read_csv(page / "tables" / "t.csv").loc[0, "p"] == 0.123456789


@pytest.mark.parametrize("frame", [pd.DataFrame(), pd.DataFrame({"gene": [], "p": []})])
def test_a_table_without_rows_is_still_a_table(page, shown, frame):
    report.table("t", frame, caption="A table.", formats={"p": "{:.1f}"})
    myst = shown[0][-1]["text/markdown"]
    assert "none in this run" in myst
    assert myst.count("|\n") == 3


def test_a_large_table_is_offered_as_gzip(page, shown, monkeypatch):
    frame = pd.DataFrame({"gene": ["A", "B"] * 100})
    monkeypatch.setattr(report, "LARGEST_DOWNLOAD", len(frame.to_csv(index=False)))
    report.table("held", frame, caption="Genes.")
    assert "tables/held.csv>" in shown[0][-1]["text/markdown"]
    monkeypatch.setattr(report, "LARGEST_DOWNLOAD", report.LARGEST_DOWNLOAD - 1)
    report.table("packed", frame, caption="Genes.")
    assert "tables/packed.csv.gz>" in shown[0][-1]["text/markdown"]
    packed = page / "tables" / "packed.csv.gz"
    assert pd.read_csv(packed).equals(frame)
    assert packed.stat().st_size < 1000


def test_searchable_rows_are_a_script_and_a_csv(page, shown):
    frame = pd.DataFrame({"gene": ["a", "</script>"], "p": [0.123456, np.nan], "n": [1, 2]})
    report.searchable("all", frame, text="Search")
    script = (page / "tables" / "all.js").read_text()
    rows = json.loads(script.removeprefix("epigenRows(").removesuffix(");\n"))
    assert rows == {"columns": ["gene", "p", "n"], "rows": [["a", 0.123, 1], ["</script>", None, 2]]}
    assert pd.read_csv(page / "tables" / "all.csv")["p"][0] == 0.123456
    assert "::::{div} epigen-search" in shown[0][-1]["text/markdown"]


def test_figure_has_alt_text_data_code_and_hash(page, shown):
    adata = datasets.load("table-two")
    report.banner(adata)
    assert "Real data" in shown[0][-1]["text/markdown"]
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    report.figure(
        "f",
        figure,
        caption="Caption.",
        alt="A line.",
        data=pd.DataFrame({"y": [1, 2]}),
        code=expression_plots.sample_bars,
    )
    myst = shown[0][-1]["text/markdown"]
    assert ":alt: A line." in myst
    assert "def sample_bars(" in myst
    assert hashlib.sha256((page / "figures" / "f.csv").read_bytes()).hexdigest()[:12] in myst
    assert adata.uns["epigen"]["sha256"]["counts"][:12] in myst.replace("\\", "")
    assert 'alt="A line."' in shown[0][-1]["text/html"]


def test_simulated_data_are_announced_as_such(page, shown):
    report.banner(datasets.load("negative-binomial-sim"))
    myst = shown[0][-1]["text/markdown"]
    assert "Simulated data" in myst
    assert ":class: warning" in myst


def test_the_banner_says_what_was_summed_and_what_was_lost(page, shown):
    adata = orthologs.humanise(datasets.load("airway-as-zebrafish"))
    adata.uns["samples_of_donors"] = 99
    report.banner(adata)
    myst = shown[0][-1]["text/markdown"].replace("\\", "")
    lost = adata.uns["humanised"]
    assert f"{lost['genes']:,} of {lost['of']:,} have one, with {lost['share of counts']:.1%}" in myst
    assert "the counts of 99 samples were summed by donor" in myst


def test_declared_parameters_of_a_notebook():
    found = notebooks.declared_parameters(paths.NOTEBOOKS / "epilepsy" / "02_table_two.ipynb")
    assert found["seed"]
    assert list(found)[0] == "dataset"


def test_the_command_runs_the_page_with_what_differs_from_the_defaults():
    source = paths.NOTEBOOKS / "epilepsy" / "02_table_two.ipynb"
    given = notebooks.default_values(source) | {"results_dir": "x"}
    assert (
        report.papermill_line("epilepsy/02_table_two", given)
        == "papermill notebooks/epilepsy/02_table_two.ipynb out.ipynb"
    )
    given |= {"dataset": "/home/a/it's ```mine```.csv", "seed": 7}
    *_, option, values = shlex.split(report.papermill_line("epilepsy/02_table_two", given))
    assert (option, yaml.safe_load(values)) == ("-y", {"dataset": "it's ```mine```.csv", "seed": 7})
    assert "`" not in values
