"""A smaller design within a larger one, and what the likelihood-ratio test of the two asks."""

import re

import anndata
import pandas as pd
from formulaic import Formula

from epigen_utils.expression import designs, formulas
from epigen_utils.expression.differential import FittedDesign


def reduced_design(adata: anndata.AnnData, design: str, variable: str) -> str:
    """The design without the terms of a column, if that has more than two levels; else an empty text.

    Parameters
    ----------
    variable
        Column of the groups.

    Examples
    --------
    >>> import anndata
    >>> import pandas as pd
    >>> from epigen_utils.expression import nested
    >>> obs = pd.DataFrame({"batch": list("xyxyxy"), "line": list("aabbcc")}, index=list("123456"))
    >>> nested.reduced_design(anndata.AnnData(obs=obs), "~batch + line", "line")
    '~batch'
    """
    levels = formulas.covariates(adata.obs, design)[variable]
    if pd.api.types.is_numeric_dtype(levels) or levels.nunique() < 3:
        return ""
    kept = [term for term in _terms(design) if variable not in _columns(term)]
    words = [
        ":".join(formulas.quoted(factor) if factor in adata.obs else factor for factor in term)
        for term in kept
        if term != ("1",)
    ]
    if ("1",) not in kept and words:
        words.insert(0, "0")
    return "~" + " + ".join(words or ["1"])


def _terms(design: str) -> list[tuple[str, ...]]:
    """Terms of a formula, each as its factors."""
    formula = Formula(formulas.respelled(design))
    return [tuple(factor.expr for factor in term.factors) for term in getattr(formula, "rhs", formula)]


def _columns(term: tuple[str, ...]) -> set[str]:
    """Names in a term's factors, such as ``dose`` in ``log(dose)``."""
    return {name.strip("`") for factor in term for name in (factor, *re.findall(r"`[^`]+`|[\w.]+", factor))}


def left_out_terms(design: str, reduced: str) -> list[tuple[str, ...]]:
    """Terms of a design that a reduced one lacks, each as its factors."""
    kept = {frozenset(term) for term in _terms(reduced)}
    return [term for term in _terms(design) if frozenset(term) not in kept]


def other_factor(adata: anndata.AnnData, design: str, reduced: str, variable: str) -> str:
    """The first column that interacts with the groups in the terms left out; empty if none does."""
    for term in left_out_terms(design, reduced):
        others = [factor for factor in term if factor != variable and factor in adata.obs]
        if variable in term and others:
            return others[0]
    return ""


def compared_factors(
    adata: anndata.AnnData, design: str, reduced: str, variable: str
) -> tuple[pd.Series, pd.Series | None]:
    """The values of a column as a design takes them, and those of its `other_factor`; None without one."""
    table = formulas.covariates(adata.obs, design)
    return table[variable], table.get(other_factor(adata, design, reduced, variable))


def question(adata: anndata.AnnData, design: str, reduced: str, variable: str) -> str:
    """What the likelihood-ratio test asks of each gene, in words; names are between backticks."""
    left_out = left_out_terms(design, reduced)
    other = other_factor(adata, design, reduced, variable)
    if other and len(left_out) == 1:
        return f"Does the effect of `{variable}` depend on `{other}`?"
    if left_out == [(variable,)]:
        n_levels = adata.obs[variable].astype(str).nunique()
        return f"Does the gene differ between any of the {n_levels} levels of `{variable}`?"
    names = ", ".join(f"`{':'.join(term)}`" for term in left_out)
    return f"Does the gene depend on any of the terms that are left out, {names}?"


def n_left_out(fitted: FittedDesign, reduced: str) -> int:
    """Number of coefficients that a reduced design leaves out: the degrees of freedom of the test."""
    return fitted.matrix.shape[1] - designs.design_matrix(fitted.adata, reduced).shape[1]


def calls_beside_contrasts(
    joint: pd.DataFrame, contrasts: dict[str, pd.DataFrame], *, name: str, alpha: float
) -> pd.DataFrame:
    """Genes called by a likelihood-ratio test and by contrasts of the same fit.

    Returns
    -------
    A row the test, named ``name``, and each contrast: ``test``, ``called``, ``by both`` (by it and by the
    likelihood-ratio test).
    """
    called = joint["padj"] < alpha
    rows = [{"test": name, "called": int(called.sum()), "by both": int(called.sum())}]
    for contrast, table in contrasts.items():
        mine = table["padj"] < alpha
        rows.append({"test": contrast, "called": int(mine.sum()), "by both": int((mine & called).sum())})
    return pd.DataFrame(rows)
