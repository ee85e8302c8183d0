"""Designs and contrasts: a formula over the sample table, what is compared in it, and what it cannot be."""

import anndata
import numpy as np
import pandas as pd
from formulaic import model_matrix
from formulaic.errors import FormulaicError
from formulaic_contrasts import FormulaicContrasts

from epigen_utils import paths, registry
from epigen_utils.errors import DataError


def parse_contrast(text: str) -> tuple[str, str, str]:
    """Read ``variable,target,reference``, as a command line gives it.

    Raises
    ------
    DataError
        If there are not three parts.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 3 or not all(parts):
        raise DataError(f"contrast {text!r}: write it as variable,target,reference")
    return parts


def contrasts_of(adata: anndata.AnnData, *, design: str = "", contrast: str = "") -> tuple[str, dict[str, tuple]]:
    """The design and the contrasts of a data set: the caller's, else those of ``data/contrasts.csv``, else the plain ones.

    Parameters
    ----------
    design, contrast
        A formula, and a contrast as text; empty to look them up. The table holds for a registered data set with the
        registry's own group and reference. Without a row in it every level of the group is compared with the first, within
        donors where a donor has samples of more than one level.

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
        return design or f"~{_term(variable)}", {f"{target} against {reference}": (variable, target, reference)}
    if not about.get("group"):
        columns = ", ".join(map(str, adata.obs)) or "none"
        raise DataError(f"{about['name']}: nothing to compare; name a group or a contrast (columns: {columns})")
    group = about["group"]
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    rows = table[table["id"].str.startswith(about["name"] + ":")]
    if len(rows) and _as_registered(about):
        blocking = [_term(name) for name in rows["blocking"].iloc[0].split(";") if name]
        found = {row.id.partition(":")[2]: (row.variable, row.target, row.reference) for row in rows.itertuples()}
        return design or "~" + " + ".join([*blocking, _term(rows["variable"].iloc[0])]), found
    reference, *others = adata.obs[group].cat.categories
    blocking = [_term(about["donor"])] if about.get("donor") and not donors_are_nested(adata) else []
    return design or "~" + " + ".join([*blocking, _term(group)]), {
        f"{level} against {reference}": (group, level, reference) for level in others
    }


def _as_registered(about: dict) -> bool:
    entry = registry.entry(about["name"])
    return about["group"] == entry.group and about.get("reference", "") == (entry.reference or "")


def _term(column: str) -> str:
    """A column's name as a formula takes it."""
    return column if column.isidentifier() else f"`{column}`"


def donors_are_nested(adata: anndata.AnnData) -> bool:
    """Whether no donor has samples of two groups, so that donors can be no blocks; False where no donor is named."""
    about = adata.uns["epigen"]
    if not about.get("donor"):
        return False
    return bool((adata.obs.groupby(about["donor"], observed=True)[about["group"]].nunique() == 1).all())


