"""From FASTQ to counts with the tools themselves, on reads whose truth is known, and on real ones."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import MIRROR, needs_mirror

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.data import datasets, fetching
from epigen_utils.errors import DataError
from epigen_utils.expression import differential
from epigen_utils.reads import (
    pipeline,
    pipeline_steps,
    read_counts,
    references,
    sample_sheets,
    simulated_reads,
    tool_reports,
)

LOST = [tool for tool in pipeline.TOOLS if not shutil.which(tool)]


needs_tools = pytest.mark.skipif(bool(LOST), reason=f"not installed: {', '.join(LOST)} (make tools)")
#: By Snakemake, a process for each step: the fast tests do the steps in turn, and the chapter 12_reads_to_counts all by the rules.
by_rules = pytest.mark.slow("workflow/reads.smk")

EVERY_KIND = [(library, strand) for strand in ("reverse", "unstranded", "forward") for library in ("paired", "single")]


def simulated(folder, **options):
    """A cohort under a path with a space, and its pipeline."""
    folder = folder / "with a space"
    folder.mkdir()
    sheet = simulated_reads.write_cohort(folder, **options)
    reference = {"genome": str(folder / "genome.fa"), "gtf": str(folder / "annotation.gtf")}
    return sheet, pipeline.plan_pipeline(str(sheet), folder / "out", **reference)


def run_steps(made, *steps):
    """Steps of a pipeline in this process, for each sample where they are of one; what Snakemake does, on small data, without it."""
    of_all = ("index", "merged", "reported")
    for step in steps or ("checked", "quality", "trimmed", "index", "aligned", "counted", "merged", "reported"):
        for sample in [""] if step in of_all else made.by_name:
            pipeline_steps.STEPS[step](made, sample, 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two samples of two kinds of library, step by step."""
    kinds, groups = [("paired", "reverse"), ("single", "unstranded")], {"control": 1, "case": 1}
    sheet, made = simulated(tmp_path_factory.mktemp("two"), kinds=kinds, groups=groups, n_fragments=4000)
    run_steps(made)
    return sheet, made


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six samples, one of each kind of library, by the rules."""
    sheet, made = simulated(tmp_path_factory.mktemp("kinds"), kinds=EVERY_KIND, n_fragments=8000)
    pipeline.run_pipeline(made)
    return sheet, made


@pytest.fixture(scope="module", params=["two", pytest.param("six", marks=by_rules)])
def finished(request):
    return request.getfixturevalue(request.param)


@needs_tools
def test_counts_are_those_that_were_planted_for_every_kind_of_library(finished):
    sheet, made = finished
    truth = pd.read_csv(sheet.parent / "truth.csv", index_col="gene")
    found = read_counts.agreement_with_truth(read_counts.counts_with_truth(made, truth)).set_index("sample")
    assert len(found) == len(made.samples)
    assert (found["correlation"] > 0.99).all()
    assert (found["found"] >= 0.95).all()
    assert (found["found"] <= 1).all()


@needs_tools
def test_strandedness_is_found(finished):
    sheet, made = finished
    kinds = pd.read_csv(sheet.parent / "kinds.csv", index_col="sample")
    samples = tool_reports.sample_summary(made).set_index("sample")
    assert samples["strandedness"].to_dict() == kinds["strandedness"].to_dict()
    assert samples["library"].to_dict() == kinds["library"].to_dict()


@needs_tools
def test_a_row_a_sample_of_what_every_tool_says(finished):
    _, made = finished
    table = tool_reports.sample_summary(made)
    for parts in (["unique", "multiple", "unmapped"], ["assigned", "no exon", "ambiguous", "multimapping", "other"]):
        np.testing.assert_allclose(table[parts].sum(axis=1), 1, atol=1e-9)
    assert (table["unmapped"].between(0.002, 0.02)).all(), "one read in a hundred is of another genome"
    assert table["with adapter"].between(0.005, 0.06).all()
    assert (table["kept"] > 0.98).all()
    unstranded = table["strandedness"] == "unstranded"
    assert table.loc[unstranded, "ambiguous"].min() > table.loc[~unstranded, "ambiguous"].max()
    single = table["library"] == "single"
    assert table.loc[single, "duplicates"].min() > table.loc[~single, "duplicates"].max()


@needs_tools
def test_the_counts_are_a_data_set(finished):
    _, made = finished
    adata = datasets.load(made.counts, group="group", donor="donor", reference="control", task="counts")
    n = len(made.samples)
    assert adata.shape == (n, 80)
    assert adata.obs["group"].value_counts().to_dict() == {"control": n // 2, "case": n // 2}
    np.testing.assert_allclose(adata.layers["tpm"].sum(axis=1), 1e6)
    assert (adata.var["length"] > 300).all()
    text = pd.read_csv(made.root / "counts.tsv", sep="\t", index_col="gene_id")
    np.testing.assert_array_equal(text[adata.obs_names].T, adata.layers["counts"])
    assert list(text.columns[:2]) == ["gene_name", "length"]


@needs_tools
@by_rules
def test_the_counts_go_straight_into_the_expression_chapters(six):
    _, made = six
    adata = datasets.load(made.counts, group="group", donor="donor", reference="control")
    found = differential.deseq(adata, design="~group", contrast=("group", "case", "control"))
    changes = pd.read_csv(made.counts.parents[1] / "changes.csv", index_col="gene")["case"]
    called = found.index[found["padj"] < 0.05]
    assert len(called) >= 4
    assert (np.sign(found.loc[called, "log2FoldChange"]) == np.sign(changes[called])).mean() > 0.8


@needs_tools
def test_what_was_run_is_recorded(finished):
    _, made = finished
    records = tool_reports.step_records(made)
    assert set(records["step"]) == {"checked", "fastqc", "fastp", "index", "align", "count", "merge", "multiqc"}
    of_samples = ["checked", "fastqc", "fastp", "align", "count"]
    assert (records.groupby("step").size()[of_samples] == len(made.samples)).all()
    said = "\n".join(records["commands"])
    assert str(made.root) not in said
    assert "--twopassMode Basic" in said
    assert "featureCounts -T" in said
    versions = tool_reports.tool_versions(made).set_index("tool")["version"]
    assert set(versions.index) == set(pipeline.TOOLS)
    assert versions.str.fullmatch(r"\d+\.\d+[\w.]*").all()
    assert not list(made.root.glob("rooms/*"))
    assert tool_reports.share_complete_in_fastqc(made) == 1.0


@needs_tools
@by_rules
def test_what_is_temporary_is_gone(six):
    _, made = six
    assert made.counts.exists()
    assert not list(made.root.glob("trimmed/*"))


@needs_tools
def test_multiqc_has_every_tool_and_every_sample(finished):
    _, made = finished
    page = made.report.read_text()
    for tool in ("fastqc", "fastp", "star", "samtools", "featurecounts"):
        assert re.search(rf'id="mqc-module-section-{tool}', page, re.I), tool
    rows = re.findall(r'<tr><th class="rowheader" data-original-sn="([^"]+)"', page)
    assert set(made.by_name) <= set(rows), rows


def assert_no_index_was_made(made):
    assert "genomeGenerate" not in "".join(tool_reports.step_records(made)["commands"])
    assert not (made.root / "index").exists()


@needs_tools
@by_rules
def test_an_index_made_before_is_used(six, tmp_path):
    _, made = six
    again = replace(made, folder=str(tmp_path / "again"), index=str(made.star_index), samples=made.samples[:1])
    pipeline.run_pipeline(again)
    assert_no_index_was_made(again)
    first = made.samples[0].name
    counts = [pd.read_csv(one.root / "counts.tsv", sep="\t")[first] for one in (made, again)]
    assert counts[0].equals(counts[1])


def test_a_folder_without_an_index_is_refused(tmp_path):
    sheet = simulated_reads.write_cohort(tmp_path, groups={"a": 1}, n_fragments=50, n_genes=8)
    reference = {"genome": str(tmp_path / "genome.fa"), "gtf": str(tmp_path / "annotation.gtf")}
    with pytest.raises(DataError, match="is no STAR index"):
        pipeline.plan_pipeline(str(sheet), tmp_path, index=str(tmp_path), **reference)


@needs_tools
def test_exchanged_mates_and_an_index_made_before_step_by_step(two, tmp_path):
    """A stranded library whose mates are exchanged, on the index of another run: stopped by what the sheet says, else counted rightly."""
    sheet, made = two
    sample = next(sample for sample in made.samples if sample.paired)
    swapped = replace(sample, fastq=sample.fastq[::-1], strandedness="reverse")
    stated = replace(made, folder=str(tmp_path / "swapped"), index=str(made.star_index), samples=(swapped,))
    # Their names tell the mates, by which the check would refuse them; it is that of the other run.
    shutil.copytree(made.root / "checked", stated.root / "checked")
    run_steps(stated, "trimmed", "index")
    assert_no_index_was_made(stated)
    with pytest.raises(
        DataError, match=r"reads map to genome\.fa, which must be 100%; give the genome of this species"
    ):
        run_steps(replace(stated, least_mapped=1.0), "aligned")
    assert not list(stated.root.glob("aligned/*"))
    run_steps(stated, "aligned")
    with pytest.raises(
        DataError, match=r"on the strand of the RNA: forward, and the sheet says reverse; correct the sheet"
    ):
        run_steps(stated, "counted")
    assert not list(stated.root.glob("counted/*"))
    found = replace(stated, samples=(replace(swapped, strandedness="auto"),))
    run_steps(found, "counted", "merged")
    truth = pd.read_csv(sheet.parent / "truth.csv", index_col="gene")[[sample.name]]
    assert read_counts.agreement_with_truth(read_counts.counts_with_truth(found, truth))["found"].min() > 0.95


@by_rules
@needs_tools
@needs_mirror
def test_real_pairs_map_to_one_place(tmp_path, cache, monkeypatch):
    """Chicken gut, 2,937 pairs: rnaseq-nf's own data, of which STAR maps 96.1% to one place. The mirror is named from here."""
    monkeypatch.setattr(paths, "MIRROR", os.path.relpath(MIRROR))
    made = pipeline.plan_pipeline("ggal-gut", tmp_path / "out")
    pipeline.run_pipeline(made)
    row = tool_reports.sample_summary(made).iloc[0]
    assert row["reads"] == 2937
    assert row["unique"] == pytest.approx(0.96, abs=0.01)
    assert set(anndata.read_h5ad(made.counts).var["symbol"]) == set(
        pd.read_csv(made.root / "counts.tsv", sep="\t")["gene_name"]
    )


