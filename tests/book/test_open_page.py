import json
import types

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from epigen_utils.book import open_page, report
from epigen_utils.errors import DataError


def test_papermill_alone_is_refused_a_former_name(tmp_path, monkeypatch):
    shell = types.SimpleNamespace(user_ns={"In": ["", '# Parameters\nshown = "rank"\n']})
    monkeypatch.setattr(open_page, "get_ipython", lambda: shell)
    with pytest.raises(DataError, match="epilepsy/06_fine_tuning: parameter 'shown' is now 'position_input'"):
        report.begin("epilepsy/06_fine_tuning", results_dir=str(tmp_path), seed=0)


def test_nothing_before_begin(shown):
    open_page._page = None
    with pytest.raises(RuntimeError, match=r"report\.begin"):
        report.value("x", 1)


def test_a_page_that_stops_half_way_leaves_no_metrics(tmp_path, shown):
    out = tmp_path / "out"
    report.begin("epilepsy/02_table_two", results_dir=str(out), seed=1)
    report.finish()
    assert (out / "metrics.json").exists()
    report.begin("epilepsy/02_table_two", results_dir=str(out), seed=1)
    assert not (out / "metrics.json").exists()


def test_a_metric_leads_to_the_figure_or_table_that_follows_it(page, shown):
    report.value("before", 1)
    report.table("first", pd.DataFrame({"p": [0.5]}), caption="A table.")
    report.value("between", 2, method_check=False)
    figure, axes = plt.subplots()
    report.figure("second", figure, caption="A figure.", alt="A figure.", data=pd.DataFrame({"x": [1]}))
    report.value("last", 3)
    report.finish()
    kept = json.loads((page / "metrics.json").read_text())["metrics"]
    places = {name: metric["at"] for name, metric in kept.items()}
    assert places == {
        "before": "epilepsy-02-table-two-alone-tab-first",
        "between": "epilepsy-02-table-two-alone-fig-second",
        "last": "epilepsy-02-table-two-alone-fig-second",
    }
    assert kept["between"]["method_check"] is False
