"""The parameters of a chapter as a file that ``papermill -f`` takes."""

import yaml

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.errors import DataError, suggest


def _starts(names: str, *comments: str) -> tuple[str, ...]:
    return (*(f"{name}:" for name in names.split()), *comments)


#: Group -> how the lines ``name: comment`` of its parameters begin; data sets are data, what is in no group a control.
GROUPS = {
    "data": _starts(
        "metadata group label reference donor species genes_in round_counts size_factors "
        "also design contrast at reduced keep labels_of healthy goal alternatives time late cluster left_out genome "
        "gtf index adapter aligner reads_dir max_samples max_cells max_start valid_donors test_donors every",
        "start: state",
    ),
    "model": _starts(
        "model models start revision teacher students classifier dnabert vocabulary position_input "
        "max_length n_genes n_bins bins_by n_words n_tokens layer pooling layers_frozen coexpression visible_penalty "
        "trend"
    ),
    "training": _starts(
        "epochs language_epochs learning_rate batch_size accumulate warmup_steps attention_dropout aligned prior "
        "aligned_set grid search_jobs held_out max_train temperature alpha_on remember n_trials precision",
        "alpha: weight",
    ),
}


def as_yaml(notebook: str) -> str:
    """The parameters of a chapter with their defaults and comments, as YAML, by `GROUPS`.

    Parameters
    ----------
    notebook
        ``paper/NN_slug``.

    Raises
    ------
    DataError
        If there is no such chapter.
    """
    sources = {f"{path.parent.name}/{path.stem}": path for path in sorted(paths.NOTEBOOKS.glob("*/*.ipynb"))}
    if notebook not in sources:
        raise DataError(f"{notebook}: no such chapter; {suggest(notebook, sources)}")
    source = sources[notebook]
    values, data_sets = notebooks.default_values(source), notebooks.declared_needs(source).datasets
    groups = {name: [] for name in (*GROUPS, "controls")}
    for name, comment in notebooks.declared_parameters(source).items():
        found = (group for group, starts in GROUPS.items() if f"{name}: {comment}".startswith(starts))
        group = "data" if name in data_sets else next(found, "controls")
        # In flow style a value takes one line; its braces are left out.
        line = yaml.safe_dump({name: values[name]}, default_flow_style=True, allow_unicode=True, width=float("inf"))
        groups[group].append(f"{line.strip()[1:-1]}  # {comment}")
    used = f"papermill notebooks/{notebook}.ipynb out.ipynb -f my.yml"
    parts = [f"# {notebooks.notebook_title(source)}\n# {used}"]
    parts += ["\n".join([f"# {name}", *lines]) for name, lines in groups.items() if lines]
    return "\n\n".join(parts) + "\n"
