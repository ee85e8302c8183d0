import errno
import gzip
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from epigen_utils import cli, paths
from epigen_utils.book import runs
from epigen_utils.data import downloads
from epigen_utils.files import sha256


@pytest.fixture
def epigen(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["epigen", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, *capsys.readouterr()

    return call


def test_check_says_what_is_good_and_what_is_not(epigen, table_files):
    counts, samples = table_files()
    code, out, _ = epigen("check", counts, "--metadata", samples, "--group", "condition")
    assert code == 0
    assert out.startswith(
        f"{counts}: good, 4 samples x 3 genes; condition: a 2, b 2; genes in rows: the others are the sample table's ids\n"
    )
    assert "Rows are samples of bulk: 4 rows, with a median of 33 counts in 100% of the genes; --kind cells if" in out
    code, out, err = epigen("check", counts, "--metadata", samples, "--group", "tissue")
    assert code == 1
    assert err == f"epigen: {counts}: obs: no group column 'tissue'; name one that is there (columns: condition)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "lost.h5ad"], "lost.h5ad: no such file"),
        (["build", "--group", "x"], "go with --dataset"),
        (["build", "--distil"], "go with --dataset"),
        (["build", "--dataset", "table-two", "--start", "WT"], "--start is of cells, and these are samples of bulk"),
        (["build", "--dataset", "table-two", "--kind", "cell"], "--kind cell: write cells or bulk, or leave it out"),
        (["build", "--only", "epilepsy/02_tabletwo"], "did you mean 'epilepsy/02_table_two'?"),
        (["build", "--genome", "mm10"], "options about reads go with --sheet; give it"),
        (["build", "--kind", "cells"], "go with --dataset"),
        (["build", "--dataset", "airway", "--sheet", "s.csv"], "--dataset and --sheet are two data sets; give one"),
        *(
            (["build", "--sheet", "s.csv", *option], f"{option[0]} goes with --dataset, not with --sheet; leave it out")
            for option in (
                ["--metadata", "m.csv"],
                ["--group", "x"],
                ["--donor", "x"],
                ["--genes-in", "rows"],
                ["--round-counts"],
                ["--size-factors", "ratio"],
                ["--kind", "bulk"],
                ["--keep", "x=y"],
                ["--start", "x"],
                ["--goal", "x"],
                ["--teacher", "x"],
                ["--distil"],
            )
        ),
        (["build", "--sheet", "lost.csv", "--genome", "mm10"], "lost.csv: no such sample sheet; check the path"),
        (["build", "--profile", "dmo"], "there are demo, paper, real"),
        (["build", "--zip", "b.zip", "--only", "epilepsy/02_table_two"], "--zip packs a whole site, and --only builds"),
        (["build", "--with-data"], "--with-data goes with --zip; give it"),
        (["build", "--batch", "lost.yml"], "lost.yml: no such list of data sets; check the path"),
        (["build", "--batch", "sets.yml", "--genes-in", "rows"], "--genes-in is of one data set; write it in sets.yml"),
        (["params", "epilepsy/02_tabletwo"], "did you mean 'epilepsy/02_table_two'?"),
        (["new", "chapter", "epilepsy/02_table_two"], "epilepsy/02_table_two: there is such a chapter"),
        (["new", "dataset", "airway"], "airway: there is such a data set; choose another name"),
        (["fetch", "airwy"], "did you mean 'airway'?"),
        (["fetch", "--profile", "papr"], "there are demo, paper, real"),
        (["fetch"], "nothing to fetch; name data sets (epigen data list), or give --profile"),
        (["data", "list", "--kind", "bulks"], "did you mean 'bulk'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(epigen, arguments, said):
    code, _, err = epigen(*arguments)
    assert code == 1
    assert said in err
    assert err.startswith("epigen: ")
    assert err.count("\n") == 1


def test_a_quick_build_of_reads_leaves_out_what_is_slow(epigen, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.console, "_width", 200)
    rows = ["sample,fastq_1,group"]
    for i in range(12):
        (tmp_path / f"s{i}.fastq").write_text(f"@r{i}\nACGT\n+\nIIII\n")
        rows.append(f"s{i},s{i}.fastq,{'ab'[i % 2]}")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("\n".join(rows) + "\n")
    for option, said in (("--plan", False), ("--quick", True)):
        code, out, _ = epigen("build", "--sheet", sheet, "--genome", "mm10", "--plan", option)
        assert code == 0
        assert ("left out: it takes longer than 60 s (--quick)" in out) == said


def test_a_list_is_planned_without_the_data_sets_that_are_refused(epigen, table_files, monkeypatch):
    monkeypatch.setattr(cli.console, "_width", 200)
    counts, samples = table_files()
    sets = counts.with_name("sets.yml")
    entry = f"dataset: {counts}, metadata: {samples}, group"
    sets.write_text(f"- {{name: one, {entry}: condition}}\n- {{name: two, {entry}: tissue}}\n")
    code, out, err = epigen("build", "--batch", sets, "--plan")
    assert code == 1
    assert err.startswith(f"epigen: {sets}: two: counts.csv: obs: no group column 'tissue'")
    assert err.count("\n") == 1
    assert out.count("On one") == 1
    assert "--only CHAPTER--one runs one chapter" in out
    sets.write_text(f"- {{name: two, {entry}: tissue}}\n")
    code, _, err = epigen("build", "--batch", sets)
    assert code == 1
    assert err.splitlines()[-1] == f"epigen: {sets}: each of its data sets is refused; correct one"


def test_parameters_are_printed_as_a_file(epigen):
    code, out, _ = epigen("params", "epilepsy/02_table_two")
    assert code == 0
    assert "\n# data\ndataset: table-two  # name in data/registry.yml" in out


def test_data_list(epigen):
    code, out, _ = epigen("data", "list", "--kind", "bulk")
    assert code == 0
    assert "table-two" in out
    assert "gene-sets" not in out


SERIES = """!Series_title\t"A series"
!Series_supplementary_file\t"ftp://ftp.ncbi.nlm.nih.gov/geo/series/{short}nnn/{name}/suppl/{name}_RAW.tar"
!Series_supplementary_file\t"ftp://ftp.ncbi.nlm.nih.gov/geo/series/{short}nnn/{name}/suppl/{name}_raw_counts.csv.gz"

!Sample_title{titles}
!Sample_geo_accession{titles}
!series_matrix_table_begin
"ID_REF"{titles}
!series_matrix_table_end
"""


@pytest.fixture
def geo(serve, cache, monkeypatch):
    """Serve a count table as a series of GEO: a gzipped series matrix, which names the gzipped supplementary table."""
    url, folder, _ = serve
    monkeypatch.setenv(downloads.SERVER, url)

    def write(name, table, n_listed):
        at = folder / "ftp.ncbi.nlm.nih.gov" / "geo" / "series" / f"{name[:-3]}nnn" / name
        for part in ("matrix", "suppl"):
            (at / part).mkdir(parents=True, exist_ok=True)
        titles = "".join(f'\t"GSM{i}"' for i in range(n_listed))
        with gzip.open(at / "matrix" / f"{name}_series_matrix.txt.gz", "wt") as stream:
            stream.write(SERIES.format(name=name, short=name[:-3], titles=titles))
        table.to_csv(at / "suppl" / f"{name}_raw_counts.csv.gz")

    return write


def zebrafish():
    """Table II and genes that it does not print, as the series may hold them."""
    table = pd.read_csv(paths.DATA / "table_two.csv", index_col=0)
    others = pd.DataFrame(7, index=["LL1", "LL2"], columns=table.columns)
    return pd.concat([others, table]).rename_axis("ID")


def mouse(n_wild, n_knocked):
    names = [f"S{i}.WT.hip" for i in range(n_wild)] + [f"S{i}.KO.hip" for i in range(n_knocked)]
    counts = np.arange(3 * len(names)).reshape(3, -1)
    genes = pd.Index([f"ENSMUSG0000000000{i}" for i in range(3)], name="ID")
    return pd.DataFrame(counts, genes, names).assign(**{"Gene.name": ["Kcna1", "Gfap", "Sst"]})


def test_fetch_says_what_came_and_what_holds(epigen, geo, cache):
    geo("GSE275235", zebrafish(), 12)
    geo("GSE264537", mouse(12, 16), 28)
    code, out, err = epigen("fetch", "GSE275235", "GSE264537", "GSE275235", "geneformer-v1", "table-two")
    assert code == 0
    assert err == ""
    files, holding = out.partition("8 of 8 files are there; missing: 0\n")[::2]
    counts = cache / "GSE275235" / "counts" / "GSE275235_raw_counts.csv.gz"
    size, digest = counts.stat().st_size, sha256(counts)
    assert f"GSE275235: counts: {counts}, {size}B, SHA-256 {digest[:12]}, downloaded; hash recorded at first" in files
    assert f"table-two: counts: {paths.DATA / 'table_two.csv'}, 1.92kB, SHA-256 b6cdc2f5cbfa, shipped\n" in files
    stated, snippet = holding.split("# Hashes recorded at first sight")
    assert stated.splitlines() == [
        "GSE275235: records of series: 12, stated 12: holds",
        *(f"GSE275235: samples of genotype {level}: 3, stated 3: holds" for level in ("WT", "DM", "5a1", "5b1")),
        "GSE275235: genes of table-two: 20, stated 20: holds",
        "GSE275235: samples of table-two with its counts: 12, stated 12: holds",
        "GSE264537: samples of genotype WT: 12, stated 12..16: holds",
        "GSE264537: samples of genotype KO: 16, stated 12..16: holds",
        "geneformer-v1: records of tokens: 25,426, stated 25426: holds",
    ]
    recorded = yaml.safe_load(snippet.partition("\n")[2])
    assert recorded["GSE275235"]["files"]["counts"] == {"geo": "GSE275235", "sha256": digest}
    assert set(recorded["GSE264537"]["files"]) == {"counts", "series"}
    code, out, _ = epigen("fetch", "GSE275235")
    assert code == 0
    assert f"SHA-256 {digest[:12]}, cache; hash recorded at first sight" in out


def test_what_does_not_hold_or_is_missing_ends_in_exit_1_after_all_else(epigen, geo):
    table = zebrafish()
    table.loc["LL0000013464", "WT1"] += 1
    geo("GSE275235", table.assign(DM4=5), 13)
    code, out, _ = epigen("fetch", "GSE264537", "GSE275235", "table-two")
    assert code == 1
    assert "GSE264537: series: missing: https://ftp.ncbi.nlm.nih.gov/" in out
    assert "GSE264537: counts: missing: https://ftp.ncbi.nlm.nih.gov/" in out
    assert "4 of 6 files are there; missing: 2\n" in out
    assert "GSE275235: records of series: 13, stated 12: DOES NOT HOLD" in out
    assert "GSE275235: samples of genotype DM: 4, stated 3: DOES NOT HOLD" in out
    assert "GSE275235: samples of table-two with its counts: 11, stated 12: DOES NOT HOLD" in out
    assert "GSE264537: samples" not in out


def test_a_table_that_cannot_be_read_is_a_finding(epigen, geo):
    geo("GSE275235", zebrafish().rename(columns=lambda name: f"sample {name}"), 12)
    code, out, _ = epigen("fetch", "GSE275235")
    assert code == 1
    assert (
        "GSE275235: records of series: 12, stated 12: holds\nGSE275235: what is stated of it cannot be checked: " in out
    )


def test_fetch_of_a_profile(epigen, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    (tmp_path / "mine.yml").write_text("epilepsy/02_table_two:\n  main:\n    dataset: table-two\n    also: genotype\n")
    code, out, _ = epigen("fetch", "--profile", "mine", "nothing-sim")
    assert code == 0
    assert out.endswith("2 of 2 files are there; missing: 0\n")


def test_claims_are_listed(epigen):
    code, out, _ = epigen("claims", "--profile", "nothing-was-run")
    assert code == 0
    assert "A5a" in out
    assert "needs" in out


def test_missing_tools_are_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(runs, "missing_tools", lambda planned: {"epilepsy/12_reads_to_counts": ["STAR", "fastp"]})
    monkeypatch.setattr(cli.os, "geteuid", lambda: 1000)
    cli._install_tools([])
    err = capsys.readouterr().err
    assert err == (
        "epigen: epilepsy/12_reads_to_counts is left out: STAR, fastp not installed (make tools, as root or by conda)\n"
    )


def test_reads_that_cannot_be_reached_keep_no_other_run_from_starting(cache, monkeypatch, capsys):
    monkeypatch.setenv(downloads.SERVER, "http://127.0.0.1:9")
    chosen = [run for run in runs.plan_runs("real") if run.reads]
    assert [run.parameters["sheet"] for run in chosen] == ["ggal-gut"]
    cli._check_reads(chosen, by_name=True, elsewhere=True)
    assert capsys.readouterr() == ("", "")


def test_what_reads_need_is_said_before_anything_starts(monkeypatch, capsys):
    from epigen_utils.reads import pipeline

    chosen = [run for run in runs.plan_runs("demo") if run.reads or run.notebook == "epilepsy/02_table_two"]
    asked = []
    monkeypatch.setattr(
        pipeline,
        "check_resources",
        lambda _, folder, label, remote: asked.append(remote) or f"{label}: 6 samples; needs 1.5 GB of memory",
    )
    monkeypatch.setattr(runs.Run, "metrics", paths.RESULTS / "nothing")
    monkeypatch.setattr(runs, "missing_tools", lambda planned: {})
    cli._check_reads(chosen, by_name=False, elsewhere=True)
    assert asked == [True]
    said = "epigen: epilepsy/12_reads_to_counts: 6 samples; needs 1.5 GB of memory\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(runs, "missing_tools", lambda planned: {"epilepsy/12_reads_to_counts": ["STAR"]})
    cli._check_reads(chosen, by_name=False, elsewhere=False)
    assert capsys.readouterr().err == ""
    cli._check_reads(chosen, by_name=True, elsewhere=False)
    assert capsys.readouterr().err == said


def test_what_a_full_disk_refuses_is_one_line(epigen, monkeypatch):
    def write(_):
        raise OSError(errno.ENOSPC, "No space left on device", "a.yml")

    monkeypatch.setattr(cli.parameter_files, "as_yaml", write)
    code, _, err = epigen("params", "epilepsy/02_table_two")
    assert (code, err) == (1, "epigen: a.yml: No space left on device; free space there, and run this again\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "check more.h5ad: takes more memory than there is; give less data"),
        (FileNotFoundError(2, "No such file", "a\nb.csv"), "a\\nb.csv: cannot be read or written (No such file)"),
    ],
)
def test_what_the_machine_refuses_is_one_line(epigen, monkeypatch, error, said):
    def refuse(*_arguments, **_options):
        raise error

    monkeypatch.setattr(cli.own_data, "describe", refuse)
    code, _, err = epigen("check", "more.h5ad")
    assert code == 1
    assert err.startswith(f"epigen: {said}")
    assert err.count("\n") == 1


def test_a_name_that_is_too_long_is_one_line(epigen):
    code, _, err = epigen("check", "x" * 5000 + ".csv")
    assert code == 1
    assert err.count("\n") == 1
    assert "File name too long" in err
