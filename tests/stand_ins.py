"""Stand-ins of what profile `paper` reads and this project cannot ship: the shape, names and quirks of the originals.

The numbers are simulated, apart from Table II. The originals are described in ``data/registry.yml`` and, for the two series,
by what paper A and its published code say of their files.
"""

import gzip
import http.server
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import datasets as arrow
import numpy as np
import pandas as pd
import torch
from conftest import Hub
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel
from transformers.utils import logging
from world import ORIGINALS, Handler, lay_out, serving

from epigen_utils import paths
from epigen_utils.data import datasets, downloads, genes, geo, registry, simulated_bulk, simulated_cells
from epigen_utils.files import digest
from epigen_utils.geneformer.encoding import RankValueEncoder
from epigen_utils.models import presets
from epigen_utils.reads import simulated_reads

SERIES = """!Series_title\t"{title}"
!Series_geo_accession\t"{name}"
!Series_supplementary_file\t"ftp://ftp.ncbi.nlm.nih.gov/geo/series/{short}nnn/{name}/suppl/{name}_RAW.tar"
!Series_supplementary_file\t"ftp://ftp.ncbi.nlm.nih.gov/geo/series/{short}nnn/{name}/suppl/{name}_raw_counts.csv.gz"
!Series_relation\t"BioProject: https://www.ncbi.nlm.nih.gov/bioproject/PRJNA{number}"
!Series_relation\t"SRA: https://www.ncbi.nlm.nih.gov/sra?term=SRP{number}"

!Sample_title\t{titles}
!Sample_geo_accession\t{accessions}
!Sample_source_name_ch1\t{sources}
!Sample_characteristics_ch1\t{genotypes}
!series_matrix_table_begin
"ID_REF"\t{accessions}
!series_matrix_table_end
"""
#: Individuals of human_dcm_hcm_nf, in paper B's parts of 29, 5 and 5.
PARTS = {
    "train": "1447 1600 1462 1558 1300 1508 1358 1678 1561 1304 1610 1430 1472 1707 1726 1504 1425 1617 1631 1735 1582 1722 "
    "1622 1630 1290 1479 1371 1549 1515",
    "eval": "1422 1510 1539 1606 1702",
    "test": "1437 1516 1602 1685 1718",
}
#: Expressed genes of a bulk stand-in.
N_GENES = 3000


def write_world(folder: Path) -> None:
    """Write the files of other servers than a model hub, laid out as `downloads.SERVER` says."""
    write_series(folder)
    _write_probes(folder)


def write_series(folder: Path) -> None:
    """Write both series of GEO, and the reads of a few of their samples."""
    _write_mouse_series(folder)
    _write_zebrafish_series(folder)
    _write_reads(folder, "GSE264537", library="paired", samples=[0, 1, 12, 13], seed=6)
    _write_reads(folder, "GSE275235", library="single", samples=[0, 3], seed=7)


def _accession(i: int) -> str:
    return f"GSM{8000000 + i}"


def _write_series(
    folder: Path, name: str, table: pd.DataFrame, samples: dict[str, str], title: str, source: str
) -> None:
    """A series as GEO serves it: a gzipped series matrix, which names the gzipped supplementary table.

    Parameters
    ----------
    samples
        Sample -> genotype.
    """
    at = folder / "ftp.ncbi.nlm.nih.gov" / "geo" / "series" / f"{name[:-3]}nnn" / name

    def quoted(values: list[str]) -> str:
        return "\t".join(f'"{value}"' for value in values)

    columns = {
        "titles": quoted(list(samples)),
        "accessions": quoted([_accession(i) for i in range(len(samples))]),
        "sources": quoted([source] * len(samples)),
        "genotypes": quoted([f"genotype: {genotype}" for genotype in samples.values()]),
    }
    for part in ("matrix", "suppl"):
        (at / part).mkdir(parents=True)
    with gzip.open(at / "matrix" / f"{name}_series_matrix.txt.gz", "wt") as stream:
        stream.write(SERIES.format(name=name, short=name[:-3], number=name[3:], title=title, **columns))
    table.to_csv(at / "suppl" / f"{name}_raw_counts.csv.gz")


def _named_genes(species: str, wanted: list[str]) -> pd.DataFrame:
    """Random protein-coding genes of a species, those of some symbols first (any case)."""
    table = genes.gene_table(species)
    coding = table[(table["biotype"] == "protein_coding") & (table["symbol"] != "")]
    is_wanted = coding["symbol"].str.upper().isin(wanted)
    others = coding[~is_wanted].sample(N_GENES - is_wanted.sum(), random_state=0)
    return pd.concat([coding[is_wanted], others])


def _panel_genes() -> list[str]:
    return sorted({symbol for panel in genes.gene_panels().values() for symbol in panel})


