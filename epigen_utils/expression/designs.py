"""Designs and contrasts: formulas over the sample table, the comparisons within them, and their validity."""

import anndata
import numpy as np
import pandas as pd
from formulaic import Formula, model_matrix
from formulaic.errors import FormulaicError
from formulaic_contrasts import FormulaicContrasts

from epigen_utils import paths
from epigen_utils.data import registry
from epigen_utils.errors import DataError


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
        variable, target, reference = parse_contrast(contrast)
        return design or f"~{_formula_term(variable)}", {f"{target} against {reference}": (variable, target, reference)}
    if not about.get("group"):
        columns = ", ".join(map(str, adata.obs)) or "none"
        raise DataError(f"{about['name']}: nothing to compare; name a group or a contrast (columns: {columns})")
    group = about["group"]
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    rows = table[table["id"].str.startswith(about["name"] + ":")]
    if len(rows) and _as_registered(about):
        blocking = [_formula_term(name) for name in rows["blocking"].iloc[0].split(";") if name]
        contrasts = {row.id.partition(":")[2]: (row.variable, row.target, row.reference) for row in rows.itertuples()}
        return design or "~" + " + ".join([*blocking, _formula_term(rows["variable"].iloc[0])]), contrasts
    reference, *others = adata.obs[group].cat.categories
    blocking = [_formula_term(about["donor"])] if about.get("donor") and not donors_are_nested(adata) else []
    return design or "~" + " + ".join([*blocking, _formula_term(group)]), {
        f"{level} against {reference}": (group, level, reference) for level in others
    }


def _as_registered(about: dict) -> bool:
    entry = registry.entry(about["name"])
    return about["group"] == entry.group and about.get("reference", "") == (entry.reference or "")


def _formula_term(column: str) -> str:
    """A column's name, quoted where a formula requires it."""
    return column if column.isidentifier() else f"`{column}`"


def donors_are_nested(adata: anndata.AnnData) -> bool:
    """Whether every donor has samples of one group only, so that donors cannot be blocks; False without donors."""
    about = adata.uns["epigen"]
    if not about.get("donor"):
        return False
    return bool((adata.obs.groupby(about["donor"], observed=True)[about["group"]].nunique() == 1).all())


def covariates(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table with each column made numeric or a factor, as the formulas need it.

    Floats stay numeric, and categorical columns (group, donor) stay factors. Integers and text become factors, unless
    they are numbers with more distinct values than half of the samples, such as an age or RIN.
    """
    obs = obs.copy()
    for column in obs:
        values = obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            obs[column] = values.cat.rename_categories(str).cat.remove_unused_categories()
            continue
        if pd.api.types.is_float_dtype(values):
            continue
        numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
        is_numeric = values.nunique() > len(obs) / 2 and (numbers.notna() == values.notna()).all()
        obs[column] = numbers if is_numeric else values.astype(object).map(str, na_action="ignore")
    return obs


def design_matrix(adata: anndata.AnnData, design: str) -> pd.DataFrame:
    """The model matrix of a formula over the `covariates` of ``obs``, samples x coefficients.

    Raises
    ------
    DataError
        If the formula cannot be parsed or names a missing column.
    """
    if not design.strip():
        raise DataError("design: it is empty; give a formula, such as ~condition")
    try:
        return pd.DataFrame(model_matrix(design, covariates(adata.obs)))
    except FormulaicError as error:
        columns = ", ".join(map(str, adata.obs))
        raise DataError(f"design {design!r}: {str(error).splitlines()[0]} (columns: {columns})") from None


def check_design(adata: anndata.AnnData, design: str) -> None:
    """Refuse a design that cannot be fitted.

    Raises
    ------
    DataError
        Naming the term or sample: missing, empty, confounded with another, or more coefficients than samples allow.
    """
    model = design_matrix(adata, design)
    if len(model) < adata.n_obs:
        sample = adata.obs_names.difference(model.index, sort=False)[0]
        raise DataError(f"design {design!r}: sample {sample!r} lacks a value; fill it in, or drop the sample")
    if not is_full_rank(model):
        raise DataError(
            f"design {design!r}: {_dependent_coefficients(model)} cannot be told apart in these samples; drop a term"
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
    table = covariates(adata.obs)
    model = FormulaicContrasts(table, design)
    if variable not in model.variables:
        raise DataError(f"contrast: {variable!r} is not in the design {design!r}; add it to the design")
    if pd.api.types.is_numeric_dtype(table[variable]):
        raise DataError(f"contrast: {variable!r} is a number in the design {design!r}; give words to compare levels")
    levels = target_levels(adata, variable, target)
    try:
        return np.mean([model.contrast(variable, reference, level) for level in levels], axis=0)
    except ValueError:  # of a variable that stands in interactions alone, what its levels mean depends on the others
        raise DataError(
            f"contrast: {variable!r} has no term of its own in {design!r}; add it, or give weights by coefficient"
        ) from None


def has_interactions(design: str) -> bool:
    """Whether a formula has a term of several variables."""
    return any(len(term.factors) > 1 for term in Formula(design))


def is_two_groups(adata: anndata.AnnData, design: str) -> bool:
    """Whether a design is one factor of two levels."""
    table = covariates(adata.obs)
    variables = [name for name in Formula(design).required_variables if name in table]
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
    terms = {term.strip(" `") for term in design.lstrip("~ ").replace("*", "+").split("+")}
    columns = [donor] if donor else [term for term in adata.obs if term in terms and term != contrast[0]]
    return adata.obs[columns].astype(str).agg("/".join, axis=1).to_numpy() if columns else None