RUN = "import sys; from epigen_utils.reads import pipeline; pipeline.run_pipeline(pipeline.Pipeline.read(sys.argv[1]), cores=1)"


@by_rules
@needs_tools
def test_a_kill_in_the_second_alignment_repeats_that_step_alone(tmp_path):
    _, made = simulated(tmp_path, kinds=[("paired", "reverse")], groups={"a": 2}, n_fragments=20_000)
    whole = replace(made, folder=str(tmp_path / "whole"))
    command = [sys.executable, "-c", RUN, str(made.save())]
    started = subprocess.Popen(command, cwd=paths.ROOT, stderr=subprocess.DEVNULL)

    def in_the_second():
        done = {path.stem for path in made.root.glob("aligned/*.bam")}
        return done and {path.name.removeprefix("align.") for path in made.root.glob("rooms/align.*")} - done

    end = time.monotonic() + 120
    while not in_the_second():
        assert started.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
    started.kill()
    started.wait()
    first = next(made.root.glob("aligned/*.bam")).stem
    second = ({sample.name for sample in made.samples} - {first}).pop()
    assert not list(made.root.glob(f"aligned/{second}*"))
    assert not made.counts.exists()
    before = {path.name: path.stat().st_mtime_ns for path in made.root.glob("records/*.json")}
    assert f"align.{first}.json" in before
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    after = {path.name: path.stat().st_mtime_ns for path in made.root.glob("records/*.json")}
    assert {name for name, when in before.items() if after[name] != when} == set(), "a finished step was done again"
    assert f"align.{second}.json" in set(after) - set(before)
    pipeline.run_pipeline(whole)
    for name in ("counts.tsv", "tpm.tsv"):
        assert (made.root / name).read_bytes() == (whole.root / name).read_bytes()


