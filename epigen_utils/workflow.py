"""The workflow as a graph, read off its own rules: what paper A's Figure 1 draws by hand."""

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
    """Rules from reads to counts and which waits for which, as Snakemake itself states it: ``first``, ``then``; the direct ones only.

    Raises
    ------
    DataError
        If Snakemake cannot read its rules.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.READS_RULES), "--directory", str(made.root)]
    command += ["--config", f"pipeline={made.save()}", "--rulegraph", "dot", "--nolock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"{paths.READS_RULES}: {done.stderr.strip().splitlines()[-1]}")
    # Rules that exist for single and for paired reads are one step.
    names = {n: re.sub("_(single|paired)$", "", name) for n, name in re.findall(r'(\d+)\[label = "(\w+)"', done.stdout)}
    graph = nx.DiGraph((names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", done.stdout))
    graph.remove_node("all")
    return pd.DataFrame(sorted(nx.transitive_reduction(graph).edges), columns=["first", "then"])


def places(edges: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Where to draw each rule: across by how many others come before it, up by its turn among those."""
    graph = nx.DiGraph(edges.itertuples(index=False, name=None))
    found = {}
    for column, names in enumerate(nx.topological_generations(graph)):
        for row, name in enumerate(sorted(names)):
            found[name] = (column, (len(names) - 1) / 2 - row)
    return found


def chapters(paper: str = "epilepsy") -> pd.DataFrame:
    """Chapters that the counts can go on to, since they take a data set and its sample table: ``chapter``, ``title``; in the book's order."""
    listed = [
        chapter["file"] for part in yaml.safe_load(paths.TOC.read_text())["parts"] for chapter in part["chapters"]
    ]
    rows = []
    for name in listed:
        source = paths.NOTEBOOKS / f"{name}.ipynb"
        if name.startswith(f"{paper}/") and source.exists() and "metadata" in notebooks.parameters(source):
            rows.append({"chapter": name.partition("/")[2], "title": notebooks.title(source)})
    return pd.DataFrame(rows)
