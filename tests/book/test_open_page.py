import json
import types

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import given as given_examples
from hypothesis import settings
from hypothesis import strategies as st
from papermill.cli import _resolve_type as resolved

from epigen_utils import paths
from epigen_utils.book import notebooks, open_page, report
from epigen_utils.data import schema
from epigen_utils.errors import DataError


def test_papermill_alone_is_refused_a_former_name(tmp_path, monkeypatch):
    shell = types.SimpleNamespace(user_ns={"In": ["", '# Parameters\nshown = "rank"\n']})
    monkeypatch.setattr(open_page, "get_ipython", lambda: shell)
    with pytest.raises(DataError, match="epilepsy/06_fine_tuning: parameter 'shown' is now 'position_input'"):
        report.begin("epilepsy/06_fine_tuning", results_dir=str(tmp_path), seed=0)


def given(monkeypatch, tmp_path, line, value, notebook="epilepsy/03_differential_expression"):
    """What a notebook has for a parameter that papermill was given a value for."""
    name = line.partition(" ")[0]
    shell = types.SimpleNamespace(user_ns={"In": [f"# Parameters\n{line}\n"], name: value})
    monkeypatch.setattr(open_page, "get_ipython", lambda: shell)
    report.begin(notebook, results_dir=str(tmp_path), seed=0)
    return shell.user_ns[name]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("reference", 0, "0"),
        ("reference", False, "False"),
        ("reference", None, "None"),
        ("group", 1.5, "1.5"),
        ("round_counts", "false", False),
        ("round_counts", 1, True),
        ("alpha", 1, 1.0),
        ("seed", 7.0, 7),
        ("seed", "7", 7),
        ("seed", "1e5", 100_000),
        ("seed", 2**60 + 1, 2**60 + 1),
    ],
)
def test_what_papermill_made_of_a_word_is_of_the_declared_type_again(monkeypatch, tmp_path, name, value, kept):
    found = given(monkeypatch, tmp_path, f"{name} = {value!r}", value)
    assert found == kept
    assert type(found) is type(kept)


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a.h5ad, b.h5ad", ["a.h5ad", "b.h5ad"]), ("[1, x]", ["1", "x"]), (3, ["3"]), ([2, None], ["2", "None"])],
)
def test_a_list_of_words(monkeypatch, tmp_path, value, kept):
    assert given(monkeypatch, tmp_path, f"cohorts = {value!r}", value, "epilepsy/01_datasets") == kept


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("alpha", "5%", "parameter alpha: '5%' is no number; write one"),
        ("alpha", float("nan"), "parameter alpha: nan is no number"),
        ("seed", 1.5, "parameter seed: 1.5 is no whole number"),
        ("seed", True, "parameter seed: True is no whole number"),
        ("round_counts", "maybe", "parameter round_counts: 'maybe' is neither true nor false"),
    ],
)
def test_a_value_of_another_type_is_one_line(monkeypatch, tmp_path, name, value, said):
    with pytest.raises(DataError) as caught:
        given(monkeypatch, tmp_path, f"{name} = {value!r}", value)
    assert str(caught.value).startswith(f"epilepsy/03_differential_expression: {said}")
    assert "\n" not in str(caught.value)


WORDS = st.one_of(
    st.sampled_from(["True", "False", "None", "0", "1", "1.0", "nan", "inf", "wt", "1e3", "007", "-1"]),
    st.integers().map(str),
    st.floats(allow_nan=False).map(str),
    st.text("abcXYZ 0123456789._-", min_size=1).filter(lambda word: word == word.strip()),
)


@settings(max_examples=max(150, settings.default.max_examples))
@given_examples(word=WORDS)
def test_every_level_can_be_named_on_papermills_command_line(word):
    source = paths.NOTEBOOKS / "epilepsy" / "03_differential_expression.ipynb"
    passed = notebooks.cast_parameters("03", source, {"reference": resolved(word)})["reference"]
    assert schema.find_level(["another", word], passed) == word


@pytest.mark.parametrize("value", ["[a", "[a]: b"])
def test_what_is_no_list_is_one_line(monkeypatch, tmp_path, value):
    with pytest.raises(DataError) as caught:
        given(monkeypatch, tmp_path, f"cohorts = {value!r}", value, "epilepsy/01_datasets")
    assert str(caught.value) == f"epilepsy/01_datasets: parameter cohorts: {value!r} is no list; write it as [a, b]"


def test_a_refused_parameter_leaves_the_finished_run(monkeypatch, tmp_path):
    figure = tmp_path / "figures" / "volcano.svg"
    figure.parent.mkdir()
    for file in (figure, tmp_path / "metrics.json"):
        file.write_text("{}")
    with pytest.raises(DataError, match="parameter alpha"):
        given(monkeypatch, tmp_path, "alpha = '5%'", "5%")
    assert figure.exists()
    assert (tmp_path / "metrics.json").exists()


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