def said_by(made):
    with pytest.raises(DataError) as caught:
        pipeline.run_pipeline(made)
    assert "\n" not in str(caught.value)
    assert not made.counts.exists()
    assert not (made.root / "counts.tsv").exists()
    return str(caught.value)


@by_rules
@needs_tools
def test_a_truncated_file_stops_with_its_name(tmp_path):
    sheet, made = simulated(tmp_path, kinds=[("paired", "reverse")], groups={"a": 1}, n_fragments=600)
    path = sheet.parent / "a_1_2.fq.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    assert re.search(
        r"a_1_2\.fq\.gz: cannot be read after read \d+ \(.* ended before .*\); fetch it again", said_by(made)
    )


@by_rules
@needs_tools
def test_exchanged_mates_of_a_stranded_library_stop_or_are_counted_rightly(tmp_path):
    """Names that tell no mate; the sheet that states the strand stops, the one that leaves it open counts the same fragments."""
    sheet, made = simulated(tmp_path, kinds=[("paired", "reverse")], groups={"a": 1}, n_fragments=2000)
    for mate in (1, 2):
        path = sheet.parent / f"a_1_{mate}.fq.gz"
        text = subprocess.run(["gunzip", "-c", path], capture_output=True, check=True).stdout
        packed = subprocess.run(
            ["gzip", "-c"], input=re.sub(rb" [12]:N:0:ACGT", b"", text), capture_output=True, check=True
        )
        path.write_bytes(packed.stdout)
    row = "sample,fastq_1,fastq_2,strandedness\na_1,a_1_2.fq.gz,a_1_1.fq.gz,{}\n"
    reference = {"genome": made.fasta, "gtf": made.gtf}
    sheet.write_text(row.format("reverse"))
    stated = pipeline.plan_pipeline(str(sheet), tmp_path / "stated", **reference)
    assert re.search(
        r"sample a_1: \d+% of its [\d,]+ fragments in genes are on the strand of the RNA: forward, and the sheet says reverse; "
        "correct the sheet, or swap fastq_1 and fastq_2",
        said_by(stated),
    )
    sheet.write_text(row.format("auto"))
    found = pipeline.plan_pipeline(str(sheet), tmp_path / "open", **reference)
    pipeline.run_pipeline(found)
    truth = pd.read_csv(sheet.parent / "truth.csv", index_col="gene")
    assert read_counts.agreement_with_truth(read_counts.counts_with_truth(found, truth))["found"].min() > 0.95


