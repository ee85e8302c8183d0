"""Paper A's Figure 1: its five stages with the chapters of each, and the rules from reads to counts as a graph."""

import re
import subprocess

import networkx as nx
import pandas as pd

from epigen_utils import paths, processes
from epigen_utils.errors import DataError
from epigen_utils.reads.pipeline import Pipeline

#: The five stages of paper A (section III): what a stage passes on, and the chapters that do it.
STAGES = {
    "dataset acquisition": ("reads and sample table", ("01_datasets", "02_table_two")),
    "preprocessing and normalization": (
        "normalised expression of the selected genes",
        ("12_reads_to_counts", "02a_normalisation", "03_differential_expression", "03a_calibration"),
    ),
    "tokenization and embedding": ("a sentence of genes for each sample", ("05_gene_sentences",)),
    "transformer fine-tuning": (
        "hidden states, attention weights and logits",
        ("06_fine_tuning", "07_classification", "08_across_species", "09_zero_shot", "13_hardware"),
    ),
    "dimensionality reduction and visualization": (
        "",
        ("10_embeddings", "04_heatmaps", "04a_balance", "11_attention", "11a_alignment"),
    ),
}


def stage_chapters() -> pd.DataFrame:
    """Chapters by stage, in the order of the stages: ``number``, ``stage``, ``passes on``, ``chapter``.

    Examples
    --------
    >>> from epigen_utils.reads import rule_graph
    >>> table = rule_graph.stage_chapters()
    >>> table[table["number"] == 3][["stage", "chapter"]].to_numpy().tolist()
    [['tokenization and embedding', '05_gene_sentences']]
    """
    rows = [
        (number, stage, passed, chapter)
        for number, (stage, (passed, chapters)) in enumerate(STAGES.items(), start=1)
        for chapter in chapters
    ]
    return pd.DataFrame(rows, columns=["number", "stage", "passes on", "chapter"])


def rule_edges(pipeline: Pipeline) -> pd.DataFrame:
    """Direct dependencies between the rules from reads to counts, as reported by Snakemake: ``first``, ``then``.

    Raises
    ------
    DataError
        If Snakemake cannot read the rules.
    """
    options = ("--rulegraph", "dot", "--nolock")
    command = processes.snakemake_command(paths.READS_RULES, pipeline.root, *options, pipeline=pipeline.save())
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise DataError(f"{paths.READS_RULES}: {process.stderr.strip().splitlines()[-1]}")
    # Rules for single and for paired reads are one step.
    labels = re.findall(r'(\d+)\[label = "(\w+)"', process.stdout)
    names = {number: re.sub("_(single|paired)$", "", name) for number, name in labels}
    graph = nx.DiGraph((names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", process.stdout))
    graph.remove_node("all")
    return pd.DataFrame(sorted(nx.transitive_reduction(graph).edges), columns=["first", "then"])


def rule_positions(edges: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Position of each rule in a drawing: x is its topological generation, y its rank within that."""
    graph = nx.DiGraph(edges.itertuples(index=False, name=None))
    positions = {}
    for column, names in enumerate(nx.topological_generations(graph)):
        for row, name in enumerate(sorted(names)):
            positions[name] = (column, (len(names) - 1) / 2 - row)
    return positions
