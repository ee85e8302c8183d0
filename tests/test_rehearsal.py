"""The rehearsal is the profile `paper` with smaller numbers and models, and nothing else."""

import functools
import re

import datasets as arrow
import pytest
import requests
import stand_ins
import yaml
from conftest import Hub
from world import Handler, serving

from epigen_utils import paths
from epigen_utils.book import claims, notebooks, runs
from epigen_utils.data import downloads, registry
from epigen_utils.errors import DataError
from epigen_utils.models import presets
from epigen_utils.reads import pipeline, sample_sheets

#: Parameters that say how much is computed, and not what: repeats, sizes, epochs, cells and lengths.
AMOUNTS = {
    *("batch_size", "drawn_cells", "epochs", "held_out", "language_epochs", "length", "max_cells", "max_explained"),
    *(
        "max_length",
        "max_occluded",
        "max_set",
        "max_start",
        "n_cohorts",
        "n_compared",
        "n_draws",
        "n_genes",
        "n_models",
    ),
    *("n_overexpressed", "n_permutations", "n_repeats", "n_seeds", "n_sets", "n_shuffles", "n_shuffles_gpt2"),
    *("n_tokens", "n_trials", "n_words", "product", "rows", "screened", "timed_batch", "timed_cells", "warmup_steps"),
}
#: Of these, 0 stands for all there is.
ALL = {"max_cells", "max_explained", "max_occluded"}
#: A share of the 27 million cells of Genecorpus is held out; of 200 cells it would be one.
MAY_GROW = {"held_out"}
SMALL_MODELS = {"gpt2-xl": "gpt2-tiny", "geneformer-10m": "bert-tiny"}

PAPER, REHEARSAL = ({run.key: run for run in runs.plan_runs(profile)} for profile in ("paper", "rehearsal"))


def test_each_run_of_paper_is_rehearsed_in_the_same_order():
    assert list(REHEARSAL) == list(PAPER)
    assert len(PAPER) > 30
    assert "rehearsal" not in notebooks.profile_names(), "no page offers it"


def test_it_decides_no_claim():
    with pytest.raises(DataError, match="rehearsal: decides no claim; give one of demo, paper"):
        claims.table("rehearsal")


@pytest.mark.parametrize("key", PAPER)
def test_only_amounts_and_sizes_of_models_differ(key):
    paper, rehearsed = (
        notebooks.default_values(plan[key].source) | plan[key].parameters for plan in (PAPER, REHEARSAL)
    )
    assert set(paper) == set(rehearsed)
    for name, value in paper.items():
        small = rehearsed[name]
        if name in AMOUNTS:
            is_all = name in ALL and value == 0
            assert small > 0 or small == value, name
            assert is_all or small <= value or name in MAY_GROW, name
        elif name == "grid":
            assert set(small) == set(value), name
            assert all(set(small[tuned]) <= set(value[tuned]) for tuned in ("learning_rate", "batch_size"))
            assert all(max(small[tuned]) <= max(value[tuned]) for tuned in ("max_length", "epochs"))
        elif name in ("model", "models"):
            names = [value] if isinstance(value, str) else value
            small = [small] if isinstance(small, str) else small
            assert small == [SMALL_MODELS.get(model, model) for model in names]
        elif isinstance(value, str):
            assert small == value.replace("results/paper/", "results/rehearsal/"), name
        else:
            assert small == value, name


def test_the_table_has_no_value_that_changes_nothing():
    table = yaml.safe_load((paths.PROFILES / "rehearsal.yml").read_text())
    assert table.pop("of") == "paper"
    assert set().union(*table.values()) == {*AMOUNTS, "grid", "model", "models"}
    for notebook, cuts in table.items():
        of_paper = [
            notebooks.default_values(run.source) | run.parameters for run in PAPER.values() if run.notebook == notebook
        ]
        for name, value in cuts.items():
            assert any(values[name] != value for values in of_paper), f"{notebook}: {name}"