@by_rules
@needs_tools
def test_the_wrong_genome_and_the_wrong_annotation(tmp_path):
    sheet, made = simulated(tmp_path, kinds=[("single", "reverse")], groups={"a": 1}, n_fragments=600)
    other = tmp_path / "other"
    other.mkdir()
    fasta, gtf = simulated_reads.write_reference(simulated_reads.simulate_genome(n_genes=8, seed=99), other)
    wrong = pipeline.plan_pipeline(str(sheet), tmp_path / "wrong", genome=str(fasta), gtf=str(gtf))
    assert re.search(
        r"sample a_1: \d\.\d% of its \d+ reads map to genome\.fa, which must be 10%; give the genome of this species",
        said_by(wrong),
    )
    gtf.write_text(gtf.read_text().replace("sim1", "chr1").replace("sim2", "chr2"))
    mixed = pipeline.plan_pipeline(str(sheet), tmp_path / "mixed", genome=made.fasta, gtf=str(gtf))
    assert "its sequences (chr1, ...) are none of genome.fa (sim1, ...)" in said_by(mixed)


def test_what_is_refused_at_the_door(tmp_path, monkeypatch):
    (tmp_path / "r.fastq").write_text("@r0\nACGT\n+\nIIII\n")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("sample,fastq_1\na,r.fastq\n")
    fasta, gtf = simulated_reads.write_reference(simulated_reads.simulate_genome(n_genes=4), tmp_path)
    reference = {"genome": str(fasta), "gtf": str(gtf)}
    with pytest.raises(DataError, match="which genome"):
        pipeline.plan_pipeline(str(sheet), tmp_path)
    with pytest.raises(DataError, match="aligner 'starr'; did you mean 'star'"):
        pipeline.plan_pipeline(str(sheet), tmp_path, aligner="starr", **reference)
    with pytest.raises(DataError, match="aligner parabricks: needs an index made by the version of STAR"):
        pipeline.plan_pipeline(str(sheet), tmp_path, aligner="parabricks", **reference)
    with pytest.raises(DataError, match="airway: is bulk, not reads"):
        pipeline.plan_pipeline("airway", tmp_path)
    with pytest.raises(DataError, match="reads-sim: brings its own genome; leave mm10 out"):
        pipeline.plan_pipeline("reads-sim", tmp_path, genome="mm10")
    with pytest.raises(DataError, match=r"reads_dir .*: no counts\.h5ad; leave reads_dir empty"):
        pipeline.finished_pipeline(str(sheet), str(tmp_path / "empty"), str(tmp_path), **reference)
    with pytest.raises(DataError, match="reads-ggal: says of no sample which files are its own; write a sample sheet"):
        pipeline.plan_pipeline("reads-ggal", tmp_path)
    given, out = {"sheet": str(sheet)} | reference, tmp_path / "out"
    monkeypatch.setattr(pipeline.shutil, "which", lambda tool: None if tool == "STAR" else tool)
    with pytest.raises(DataError, match=r"mine: STAR not installed \(make tools, as root or by conda\)"):
        pipeline.check_resources(given, out, "mine")
    said = "mine: 1 samples on genome.fa; needs 1.5 GB of memory and 0.0 GB of disk"
    assert pipeline.check_resources(given, out, "mine", remote=True) == said
    monkeypatch.setattr(pipeline.shutil, "which", lambda tool: None if tool == "pbrun" else tool)
    assert pipeline.check_resources(given, out, "mine") == said
    (tmp_path / "SA").touch()
    with pytest.raises(DataError, match="mine: pbrun not installed .run inside NVIDIA's container with a GPU"):
        pipeline.check_resources(given | {"aligner": "parabricks", "index": str(tmp_path)}, out, "mine")