def covariates(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table as a formula reads it: factors, and numbers where levels would leave too few samples to a level.

    Numbers with a fraction stay numbers. Whole numbers and text are factors, unless they are numbers with more different
    values than half of the samples: an age, or RIN. A categorical column, such as the group and the donor, stays one.
    """
    obs = obs.copy()
    for column in obs:
        values = obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype):
            obs[column] = values.cat.rename_categories(str)
            continue
        if pd.api.types.is_float_dtype(values):
            continue
        numbers = pd.to_numeric(values.astype(object), errors="coerce").astype(float)
        many = values.nunique() > len(obs) / 2 and (numbers.notna() == values.notna()).all()
        obs[column] = numbers if many else values.astype(object).map(str, na_action="ignore")
    return obs


def matrix(adata: anndata.AnnData, design: str) -> pd.DataFrame:
    """The model matrix of a formula over ``obs``, samples x coefficients; columns are read as by `covariates`.

    Raises
    ------
    DataError
        If the formula cannot be read or names a column that is not there.
    """
    try:
        return pd.DataFrame(model_matrix(design, covariates(adata.obs)))
    except FormulaicError as error:
        columns = ", ".join(map(str, adata.obs))
        raise DataError(f"design {design!r}: {str(error).splitlines()[0]} (columns: {columns})") from None


def check(adata: anndata.AnnData, design: str) -> None:
    """Say in one line what a design cannot be.

    Raises
    ------
    DataError
        Naming the term or sample: not there, empty, confounded with another, or too many coefficients for the samples.
    """
    found = matrix(adata, design)
    if len(found) < adata.n_obs:
        lost = adata.obs_names.difference(found.index, sort=False)[0]
        raise DataError(f"design {design!r}: sample {lost!r} lacks a value; fill it in, or drop the sample")
    if not is_full_rank(found):
        raise DataError(f"design {design!r}: {_dependent(found)} cannot be told apart in these samples; drop a term")
    if len(found) <= found.shape[1]:
        raise DataError(
            f"design {design!r}: {found.shape[1]} coefficients for {len(found)} samples leave nothing to estimate "
            "dispersion from; add replicates"
        )


def is_full_rank(model: pd.DataFrame) -> bool:
    """Whether every coefficient of a model matrix can be estimated."""
    return bool(np.linalg.matrix_rank(model.to_numpy()) == model.shape[1])


def _dependent(model: pd.DataFrame) -> str:
    """Names of coefficients whose columns are linear combinations of others."""
    full = np.linalg.matrix_rank(model.to_numpy())
    names = [name for name in model if np.linalg.matrix_rank(model.drop(columns=name).to_numpy()) == full]
    return " and ".join(name for name in names if name != "Intercept") or "its coefficients"


def check_contrast(adata: anndata.AnnData, contrast: tuple[str, str, str]) -> None:
    """Say in one line what a contrast cannot be.

    Raises
    ------
    DataError
        If a column or level is not there, a level has one sample, or a level is compared with itself.
    """
    variable, target, reference = contrast
    if variable not in adata.obs:
        raise DataError(f"contrast: no column {variable!r} in obs (columns: {', '.join(map(str, adata.obs))})")
    sizes = adata.obs[variable].astype(str).value_counts()
    targets = levels(adata, variable, target)
    for level in (*targets, reference):
        if level not in sizes:
            known = ", ".join(sorted(sizes.index))
            raise DataError(f"contrast: {variable!r} has no level {level!r} (levels: {known})")
        if sizes[level] < 2:
            raise DataError(f"contrast: {level!r} of {variable!r} has one sample; a comparison needs replicates")
    if reference in targets:
        raise DataError(f"contrast: {reference!r} is compared with itself; name two levels")


def levels(adata: anndata.AnnData, variable: str, target: str) -> list[str]:
    """The level, or the levels that a target such as ``a+b`` pools."""
    there = set(adata.obs[variable].astype(str))
    parts = [part.strip() for part in target.split("+")]
    return parts if target not in there and len(parts) > 1 else [target]


def vector(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray:
    """Weights of the design's coefficients in a contrast; pooled levels count the same each.

    Raises
    ------
    DataError
        If the contrast is over a column that is not in the design, or over one that is no factor there.
    """
    variable, target, reference = contrast
    table = covariates(adata.obs)
    model = FormulaicContrasts(table, design)
    if variable not in model.variables:
        raise DataError(f"contrast: {variable!r} is not in the design {design!r}; add it to the design")
    if pd.api.types.is_numeric_dtype(table[variable]):
        raise DataError(f"contrast: {variable!r} is a number in the design {design!r}; give words to compare levels")
    pooled = levels(adata, variable, target)
    return np.mean(
        [model.contrast(column=variable, baseline=reference, group_to_compare=level) for level in pooled], axis=0
    )


def blocks(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray | None:
    """Samples that a shuffle may exchange labels among: of one donor, or of one level of what the design blocks on.

    Returns
    -------
    A word a sample, or None where any two may be exchanged.
    """
    donor = adata.uns["epigen"].get("donor")
    terms = {term.strip(" `") for term in design.lstrip("~ ").replace("*", "+").split("+")}
    columns = [donor] if donor else [term for term in adata.obs if term in terms and term != contrast[0]]
    return adata.obs[columns].astype(str).agg("/".join, axis=1).to_numpy() if columns else None
