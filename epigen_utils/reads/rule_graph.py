"""The workflow as a graph of its rules, as in paper A's Figure 1."""

import re
import subprocess

import networkx as nx
import pandas as pd

from epigen_utils import paths, processes
from epigen_utils.errors import DataError
from epigen_utils.reads.pipeline import Pipeline


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
