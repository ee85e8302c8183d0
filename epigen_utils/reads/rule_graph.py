"""The workflow as a graph of its rules, as in paper A's Figure 1."""

import re
import subprocess
import sys

import networkx as nx
import pandas as pd
import yaml

from epigen_utils import notebooks, paths
from epigen_utils.errors import DataError
from epigen_utils.reads import Pipeline


def rules(made: Pipeline) -> pd.DataFrame:
    """Direct dependencies between the rules from reads to counts, as reported by Snakemake: ``first``, ``then``.

    Raises
    ------
    DataError
        If Snakemake cannot read the rules.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.READS_RULES), "--directory", str(made.root)]
    command += ["--config", f"pipeline={made.save()}", "--rulegraph", "dot", "--nolock"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise DataError(f"{paths.READS_RULES}: {process.stderr.strip().splitlines()[-1]}")
    # Rules for single and for paired reads are one step.
    labels = re.findall(r'(\d+)\[label = "(\w+)"', process.stdout)
    names = {number: re.sub("_(single|paired)$", "", name) for number, name in labels}
    graph = nx.DiGraph((names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", process.stdout))
    graph.remove_node("all")
    return pd.DataFrame(sorted(nx.transitive_reduction(graph).edges), columns=["first", "then"])


def places(edges: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Position of each rule in a drawing: x is its topological generation, y its rank within that."""
    graph = nx.DiGraph(edges.itertuples(index=False, name=None))
    positions = {}
    for column, names in enumerate(nx.topological_generations(graph)):
        for row, name in enumerate(sorted(names)):
            positions[name] = (column, (len(names) - 1) / 2 - row)
    return positions


def chapters(paper: str = "epilepsy") -> pd.DataFrame:
    """Chapters that take a data set and its sample table, hence also counts from reads: ``chapter``, ``title``."""
    in_order = [
        chapter["file"] for part in yaml.safe_load(paths.TOC.read_text())["parts"] for chapter in part["chapters"]
    ]
    rows = []
    for name in in_order:
        source = paths.NOTEBOOKS / f"{name}.ipynb"
        if name.startswith(f"{paper}/") and source.exists() and "metadata" in notebooks.parameters(source):
            rows.append({"chapter": name.partition("/")[2], "title": notebooks.title(source)})
    return pd.DataFrame(rows)
