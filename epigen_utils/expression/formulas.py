"""Formulas as R writes them, over the columns of a sample table: which are factors, which numbers, and the model."""

import functools
import keyword
import re
from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd
from formulaic import Formula, ModelMatrix, model_matrix
from formulaic.errors import FormulaicError

from epigen_utils.data import schema
from epigen_utils.errors import DataError

#: Functions of formulas, as in R.
FUNCTIONS = ("factor", "numeric", "log", "log2", "log10", "exp", "scale", "center", "poly", "bs", "I")


def quoted(column: str) -> str:
    """A column's name as a formula requires it: between backticks if it is no identifier, or a word of Python."""
    return column if column.isidentifier() and not keyword.iskeyword(column) else f"`{column}`"


def respelled(design: str) -> str:
    """A formula with ``factor`` and ``numeric`` where R has ``as.factor`` and ``as.numeric``; Python refuses ``as``."""
    return re.sub(r"(?<![\w.`])as\.(factor|numeric)\(", r"\1(", design)


@functools.cache
def parse(design: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """A formula of R as formulaic reads it; the columns that it makes factors of, and those that it makes numbers of.

    Raises
    ------
    DataError
        If it has no terms, a left side, or a bar, or names a column that formulas take for a number.
    """
    # Names between backticks may hold any of the signs that are searched for.
    masked = re.sub("`[^`]*`", lambda match: f"`{'_' * (len(match[0]) - 2)}`", design)
    start = masked.rfind("~") + 1
    left, right, masked = design[: max(start - 1, 0)], design[start:], masked[start:]
    if not right.strip():
        raise DataError(f"design {design!r}: it has no terms; give a formula, such as ~condition")
    if left.strip():
        raise DataError(f"design {design!r}: counts stand on its left side; leave {left.strip()!r} out")
    if "|" in masked:
        raise DataError(
            f"design {design!r}: there are no random effects and no conditioning; block on the column instead: "
            f"~{right[masked.rfind('|') + 1 :].strip(' ()')} + ..."
        )
    if re.search(r"(?<![\w.`])\.(?![\w.])", masked):
        raise DataError(f"design {design!r}: '.' stands for every column; name those of the design")
    stated = {"factor": set(), "numeric": set()}

    def plain(match: re.Match) -> str:
        stated[match[1]].add(match[2].strip(" `"))
        return match[2]

    right = re.sub(r"\b(factor|numeric)\(\s*(`[^`]+`|[\w.]+)\s*\)", plain, respelled(right))
    if number := re.search(r"(?<![(`])`([\d.]+)`", right):
        raise DataError(f"design {design!r}: the column {number[1]!r} would be taken for a number; rename it")
    # A name with dots, as R makes them, needs backticks in Python.
    dotted = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+(?![\w.]|\s*\()")
    pieces = right.split("`")
    pieces[::2] = [dotted.sub(lambda match: f"`{match[0]}`", piece) for piece in pieces[::2]]
    right = "`".join(pieces)
    right = re.sub(r"\bI\((?:[^()]|\([^()]*\))*\)", lambda match: match[0].replace("^", "**"), right)
    return f"~{right.strip()}", frozenset(stated["factor"]), frozenset(stated["numeric"])


def covariates(obs: pd.DataFrame, design: str = "") -> pd.DataFrame:
    """The sample table with each column made numeric or a factor, as the formulas need it.

    Categorical columns (group, donor), words and truth values are factors. Numbers are numbers if one has a fraction,
    or if more of them differ than half of the samples, as ages do; else factors: text and h5ad give the same.

    Parameters
    ----------
    design
        A formula that may say otherwise: ``factor(dose)`` or ``numeric(batch)``.
    """
    _, factors, numbers = parse(design) if design else ("", (), ())
    obs = obs.copy()
    for column in obs:
        values = obs[column]
        words = values.astype(object).map(str, na_action="ignore")
        as_numbers = pd.to_numeric(words, errors="coerce").astype(float)
        all_numbers = bool((as_numbers.notna() == values.notna()).all()) and not pd.api.types.is_bool_dtype(values)
        if str(column) in numbers:
            if not all_numbers:
                raise DataError(f"design {design!r}: {column!r} has {words[as_numbers.isna()].iloc[0]!r}, no number")
            obs[column] = as_numbers
        elif isinstance(values.dtype, pd.CategoricalDtype):
            obs[column] = values.cat.rename_categories(str).cat.remove_unused_categories()
        elif all_numbers and str(column) not in factors and _is_quantity(as_numbers):
            obs[column] = as_numbers
        elif all_numbers:
            known = words.dropna().unique()
            obs[column] = pd.Categorical(words, sorted(known, key=float))  # as R orders them: 2 before 10
        else:
            obs[column] = words
    return obs


def _is_quantity(numbers: pd.Series) -> bool:
    known = numbers.dropna()
    return bool((known != known.round()).any() or known.nunique() > len(numbers) / 2)


def levels_of(values: pd.Series) -> list[str]:
    """Levels of a factor, the first of which the others are compared with."""
    return list(values.cat.categories) if hasattr(values, "cat") else sorted(values.dropna().unique())


def columns_of_design(adata: anndata.AnnData, design: str) -> list[str]:
    """Columns of the sample table that a formula names, in the order of the table."""
    factors = {factor.expr for term in Formula(parse(design)[0]) for factor in term.factors}
    named = set().union(*(_columns_of_factor(factor, adata.obs) for factor in factors))
    return [column for column in adata.obs if column in named]


def _columns_of_factor(expression: str, columns: Iterable[str]) -> set[str]:
    """Columns that a factor names; what formulaic lists as required has functions, and splits a name at its dots."""
    name = expression.strip("`")
    if name in columns and not name.isdigit():  # 1 is the intercept
        return {name}
    bare = re.sub("`[^`]*`|'[^']*'|\"[^\"]*\"", " ", expression)
    # Neither what is called nor the name of an argument.
    words = re.findall(r"(?<![\w.])[^\W\d]\w*(?!\w|\s*\(|\s*=[^=])", bare)
    return {*re.findall("`([^`]*)`", expression), *words} & set(columns)


def model_of(adata: anndata.AnnData, design: str) -> ModelMatrix:
    """The model matrix of a formula over `covariates`, of the samples that have a value of each of its columns.

    Raises
    ------
    DataError
        If the formula cannot be read, or names a column or function that is not there.
    """
    formula, *_ = parse(design)
    try:
        table = covariates(adata.obs, design).dropna(subset=columns_of_design(adata, design))
        # Without missing values there is nothing to drop, and formulaic fails to drop rows of scale() and poly().
        with np.errstate(divide="ignore", invalid="ignore"):
            model = model_matrix(formula, table, na_action="ignore")
    except DataError:
        raise
    except (FormulaicError, SyntaxError, ValueError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"design {design!r}: {reason} ({schema.listed_columns(adata)}; functions: {', '.join(FUNCTIONS)})"
        ) from None
    if not isinstance(model, ModelMatrix):
        raise DataError(f"design {design!r}: it has several parts; give one formula, such as ~condition")
    return model


def variables_of_terms(adata: anndata.AnnData, model: ModelMatrix) -> dict[object, dict[str, set[str]]]:
    """Columns of the sample table that each term of a model is of: term -> expression of each factor -> its columns."""
    return {
        term: {factor.expr: _columns_of_factor(factor.expr, adata.obs) for factor in term.factors}
        for term in model.model_spec.terms
    }
