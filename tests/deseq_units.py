"""R's values for the tests of `epigen_utils.deseq`: the cohort and the tables that data/reference/deseq2_units.R writes.

The cohort has 14 samples and 150 genes; its first five are without counts, seen in one sample, not seen in one
condition, constant, and with one outlier.
"""

import functools
import re

import anndata
import numpy as np
import pandas as pd
import torch
from scipy.stats import nbinom

from epigen_utils import paths

FOLDER = paths.DATA / "reference" / "deseq2_units"


@functools.cache
def table(name: str) -> pd.DataFrame:
    """A table of R's."""
    return pd.read_csv(FOLDER / f"{name}.csv.gz", index_col=0)


@functools.cache
def by_sample(name: str, of: str) -> pd.DataFrame:
    """A quantity of some genes in every sample, samples x genes."""
    return table(name).filter(regex=rf"^{of}\.").T


@functools.cache
def single(name: str) -> np.ndarray:
    """Numbers of R's that are not in tables: one, or as many as have the name and a number."""
    values = table("single")["value"]
    numbered = values.index.str.fullmatch(re.escape(name) + r"\d+")
    return values.loc[name] if name in values else values[numbered].to_numpy()


def counts() -> np.ndarray:
    """The cohort's counts, samples x genes."""
    return table("counts").to_numpy().T.copy()


def design(*terms: str) -> np.ndarray:
    """Model matrix of the cohort: an intercept, and the second level of a factor, or a covariate, for each term."""
    obs = table("samples")
    columns = [np.ones(len(obs))]
    columns += [obs[term] if obs[term].dtype == float else obs[term] == obs[term].max() for term in terms]
    return np.column_stack(columns).astype(float)


def adata(genes: slice = slice(None)) -> anndata.AnnData:
    """The cohort, for `differential.deseq`."""
    obs = table("samples")[["condition", "batch", "dose"]].copy()
    values = table("counts").T.iloc[:, genes]
    return anndata.AnnData(
        obs=obs.assign(condition=pd.Categorical(obs["condition"]), batch=pd.Categorical(obs["batch"])),
        var=pd.DataFrame({"symbol": values.columns}, index=values.columns),
        layers={"counts": values.to_numpy().copy()},
        uns={"epigen": {"name": "cohort", "measure": "counts"}},
    )


def tensor(values) -> torch.Tensor:
    """As the engine has it."""
    return torch.as_tensor(np.array(values, dtype=float))


def log_posterior(y, mu, matrix, log_alpha, centre=None, variance=None) -> float:
    """Adjusted log posterior of one gene's log dispersion, by scipy and numpy."""
    alpha = np.exp(log_alpha)
    r = 1 / alpha
    weights = 1 / (1 / mu + alpha)
    value = nbinom.logpmf(y, r, r / (r + mu)).sum() - 0.5 * np.linalg.slogdet(matrix.T * weights @ matrix)[1]
    return value - (0 if variance is None else 0.5 * (log_alpha - centre) ** 2 / variance)


def worst(ours, theirs, *, absolute: float = 0.0) -> float:
    """Largest difference relative to R's value; those below an absolute one do not count, and what is missing must be."""
    ours, theirs = (np.asarray(values, dtype=float) for values in (ours, theirs))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    difference = np.abs(ours - theirs)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nanmax(np.where(difference > absolute, difference / np.abs(theirs), 0.0)))