def test_a_machine_too_small_for_a_known_genome_is_refused_before_it_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "r.fastq").write_text("@r0\nACGT\n+\nIIII\n")
    (tmp_path / "sheet.csv").write_text("sample,fastq_1\na,r.fastq\n")
    monkeypatch.setattr(references.psutil, "virtual_memory", lambda: types.SimpleNamespace(total=8e9))
    monkeypatch.setattr(fetching, "fetch", lambda name: pytest.fail("it was fetched"))
    given = {"sheet": str(tmp_path / "sheet.csv"), "genome": "mm10"}
    with pytest.raises(DataError, match=r"mine: needs 28\.7 GB of memory, this machine has 8\.0"):
        pipeline.check_resources(given, tmp_path / "out", "mine")
    with pytest.raises(DataError, match=r"needs 28\.7 GB of memory"):
        pipeline.finished_pipeline(given["sheet"], "", str(tmp_path), genome="mm10")
    # A cluster has other machines; what is asked of the disk is asked of this one.
    assert "mine: 1 samples on mm10" in pipeline.check_resources(given, tmp_path / "out", "mine", remote=True)


def test_simulated_reads_are_made_once(cache, monkeypatch):
    calls = []
    monkeypatch.setattr(
        simulated_reads, "write_cohort", lambda folder, **options: calls.append(options) or (folder / "x").touch()
    )
    assert pipeline.simulated_folder("reads-sim") == pipeline.simulated_folder("reads-sim") == paths.CACHE / "reads-sim"
    assert len(calls) == 1
    (cache / "reads-sim" / "made_by").write_text("another version")
    pipeline.simulated_folder("reads-sim")
    assert len(calls) == 2
    assert pipeline.true_counts("airway") is None
    assert pipeline.true_counts("mine.csv") is None


@pytest.fixture
def own_reads(tmp_path):
    """Six samples of one's own, as a build is told of them."""
    sheet = simulated_reads.write_cohort(tmp_path, groups={"control": 3, "case": 3}, n_fragments=50, n_genes=8)
    return {"sheet": str(sheet), "genome": str(tmp_path / "genome.fa"), "gtf": str(tmp_path / "annotation.gtf")}


def test_a_sheet_gives_the_book_a_part_on_its_counts(own_reads):
    """The reads' rules, then every chapter that takes a data set, on what they make."""
    own = own_reads
    planned = {run.key: run for run in runs.plan_runs("demo", own | {"reference": "control"})}
    mine = planned["epilepsy/12_reads_to_counts--sheet"]
    counts = str(mine.reads / "counts.h5ad")
    chapter = planned["epilepsy/03_differential_expression--sheet"]
    assert chapter.parameters["dataset"] == counts
    assert {key: chapter.parameters[key] for key in ("group", "donor", "reference")} == {
        "group": "group",
        "donor": "donor",
        "reference": "control",
    }
    assert planned["epilepsy/01_datasets--sheet"].parameters["cohorts"] == [counts]
    assert "epilepsy/07_classification--sheet" in planned
    assert "epilepsy/11_attention--sheet" not in planned, "three of a group cannot be halved"