def test_the_published_weights_have_the_shape_of_the_small_models(tmp_path):
    """A run that starts from them builds the model that they fit."""
    hub = Hub(tmp_path)
    stand_ins.write_models(hub)
    places = {str(value).partition(":")[0] for run in PAPER.values() for value in run.parameters.values()}
    for place, small in (("openai-community/gpt2-xl", "gpt2-tiny"), ("ctheodoris/Geneformer", "bert-tiny")):
        assert place in places
        (config,) = (hub.folder / place).rglob("config.json")
        assert presets.preset_of(config.parent) == small


def test_cells_are_stand_ins_by_the_names_of_the_registry(tmp_path):
    hub = Hub(tmp_path)
    stand_ins.write_cells(hub)
    for name in ("genecorpus-30m", "human-dcm-hcm-nf"):
        place, _, folder = registry.entry(name).files["cells"].hub.partition(":")
        cells = arrow.load_from_disk(str(hub.folder / place / ("a" * 40) / folder))
        assert {"input_ids", "length"} <= set(cells.column_names)
        assert cells["length"] == [len(tokens) for tokens in cells["input_ids"]]
    table = cells.select_columns(["individual", "disease"]).to_pandas()
    values = PAPER["geneformer/08_cardiomyopathy"].parameters
    for part in (values["valid_donors"], values["test_donors"]):
        assert set(table.loc[table["individual"].isin(part), "disease"]) == {"nf", "hcm", "dcm"}
    assert table["individual"].nunique() == 39


def test_what_the_server_lacks_is_asked_for_where_it_is_published(tmp_path):
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("a stand-in")
    (tmp_path / "host" / "table?q=1").write_text("of a query")
    with serving(functools.partial(Handler, directory=str(tmp_path))) as server:
        address = f"{server}/host"
        assert requests.get(f"{address}/file", timeout=10).text == "a stand-in"
        assert requests.get(f"{address}/table?q=1", timeout=10).text == "of a query"
        answer = requests.get(f"{address}/other?q=1", allow_redirects=False, timeout=10)
        assert (answer.status_code, answer.headers["Location"]) == (302, "https://host/other?q=1")


def test_reads_of_the_series_are_fetched_by_their_tables_of_runs(tmp_path, cache, monkeypatch):
    stand_ins.write_series(tmp_path / "world")
    said = []
    with serving(functools.partial(Handler, alone=True, directory=str(tmp_path / "world"))) as server:
        monkeypatch.setenv(downloads.SERVER, server)
        assert all(pipeline.fetch_reads(name, said.append) for name in ("GSE264537-reads", "GSE275235-reads"))
        planned = pipeline.plan_pipeline("GSE264537-reads", tmp_path / "out")
    assert [line.partition("/")[0] for line in said] == ["GSE264537-reads: reads: ", "GSE275235-reads: reads: "]
    assert re.search(r"GSE264537-reads/fastq, 8 files, [\d.e-]+ GB$", said[0])
    found = {sample.name: (sample.group, sample.paired) for sample in planned.samples}
    assert list(found.values()) == [("WT", True), ("WT", True), ("KO", True), ("KO", True)]
    joined, *others = [sample_sheets.check_fastq(sample).reads for sample in planned.samples]
    assert joined > max(others), "the first sample has two runs"
    monkeypatch.setenv(downloads.SERVER, "http://127.0.0.1:9")
    assert pipeline.plan_pipeline("GSE264537-reads", tmp_path / "out") == planned, "all is in the cache"


def test_reads_that_the_archive_lacks_are_one_line_and_the_run_s_own(tmp_path, cache, monkeypatch):
    stand_ins.write_series(tmp_path / "world")
    for file in tmp_path.rglob("SRR2645373_2.fastq.gz"):
        file.unlink()
    said = []
    with serving(functools.partial(Handler, alone=True, directory=str(tmp_path / "world"))) as server:
        monkeypatch.setenv(downloads.SERVER, server)
        assert not pipeline.fetch_reads("GSE264537-reads", said.append)
        assert pipeline.reachable_pipeline({"sheet": "GSE264537-reads"}, tmp_path / "out") is None
    assert re.fullmatch(
        r"GSE264537-reads: reads: missing: https://ftp\.sra\S+/SRR2645373_2\.fastq\.gz: cannot be downloaded .*",
        said[0],
    )
    assert len(said) == 1
