"""Designs and contrasts: formulas over the sample table, the comparisons within them, and their validity."""

import anndata
import numpy as np
import pandas as pd
from formulaic import Formula

from epigen_utils import paths
from epigen_utils.data import datasets, registry, schema
from epigen_utils.errors import DataError
from epigen_utils.expression import formulas


def parse_contrast(text: str) -> tuple[str, str, str]:
    """Parse ``variable,target,reference``.

    Raises
    ------
    DataError
        If the text has not three non-empty parts.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 3 or not all(parts):
        raise DataError(f"contrast {text!r}: write it as variable,target,reference")
    return parts


def design_and_contrasts(
    adata: anndata.AnnData, *, design: str = "", contrast: str = ""
) -> tuple[str, dict[str, tuple]]:
    """Design and contrasts of a data set: the caller's, else those of ``data/contrasts.csv``, else the defaults.

    ``data/contrasts.csv`` applies to a registered data set with the group and reference of its registry entry. By
    default every level of the group is compared with the first, within donors if a donor has samples of several levels.

    Parameters
    ----------
    design, contrast
        A formula, and a contrast as text (`parse_contrast`); empty to look them up.

    Returns
    -------
    The design, and name -> (variable, target, reference).

    Raises
    ------
    DataError
        If no contrast is given and the data set names no group.
    """
    about = adata.uns["epigen"]
    if contrast:
        variable, target, reference = _as_in_table(adata, parse_contrast(contrast))
        blocking = _blocking(adata, variable)
        return design or "~" + " + ".join([*blocking, formulas.quoted(variable)]), {
            f"{target} against {reference}": (variable, target, reference)
        }
    if not about.get("group"):
        columns = ", ".join(map(str, adata.obs)) or "none"
        raise DataError(f"{about['name']}: nothing to compare; name a group or a contrast (columns: {columns})")
    group = about["group"]
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    rows = table[table["id"].str.startswith(about["name"] + ":")]
    if len(rows) and _as_registered(about):
        blocking = [formulas.quoted(name) for name in rows["blocking"].iloc[0].split(";") if name]
        contrasts = {row.id.partition(":")[2]: (row.variable, row.target, row.reference) for row in rows.itertuples()}
        return design or "~" + " + ".join([*blocking, formulas.quoted(rows["variable"].iloc[0])]), contrasts
    reference, *others = adata.obs[group].cat.categories
    blocking = _blocking(adata, group)
    return design or "~" + " + ".join([*blocking, formulas.quoted(group)]), {
        f"{level} against {reference}": (group, level, reference) for level in others
    }


def _as_registered(about: dict) -> bool:
    entry = registry.entry(about["name"])
    return about["group"] == entry.group and about.get("reference", "") == (entry.reference or "")


def _as_in_table(adata: anndata.AnnData, contrast: tuple[str, str, str]) -> tuple[str, str, str]:
    """A contrast with its levels as the sample table writes them (`schema.find_level`)."""
    variable, *levels = contrast
    present = adata.obs[variable].dropna() if variable in adata.obs else []
    return (variable, *(schema.find_level(present, level) or level for level in levels))


def _blocking(adata: anndata.AnnData, variable: str) -> list[str]:
    """Term of the donor, if donors have samples of several levels of a column."""
    donor = adata.uns["epigen"].get("donor")
    return (
        [formulas.quoted(donor)] if donor and variable in adata.obs and not donors_are_nested(adata, variable) else []
    )


def donors_are_nested(adata: anndata.AnnData, variable: str = "") -> bool:
    """Whether every donor has samples of one group only, so that donors cannot be blocks; False without donors.

    Parameters
    ----------
    variable
        Column of what is compared; by default the groups.
    """
    about = adata.uns["epigen"]
    variable = variable or about.get("group", "")
    if not about.get("donor") or variable not in adata.obs:
        return False
    return bool((adata.obs.groupby(about["donor"], observed=True)[variable].nunique() == 1).all())


def with_first_levels(adata: anndata.AnnData, text: str) -> anndata.AnnData:
    """A data set in which some columns have another first level: the one that the others are compared with.

    In a design with an interaction, a contrast of one factor is its effect at the first level of the other.

    Parameters
    ----------
    text
        ``column=level``, several with commas between them; empty: the data set as it is.

    Raises
    ------
    DataError
        If it is not written so, or there is no such column or level.
    """
    if not text:
        return adata
    adata = adata.copy()
    for part in text.split(","):
        column, _, word = (piece.strip() for piece in part.partition("="))
        if column not in adata.obs:
            columns = schema.listed_columns(adata)
            raise DataError(f"at {text!r}: write column=level, such as treatment=vehicle ({columns})")
        levels = formulas.levels_of(formulas.covariates(adata.obs, f"~factor({formulas.quoted(column)})")[column])
        if (first := schema.find_level(levels, word)) is None:
            raise DataError(f"at {text!r}: {column!r} has no level {word!r} (levels: {', '.join(levels)})")
        words = adata.obs[column].astype(object).map(str, na_action="ignore")
        adata.obs[column] = pd.Categorical(words, list(dict.fromkeys([first, *levels])))
    return adata


def describe_design(adata: anndata.AnnData, design: str, variable: str) -> str:
    """What a reader must know of a design: its factors and numbers, and at which levels an interacting effect is taken.

    Parameters
    ----------
    variable
        Column of the contrasts.
    """
    table, said = formulas.covariates(adata.obs, design), []
    for column in formulas.columns_of_design(adata, design):
        values = table[column]
        if pd.api.types.is_numeric_dtype(values):
            said.append(f"{column} is a number, {values.min():g} to {values.max():g}")
        else:
            levels = formulas.levels_of(values)
            said.append(f"{column} is a factor of {len(levels)} levels, the first {levels[0]}")
    text = f"In the design {'; '.join(said)}. Write factor(...) or numeric(...) around a column to change that."
    if places := effect_is_at(adata, design, variable):
        levels = ", ".join(f"{column} = {level}" for column, level in places.items())
        text += f" {variable} interacts: its contrasts are its effect at {levels} (parameter at sets another level)."
    return text


def effect_is_at(adata: anndata.AnnData, design: str, variable: str) -> dict[str, str]:
    """Where the effect of a column is taken that interacts with others.

    Returns
    -------
    Column of a factor -> its first level; a number, as the design has it (``age``, ``log(age)``) -> ``0``.
    """
    table, places = formulas.covariates(adata.obs, design), {}
    for factors in formulas.variables_of_terms(adata, formulas.model_of(adata, design)).values():
        for expression, columns in factors.items() if variable in set().union(*factors.values()) else ():
            for other in sorted(columns - {variable}):
                if pd.api.types.is_numeric_dtype(table[other]):
                    places[expression] = "0"
                else:
                    places[other] = formulas.levels_of(table[other])[0]
    return places


def design_matrix(adata: anndata.AnnData, design: str) -> pd.DataFrame:
    """The model matrix of a formula over the `formulas.covariates` of ``obs``, samples x coefficients.

    Samples without a value of one of its columns are left out.

    Raises
    ------
    DataError
        If the formula cannot be parsed or names a missing column.
    """
    return pd.DataFrame(formulas.model_of(adata, design))


def check_design(adata: anndata.AnnData, design: str) -> None:
    """Refuse a design that cannot be fitted.

    Raises
    ------
    DataError
        Naming the term or sample: missing, empty, confounded with another, or more coefficients than samples allow.
    """
    model = design_matrix(adata, design)
    for column in formulas.columns_of_design(adata, design):
        if (missing := adata.obs[column].isna()).any():
            raise DataError(
                f"design {design!r}: sample {adata.obs_names[missing][0]!r} lacks a value of {column!r} "
                "(an empty cell, or NA); fill it in, drop the sample, or write a level NA as another word"
            )
    if not np.isfinite(model.to_numpy(dtype=float)).all():
        row, column = np.argwhere(~np.isfinite(model.to_numpy(dtype=float)))[0]
        where = f"{model.columns[column]} of sample {model.index[row]!r}"
        raise DataError(f"design {design!r}: {where} is not finite; correct the value, or leave the term out")
    if not is_full_rank(model):
        raise DataError(
            f"design {design!r}: {_dependent_coefficients(model)} cannot be separated in these samples; drop a term"
        )
    if len(model) <= model.shape[1]:
        raise DataError(
            f"design {design!r}: {model.shape[1]} coefficients for {len(model)} samples leave nothing to estimate "
            "dispersion from; add replicates"
        )


def is_full_rank(model: pd.DataFrame) -> bool:
    """Whether every coefficient of a model matrix can be estimated."""
    return bool(np.linalg.matrix_rank(model.to_numpy()) == model.shape[1])


def _dependent_coefficients(model: pd.DataFrame) -> str:
    """Names of coefficients whose columns are linear combinations of others."""
    full = np.linalg.matrix_rank(model.to_numpy())
    names = [name for name in model if np.linalg.matrix_rank(model.drop(columns=name).to_numpy()) == full]
    return " and ".join(name for name in names if name != "Intercept") or "its coefficients"


def check_contrast(adata: anndata.AnnData, contrast: tuple[str, str, str]) -> None:
    """Refuse a contrast that cannot be tested.

    Raises
    ------
    DataError
        If a column or level is missing, a level has one sample, or a level is compared with itself.
    """
    if len(contrast) != 3:
        raise DataError(f"contrast {contrast!r}: give (variable, target, reference)")
    variable, target, reference = contrast
    if variable not in adata.obs:
        raise DataError(f"contrast: no column {variable!r} in obs (columns: {', '.join(map(str, adata.obs))})")
    sizes = adata.obs[variable].astype(str).value_counts()
    targets = target_levels(adata, variable, target)
    for level in (*targets, reference):
        if level not in sizes:
            names = ", ".join(sorted(sizes.index))
            raise DataError(f"contrast: {variable!r} has no level {level!r} (levels: {names})")
        if sizes[level] < 2:
            raise DataError(f"contrast: {level!r} of {variable!r} has one sample; a comparison needs replicates")
    if reference in targets:
        raise DataError(f"contrast: {reference!r} is compared with itself; name two levels")


def target_levels(adata: anndata.AnnData, variable: str, target: str) -> list[str]:
    """Levels that a target names: itself, or those that a target such as ``a+b`` pools."""
    present = set(adata.obs[variable].astype(str))
    parts = [part.strip() for part in target.split("+")]
    return parts if target not in present and len(parts) > 1 else [target]


def contrast_vector(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray:
    """Weights of the design's coefficients in a contrast; pooled levels have equal weight.

    Raises
    ------
    DataError
        If the contrast's column is not in the design, or is numeric there.
    """
    variable, target, reference = contrast
    table, model = formulas.covariates(adata.obs, design), formulas.model_of(adata, design)
    columns = formulas.columns_of_design(adata, design)
    if variable not in columns:
        raise DataError(f"contrast: {variable!r} is not in the design {design!r}; add it to the design")
    if pd.api.types.is_numeric_dtype(table[variable]):
        raise DataError(
            f"contrast: {variable!r} is a number in the design {design!r}; write factor({variable}) to compare levels"
        )
    terms = {
        term: set().union(*factors.values()) for term, factors in formulas.variables_of_terms(adata, model).items()
    }
    if {variable} not in terms.values():
        # In interactions alone, what its levels mean depends on the others.
        raise DataError(
            f"contrast: {variable!r} has no term of its own in {design!r}; add it, or give weights by coefficient"
        )
    levels = [*target_levels(adata, variable, target), reference]
    # The rows of samples that differ in this column alone: others at their first level, numbers where they cancel.
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(table[name])]
    others = {name: table[name].median() if name in numbers else formulas.levels_of(table[name])[0] for name in columns}
    rows = pd.DataFrame([others | {variable: level} for level in levels])
    encoded = model.model_spec.get_model_matrix(rows, na_action="ignore").to_numpy(dtype=float)
    vector = encoded[:-1].mean(axis=0) - encoded[-1]
    # A coefficient of an interaction with a number says nothing of the effect where the number is zero.
    for term, names in terms.items():
        if variable in names and names & set(numbers):
            vector[model.model_spec.term_indices[term]] = 0.0
    return vector


def has_interactions(design: str) -> bool:
    """Whether a formula has a term of several variables."""
    return any(len(term.factors) > 1 for term in Formula(formulas.parse(design)[0]))


def is_two_groups(adata: anndata.AnnData, design: str) -> bool:
    """Whether a design is one factor of two levels."""
    table, variables = formulas.covariates(adata.obs, design), formulas.columns_of_design(adata, design)
    if len(variables) != 1 or pd.api.types.is_numeric_dtype(table[variables[0]]):
        return False
    return table[variables[0]].nunique() == 2


def permutation_blocks(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray | None:
    """Blocks within which labels may be permuted: donors, or levels of the terms that the design blocks on.

    Returns
    -------
    Name of each sample's block, or None if all labels are exchangeable.
    """
    donor = adata.uns["epigen"].get("donor")
    alone = [term.factors[0].expr for term in Formula(formulas.parse(design)[0]) if len(term.factors) == 1]
    terms = {factor.strip("`") for factor in alone}
    columns = [donor] if donor else [term for term in adata.obs if term in terms and term != contrast[0]]
    return adata.obs[columns].astype(str).agg("/".join, axis=1).to_numpy() if columns else None


def describe_data_set(
    dataset: str, *, design: str = "", contrast: str = "", **options: str | bool
) -> tuple[dict[str, int] | None, list[str]]:
    """What a data set of samples is, and which design and contrasts chapters would take.

    Parameters
    ----------
    options
        Arguments of `datasets.load`.

    Returns
    -------
    Group -> number of donors, or of samples if no donors are given, None without groups; sentences for the user.

    Raises
    ------
    DataError
        If the data set, the design or a contrast is refused.
    """
    adata = datasets.load(dataset, **options)
    about = adata.uns["epigen"]
    line = f"{dataset}: good, {adata.n_obs:,} samples x {adata.n_vars:,} genes"
    if about.get("group"):
        sizes = adata.obs[about["group"]].value_counts(sort=False)
        line += f"; {about['group']}: " + ", ".join(f"{name} {size}" for name, size in sizes.items())
    if genes_in := about.get("genes_in"):
        line += f"; genes in {genes_in}"
    lines = [line, *about.get("notes", ())]
    if contrast or design or (about.get("group") and about["measure"] == "counts"):
        formula, contrasts = design_and_contrasts(adata, design=design, contrast=contrast)
        check_design(adata, formula)
        for levels in contrasts.values():
            check_contrast(adata, levels)
            contrast_vector(adata, formula, levels)
        variable = next(iter(contrasts.values()))[0]
        lines += [f"design {formula}: {', '.join(contrasts)}", describe_design(adata, formula, variable)]
    if not about.get("group"):
        return None, lines
    groups = adata.obs.groupby(about["group"], observed=True)
    units = groups[about["donor"]].nunique() if about.get("donor") else groups.size()
    return units.astype(int).to_dict(), lines