@pytest.mark.slow("Snakefile", "workflow/reads.smk", "notebooks/profiles/")
@needs_tools
def test_a_sheet_s_jobs_by_the_snakefile_s_own_word(own_reads):
    own = own_reads
    planned = {run.key: run for run in runs.plan_runs("demo", own)}
    chapter = planned["epilepsy/03_differential_expression--sheet"]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--cores", "2"]
    command += ["--config", "profile=demo", f"own={json.dumps([own])}", "--", str(chapter.metrics)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    jobs = re.findall(r"^(?:local)?rule (\w+):", done.stdout + done.stderr, re.M)
    prefix = "epilepsy_12_reads_to_counts__sheet_"
    assert sorted(job for job in jobs if job.startswith(prefix)) == sorted(
        [f"{prefix}{step}" for step in ("align", "checked", "count") for _ in range(6)]
        + [f"{prefix}{step}" for step in ("index", "merge")]
        + [f"{prefix}fastp_{library}" for library, _ in simulated_reads.LIBRARIES]
    )
    assert "epilepsy_03_differential_expression__sheet" in jobs


def test_without_two_groups_there_are_only_counts(tmp_path):
    sheet = simulated_reads.write_cohort(tmp_path, groups={"a": 2}, n_fragments=50, n_genes=8)
    own = {"sheet": str(sheet), "genome": str(tmp_path / "genome.fa"), "gtf": str(tmp_path / "annotation.gtf")}
    assert [run.key for run in runs.plan_runs("demo", own) if run.name == "sheet"] == [
        "epilepsy/12_reads_to_counts--sheet"
    ]


def planned(sheet, reference, folder):
    """Jobs that Snakemake would do, as ``rule sample``."""
    made = pipeline.plan_pipeline(str(sheet), folder, **reference)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.READS_RULES), "--directory", str(folder)]
    command += ["--config", f"pipeline={made.save()}", "--dry-run", "--cores", "1"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    blocks = re.split(r"\n(?=(?:local)?rule )", done.stdout + done.stderr)
    names = [(re.match(r"(?:local)?rule (\w+):", block), re.search(r"sample=(\S+)", block)) for block in blocks]
    return sorted(
        f"{rule[1]} {sample[1] if sample else ''}".strip() for rule, sample in names if rule and rule[1] != "all"
    )


@by_rules
@needs_tools
def test_what_a_changed_sheet_does_again(tmp_path):
    """A sample more, a donor mended, another strandedness: no job that does not depend on it, the index least of all."""
    sheet = simulated_reads.write_cohort(
        tmp_path, groups={"a": 3}, kinds=[("paired", "reverse")], n_fragments=600, n_genes=12
    )
    reference = {"genome": str(tmp_path / "genome.fa"), "gtf": str(tmp_path / "annotation.gtf")}
    rows = pd.read_csv(sheet, dtype=str)
    out = tmp_path / "out"
    rows.iloc[:2].to_csv(sheet, index=False)
    pipeline.run_pipeline(pipeline.plan_pipeline(str(sheet), out, **reference))
    assert planned(sheet, reference, out) == []
    rows.to_csv(sheet, index=False)
    one = [f"{rule} a_3" for rule in ("align", "checked", "count", "fastp_paired", "fastqc_paired")]
    assert planned(sheet, reference, out) == sorted([*one, "merge", "multiqc"])
    rows = rows.iloc[:2].assign(donor=["x", "y"])
    rows.to_csv(sheet, index=False)
    assert planned(sheet, reference, out) == ["merge", "multiqc"]
    rows.assign(strandedness=["reverse", "auto"]).to_csv(sheet, index=False)
    assert planned(sheet, reference, out) == ["count a_1", "merge", "multiqc"]
    shorter = reference | {"adapter": "AGATCGGAAG"}
    rows.to_csv(sheet, index=False)
    assert "index" not in planned(sheet, shorter, out)


def test_hundreds_of_samples_fit_on_a_command_line(tmp_path):
    samples = tuple(
        sample_sheets.Sample(f"sample_{i}", tuple(f"/data/run/{'x' * 60}/{i}_{mate}.fastq.gz" for mate in (1, 2)))
        for i in range(800)
    )
    for name in ("g.fa", "g.gtf"):
        (tmp_path / name).touch()
    made = pipeline.Pipeline(str(tmp_path / "out"), samples, str(tmp_path / "g.fa"), str(tmp_path / "g.gtf"))
    assert len(str(made.save())) < 1000
    assert pipeline.Pipeline.read(made.save()) == made


def test_a_job_has_as_many_threads_as_its_files_are_worth(tmp_path):
    _, made = simulated(tmp_path)
    assert made.threads(8) == 1
    large = tmp_path / "large.fa"
    with open(large, "wb") as stream:
        stream.truncate(3 * pipeline.BYTES_A_THREAD + 1)
    assert made.threads(8, [large, made.fasta]) == 4
    assert made.threads(2, [large]) == 2
