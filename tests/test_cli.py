import sys

import pytest

from epigen_utils import cli, paths
from epigen_utils.book import runs


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
    assert out.strip() == (
        f"{counts}: good, 4 samples x 3 genes; condition: a 2, b 2; genes in rows: the others are the sample table's ids"
    )
    code, out, err = epigen("check", counts, "--metadata", samples, "--group", "tissue")
    assert code == 1
    assert err == f"epigen: {counts}: obs: no group column 'tissue'; name one that is there (columns: condition)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "lost.h5ad"], "lost.h5ad: no such file"),
        (["build", "--group", "x"], "go with --dataset"),
        (["build", "--only", "epilepsy/02_tabletwo"], "did you mean 'epilepsy/02_table_two'?"),
        (["build", "--genome", "mm10"], "options about reads go with --sheet; give it"),
        (["build", "--sheet", "lost.csv", "--genome", "mm10"], "lost.csv: no such sample sheet; check the path"),
        (["build", "--profile", "dmo"], "there are demo, paper, real"),
        (["data", "fetch", "airwy"], "did you mean 'airway'?"),
        (["data", "list", "--kind", "bulks"], "did you mean 'bulk'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(epigen, arguments, said):
    code, _, err = epigen(*arguments)
    assert code == 1
    assert said in err
    assert err.startswith("epigen: ")
    assert err.count("\n") == 1


def test_data_list_and_fetch(epigen):
    code, out, _ = epigen("data", "list", "--kind", "bulk")
    assert code == 0
    assert "table-two" in out
    assert "gene-sets" not in out
    code, out, _ = epigen("data", "fetch", "table-two")
    assert code == 0
    assert str(paths.DATA / "table_two.csv") in out


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