def _write_mouse_series(folder: Path) -> None:
    """GSE264537: columns ID, samples with .WT. or .KO. in their names, and Gene.name, which a few genes lack or share."""
    groups = {"WT": 12, "KO": 13}
    adata = simulated_bulk.negative_binomial_cohort(groups=groups, reference="WT", n_genes=N_GENES, seed=1)
    named = _named_genes("mus_musculus", _panel_genes())
    symbols = named["symbol"].to_numpy()
    symbols[-3:] = [symbols[-4], "", ""]
    samples = {f"HP.{group}.{i + 1}": group for i, group in enumerate(adata.obs["group"])}
    table = pd.DataFrame(adata.layers["counts"].T, pd.Index(named["ensembl_id"], name="ID"), list(samples))
    _write_series(
        folder, "GSE264537", table.assign(**{"Gene.name": symbols}), samples, "Kcna1 knock-out, hippocampus", "brain"
    )


def _write_zebrafish_series(folder: Path) -> None:
    """GSE275235, with the counts of Table II and further genes of the Lawson annotation; and that annotation."""
    printed = pd.read_csv(paths.DATA / "table_two.csv", index_col=0)
    genotypes = pd.read_csv(paths.DATA / "table_two_samples.csv", index_col=0)["genotype"]
    groups = dict.fromkeys(genotypes.unique(), 3)
    adata = simulated_bulk.negative_binomial_cohort(groups=groups, reference="WT", n_genes=N_GENES, seed=2)
    ids = [f"LL{i:010d}" for i in range(20_000, 20_000 + N_GENES)]
    table = pd.DataFrame(adata.layers["counts"].T, ids, printed.columns)
    table = pd.concat([table, printed]).rename_axis("ID")
    _write_series(folder, "GSE275235", table, genotypes.to_dict(), "slc13a5 mutants", "whole brain, larva")
    # Ohnologs of a gene end in a or b.
    wanted = [symbol + end for symbol in _panel_genes() for end in ("", "A", "B")]
    names = dict(zip(ids, _named_genes("danio_rerio", wanted)["symbol"], strict=True))
    gtf = folder / "www.umassmed.edu" / "globalassets" / "lawson-lab" / "downloadfiles" / "v4.3.2.gtf"
    gtf.parent.mkdir(parents=True)
    with open(gtf, "w") as stream:
        for i, gene in enumerate(table.index):
            name = names.get(gene, f"unnamed{i}")
            attributes = f'gene_id "{gene}"; transcript_id "{gene}.1"; gene_name "{name}";'
            for feature in ("transcript", "exon"):
                fields = ("chr1", "Lawson", feature, 1000 * i + 1, 1000 * i + 900, ".", "+", ".", attributes)
                print(*fields, sep="\t", file=stream)


def _write_probes(folder: Path) -> None:
    """GEO's annotation of the array of rat-ketogenic; every seventh probe is of no gene, every eleventh of two."""
    probes = datasets.load("rat-ketogenic").var_names
    symbols = np.resize(_named_genes("rattus_norvegicus", _panel_genes())["symbol"].to_numpy(), len(probes))
    annotation = (
        folder / "ftp.ncbi.nlm.nih.gov" / "geo" / "platforms" / "GPLnnn" / "GPL341" / "annot" / "GPL341.annot.gz"
    )
    annotation.parent.mkdir(parents=True)
    with gzip.open(annotation, "wt") as stream:
        print("^Annotation", "!Annotation_platform = GPL341", "!platform_table_begin", sep="\n", file=stream)
        print("ID", "Gene title", "Gene symbol", "Gene ID", sep="\t", file=stream)
        for i, (probe, symbol) in enumerate(zip(probes, symbols, strict=True)):
            named = "" if i % 7 == 6 else f"{symbol}///{symbols[i - 1]}" if i % 11 == 10 else symbol
            print(probe, "a gene", named, i, sep="\t", file=stream)
        print("!platform_table_end", file=stream)


def _write_reads(folder: Path, name: str, *, library: str, samples: list[int], seed: int) -> None:
    """Reads of some samples of a series as ENA has them, the first in two runs, and a genome of 20 genes under its name.

    Parameters
    ----------
    samples
        Their places in the series.
    """
    genome = registry.entry(registry.entry(f"{name}-reads").options["genome"])
    rows = [geo.RUN_TABLE.partition("&fields=")[2].partition("&")[0].split(",")]
    with tempfile.TemporaryDirectory() as made:
        cohort = {"groups": {"a": len(samples) + 1}, "n_genes": 20, "n_fragments": 1500, "seed": seed}
        simulated_reads.write_cohort(Path(made), kinds=[(library, "reverse")], **cohort)
        # The last one's reads are a second run of the first sample.
        for number, sample in enumerate([*samples, samples[0]], 1):
            run = f"SRR{name[3:]}{number}"
            at = f"ftp.sra.ebi.ac.uk/vol1/fastq/{run[:6]}/00{run[-1]}/{run}"
            (folder / at).mkdir(parents=True)
            addresses, sums = [], []
            for mate in (1, 2) if library == "paired" else (1,):
                file = f"{at}/{run}{f'_{mate}' if library == 'paired' else ''}.fastq.gz"
                shutil.copy(Path(made) / f"a_{number}_{mate}.fq.gz", folder / file)
                addresses.append(file)
                sums.append(digest(folder / file, "md5"))
            row = [run, _accession(sample), f"{_accession(sample)}_r1", library.upper(), "RNA-Seq"]
            rows.append([*row, ";".join(addresses), ";".join(sums)])
        table = folder / geo.RUN_TABLE.format(project=f"PRJNA{name[3:]}").partition("://")[2]
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join("\t".join(row) + "\n" for row in rows))
        for role, file in (("fasta", "genome.fa"), ("gtf", "annotation.gtf")):
            packed = folder / genome.files[role].url.partition("://")[2]
            packed.parent.mkdir(parents=True, exist_ok=True)
            packed.write_bytes(gzip.compress((Path(made) / file).read_bytes(), mtime=0))
            checksums = folder / genome.files[role].checksums.partition("://")[2]
            summed = subprocess.run(["sum", packed], capture_output=True, text=True, check=True).stdout.split()[:2]
            known = [digest(packed, "md5")] if checksums.name == "MD5SUMS" else summed
            with open(checksums, "a") as stream:
                print(*known, packed.name, file=stream)


