"""Kinds of files that the project reads, for `malformed`: each with an example, its door, and damages of its own."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import malformed_builds as builds
import malformed_containers as containers
import malformed_examples as examples
import malformed_tables as tables
import malformed_texts as texts
from malformed import EITHER, SAME_OR_REFUSED, Kind

from epigen_utils.data import genes
from epigen_utils.reads import tool_reports


def kinds() -> list[Kind]:
    """All kinds, each with its example, door and damages."""
    text = {"is_text": True}
    of_programs = text | {"is_of_programs": True}

    def table(name: str, sep: str) -> Kind:
        content = examples.as_csv(examples.count_rows(), sep)
        return Kind(
            name.rpartition(".")[0] + f" .{name.rpartition('.')[2]}",
            lambda folder: examples.with_samples(folder, name, content),
            examples.check_bulk,
            tables.table_damages(sep),
            oracle=tables.table_oracle(sep),
            **text,
        )

    def samples(name: str, content: bytes, special: Callable, **more: object) -> Kind:
        return Kind(
            f"sample table .{name.rpartition('.')[2]}",
            lambda folder: tables.with_counts(folder, name, content),
            tables.check_sample_table,
            special,
            **more,
        )

    def sheet(name: str, rows: list[list[str]], sep: str) -> Kind:
        file = f"{name}.{'csv' if sep == ',' else 'tsv'}"
        return Kind(
            name,
            lambda folder: texts.write_sheet(folder, file, examples.as_csv(rows, sep), texts.SHEET_FILES),
            texts.plan_reads,
            texts.sheet_damages(rows, sep),
            **text,
        )

    def file(
        name: str, content: bytes, door: Callable, special: Callable = lambda path, rng: [], *, at: str, **more
    ) -> Kind:
        return Kind(name, lambda folder: [(folder / at).write_bytes(content), folder / at][1], door, special, **more)

    counted = tuple(f"counted/{name}.txt" for name in examples.SAMPLES[::5])
    star = tuple(f"counted/{name}ReadsPerGene.out.tab" for name in examples.SAMPLES[::5])
    tenx = ("tenx/features.tsv", "tenx/barcodes.tsv", "tenx/matrix.mtx")
    return [
        table("counts.csv", ","),
        table("counts.tsv", "\t"),
        Kind(
            "counts .csv.gz",
            lambda folder: examples.with_samples(
                folder, "counts.csv.gz", gzip.compress(examples.as_csv(examples.count_rows()), mtime=0)
            ),
            examples.check_bulk,
            tables.gzip_damages,
            is_checked=True,
        ),
        Kind(
            "counts .xlsx",
            lambda folder: examples.with_samples(folder, "counts.xlsx", examples.as_workbook(examples.count_rows())),
            examples.check_bulk,
            tables.workbook_damages,
            is_checked=True,
        ),
        Kind(
            "names of files",
            lambda folder: examples.with_samples(folder, "counts.csv", examples.as_csv(examples.count_rows())),
            tables.check_any,
            tables.odd_paths,
            is_special_alone=True,
        ),
        Kind(
            "featureCounts",
            lambda folder: examples.with_samples(folder, "counts.txt", tables.feature_counts()),
            examples.check_bulk,
            **text,
        ),
        Kind(
            "salmon merged",
            lambda folder: examples.with_samples(folder, "salmon.merged.gene_counts.tsv", tables.merged_by_salmon()),
            lambda path: examples.check_bulk(path, "--round-counts"),
            **text,
        ),
        Kind("HTSeq folder", tables.write_htseq, examples.check_bulk, parts=counted, **of_programs),
        Kind("STAR folder", tables.write_star, examples.check_bulk, parts=star, **of_programs),
        Kind(
            "salmon or kallisto folder",
            tables.write_transcripts,
            examples.check_bulk,
            tables.folders_of_transcripts,
            is_special_alone=True,
        ),
        samples(
            "samples.csv",
            examples.as_csv(examples.sample_rows()),
            tables.samples_damages,
            oracle=tables.samples_oracle,
            **text,
        ),
        samples("samples.xlsx", examples.as_workbook(examples.sample_rows()), lambda path, rng: [], is_checked=True),
        samples(
            "samples.json",
            json.dumps(
                [dict(zip(("sample", "condition"), row, strict=True)) for row in examples.sample_rows()[1:]]
            ).encode(),
            tables.json_damages,
            **text,
        ),
        samples("samples.parquet", tables.as_parquet(examples.sample_rows()), lambda path, rng: []),
        Kind(
            "bulk .h5ad",
            lambda folder: containers.write_h5ad(containers.bulk_adata(), folder, "bulk.h5ad"),
            lambda path: examples.check(path, "--group", "condition"),
            containers.h5ad_damages,
        ),
        Kind(
            "cells .h5ad",
            lambda folder: containers.write_h5ad(containers.cell_adata(), folder, "cells.h5ad"),
            examples.check_cells,
            containers.sparse_damages("X"),
        ),
        Kind(
            "cells .h5ad in parts",
            lambda folder: containers.write_h5ad(containers.cell_adata(), folder, "cells.h5ad"),
            containers.in_parts,
            containers.sparse_damages("X"),
        ),
        Kind("cells 10x .h5", containers.write_10x_h5, containers.check_with_table, containers.tenx_h5_damages),
        Kind("cells .loom", containers.write_loom, examples.check_cells, containers.loom_damages),
        Kind(
            "cells .zarr",
            containers.write_zarr,
            examples.check_cells,
            containers.zarr_damages,
            parts=containers.zarr_parts(Path()),
            if_damaged=EITHER,
        ),
        Kind(
            "cells .zarr.zip",
            lambda folder: containers.write_zarr(folder, "cells.zarr.zip"),
            examples.check_cells,
            is_checked=True,
        ),
        Kind(
            "cells 10x folder", containers.write_10x, containers.check_with_table, containers.tenx_damages, parts=tenx
        ),
        file(
            "cells .rds",
            containers.r_experiment(),
            examples.check_cells,
            containers.rds_damages,
            at="cells.rds",
            is_checked=True,
        ),
        Kind("orthologs .rda", containers.write_rda, containers.homologene, is_checked=True),
        file(
            "gene sets .gmt",
            texts.GMT,
            genes.read_gmt,
            texts.gmt_damages,
            at="sets.gmt",
            oracle=texts.gmt_oracle,
            **text,
        ),
        Kind("FASTA", texts.write_reference, texts.check_fasta, texts.fasta_damages, **of_programs),
        Kind(
            "GTF",
            lambda folder: texts.write_reference(folder).with_name("genes.gtf"),
            texts.check_gtf,
            texts.gtf_damages,
            **of_programs,
        ),
        Kind(
            "FASTQ",
            lambda folder: texts.write_reads(folder, "a.fastq"),
            texts.check_reads,
            texts.reads_damages,
            **of_programs,
        ),
        Kind(
            "FASTQ .gz",
            lambda folder: texts.write_reads(folder, "a.fastq.gz"),
            texts.check_reads,
            texts.reads_damages,
            is_checked=True,
        ),
        sheet("sample sheet", texts.SHEET_ROWS, ","),
        sheet("table of runs, SRA", texts.SRA_ROWS, ","),
        sheet("table of runs, ENA", texts.ENA_ROWS, "\t"),
        Kind(
            "list of data sets .yml", builds.write_batch, builds.plan_batch, builds.batch_damages, most_lines=3, **text
        ),
        Kind("profile .yml", builds.write_profile, builds.plan_profile, builds.profile_damages, **text),
        Kind("metrics.json", builds.write_metrics, builds.judge, builds.metrics_damages, may_be_absent=True, **text),
        Kind("vocabulary.json", builds.write_vocabulary, builds.load_vocabulary, builds.vocabulary_damages, **text),
        Kind(
            "vocabulary of pickles",
            builds.write_pickles,
            builds.load_pickles,
            builds.pickles_damages,
            parts=("published/token_dictionary_gc30M.pkl", "published/gene_median_dictionary_gc30M.pkl"),
        ),
        Kind(
            "checkpoint folder",
            builds.write_checkpoint,
            builds.load_checkpoint,
            builds.checkpoint_damages,
            parts=("model/config.json", "model/model.safetensors", "model/vocabulary.json"),
        ),
        Kind(
            "encoded cells",
            builds.write_encoded,
            builds.load_encoded,
            builds.encoded_damages,
            parts=tuple(
                f"encoded/{name}"
                for name in ("state.json", "dataset_info.json", "vocabulary.json", "data-00000-of-00001.arrow")
            ),
            if_damaged=SAME_OR_REFUSED,
        ),
        file(
            "series matrix",
            texts.SERIES,
            texts.read_series,
            texts.series_damages,
            at="GSE1_series_matrix.txt",
            **of_programs,
        ),
        file(
            "series matrix .gz",
            gzip.compress(texts.SERIES, mtime=0),
            texts.read_series,
            texts.series_damages,
            at="GSE1_series_matrix.txt.gz",
            is_checked=True,
        ),
        file(
            "annotation of probes",
            texts.ANNOTATION,
            texts.read_annotation,
            texts.annotation_damages,
            at="GPL1.annot",
            **of_programs,
        ),
        file("STAR log", texts.STAR_LOG, tool_reports.parse_star_log, at="a.Log.final.out", **of_programs),
        file("featureCounts summary", texts.ASSIGNED, tool_reports.parse_assignment, at="a.txt.summary", **of_programs),
        file("samtools stats", texts.STATS, tool_reports.duplicate_share, at="a.stats.txt", **of_programs),
        file("FastQC archive", texts.fastqc_archive(), texts.read_fastqc, at="a_1_fastqc.zip", is_checked=True),
        Kind(
            "names on a page",
            lambda folder: examples.with_samples(folder, "counts.csv", examples.as_csv(examples.count_rows())),
            tables.page_of,
            tables.page_damages,
            is_special_alone=True,
        ),
    ]