def write_models(hub: Hub) -> None:
    """Write published models under their names, in the shape of the smallest presets."""
    folder = hub.add("openai-community/gpt2-xl")
    model = GPT2LMHeadModel(presets.preset("gpt2-tiny"))
    model.config.save_pretrained(folder)
    # The published file has the body's names, and the masks that later releases of transformers do without.
    weights = model.transformer.state_dict()
    mask = torch.ones(1, 1, model.config.n_positions, model.config.n_positions).tril()
    weights |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(model.config.n_layer)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    folder = hub.add("ctheodoris/Geneformer") / "Geneformer-V1-10M"
    presets.build(presets.preset("bert-tiny"), "masked-lm").save_pretrained(folder)
    # The repository has such files beside the weights.
    (folder / "training_args.bin").write_bytes(b"a pickle")


def write_cells(hub: Hub) -> None:
    """Write Genecorpus-30M, of 200 cells, and beside it the cells of 39 donors, both by the tokens of V1."""
    folder = hub.add("ctheodoris/Genecorpus-30M")
    encoder = RankValueEncoder.official("v1")
    corpus = encoder.encode(simulated_cells.cell_corpus(n_cells=220, seed=4)[:200].copy())
    corpus.select_columns(["input_ids", "length"]).save_to_disk(folder / "genecorpus_30M_2048.dataset")
    _donors_cells(encoder).save_to_disk(
        folder / "example_input_files/cell_classification/disease_classification/human_dcm_hcm_nf.dataset"
    )


def _donors_cells(encoder: RankValueEncoder) -> arrow.Dataset:
    """Cells of 39 donors, each class in each of paper B's parts, and a quarter of the cells of another cell type."""
    states = ("nf", "hcm", "dcm")
    donors = {donor: states[i % 3] for part in PARTS.values() for i, donor in enumerate(part.split())}
    sizes = {state: list(donors.values()).count(state) for state in states}
    adata = simulated_cells.cardiomyopathy(donors=sizes, cells_per_donor=12, seed=5)
    simulated = adata.obs.groupby("disease", observed=True)["donor"].unique()
    of_state = {state: [donor for donor, its in donors.items() if its == state] for state in states}
    names = {old: new for state in states for old, new in zip(simulated[state], of_state[state], strict=True)}
    types = ["Cardiomyocyte1", "Cardiomyocyte2", "Cardiomyocyte3", "Fibroblast1"]
    adata.obs = pd.DataFrame(
        {
            "cell_type": np.resize(types, adata.n_obs),
            "disease": adata.obs["disease"].astype(str),
            "individual": adata.obs["donor"].map(names).astype(str),
            "age": 50.0,
            "sex": "female",
        },
        index=adata.obs_names,
    )
    return encoder.encode(adata).remove_columns("cell_id")


class HubHandler(http.server.BaseHTTPRequestHandler):
    """A model hub."""

    def __init__(self, hub: Hub, *args):
        self.hub = hub
        super().__init__(*args)

    def do_GET(self):
        self.hub.answer(self)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """Make the stand-ins in a folder and serve them; yields the environment that turns all requests to them."""
    arrow.disable_progress_bars()
    logging.disable_progress_bar()
    hub = Hub(folder / "hub")
    if ORIGINALS.is_dir():
        lay_out(ORIGINALS, folder / "world")
    write_models(hub)
    world = partial(Handler, directory=str(folder / "world"))
    with serving(world) as world_address, serving(partial(HubHandler, hub)) as hub_address:
        addresses = {downloads.SERVER: world_address, "HF_ENDPOINT": hub_address}
        # Stand-ins have the genes of originals.
        with mock.patch.dict(os.environ, addresses):
            write_world(folder / "world")
            write_cells(hub)
        yield addresses
