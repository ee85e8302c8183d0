"""Differential expression by a design and its contrasts, in DESeq2's columns.

The engine is PyDESeq2 (Muzellec et al. 2023); tests/expression/test_differential.py measures how it differs from R
DESeq2 1.38.3.
"""

import dataclasses
import itertools

import anndata
import numpy as np
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.ds import DeseqStats
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from epigen_utils.errors import DataError
from epigen_utils.expression import designs, normalisation
from epigen_utils.expression.gene_batches import GeneBatchInference
from epigen_utils.stats import permutation

DESEQ_COLUMNS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
ENGINES = ("pydeseq2",)


@dataclasses.dataclass(frozen=True)
class FittedDesign:
    """A design fitted to a data set: the size factors, dispersions and coefficients that contrasts are tested with."""

    adata: anndata.AnnData
    design: str
    dds: DeseqDataSet
    inference: GeneBatchInference

    def results(
        self,
        contrast: tuple[str, str, str],
        *,
        alpha: float = 0.05,
        independent_filter: bool = True,
        cooks_filter: bool = True,
        shrink: bool = False,
    ) -> pd.DataFrame:
        """Test one contrast; `deseq` documents parameters, columns and errors."""
        designs.check_contrast(self.adata, contrast)
        test = DeseqStats(
            self.dds,
            contrast=designs.contrast_vector(self.adata, self.design, contrast),
            alpha=alpha,
            cooks_filter=cooks_filter,
            independent_filter=independent_filter,
            inference=self.inference,
            quiet=True,
        )
        with normalisation.quiet_pydeseq2():
            test.summary()
            if shrink:
                test.lfc_shrink(coeff=self._coefficient(test, contrast), adapt=True)
        return test.results_df[DESEQ_COLUMNS].reindex(self.adata.var_names)

    @property
    def dispersions(self) -> pd.DataFrame:
        """Dispersions of the genes with counts.

        Returns
        -------
        A row a gene: ``baseMean`` (counts), ``genewise`` (from the gene's own counts), ``trend``, ``final`` (used
        in the tests), ``outlier`` (so far above the trend that the final estimate is the gene-wise one).
        """
        names = {"_normed_means": "baseMean", "genewise_dispersions": "genewise", "fitted_dispersions": "trend"}
        names |= {"dispersions": "final", "_outlier_genes": "outlier"}
        table = self.dds.var.loc[self.dds.var["non_zero"], list(names)].rename(columns=names)
        return table.astype({"outlier": bool})

    def _coefficient(self, test: DeseqStats, contrast: tuple[str, str, str]) -> str:
        variable, target, reference = contrast
        name = f"{variable}[T.{target}]"
        vector = test.contrast_vector
        if name not in test.LFC or vector[test.LFC.columns.get_loc(name)] != 1 or np.count_nonzero(vector) != 1:
            raise DataError(
                f"shrinkage: {target!r} against {reference!r} is not one coefficient of {self.design!r}; compare with "
                "the design's reference level, or leave it unshrunk"
            )
        return name


def fit_design(adata: anndata.AnnData, *, design: str, engine: str = "pydeseq2") -> FittedDesign:
    """Fit a design once, to test several contrasts of it; `deseq` documents parameters and errors."""
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r}: there is {', '.join(ENGINES)}")
    designs.check_design(adata, design)
    normalisation.size_factors(adata)  # raises a readable error if they are undefined
    inference = GeneBatchInference()
    with normalisation.quiet_pydeseq2():
        dds = DeseqDataSet(
            counts=normalisation.count_table(adata),
            metadata=designs.covariates(adata.obs),
            design=design,
            inference=inference,
            quiet=True,
        )
        dds.deseq2()
    return FittedDesign(adata, design, dds, inference)


def deseq(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    engine: str = "pydeseq2",
    **options,
) -> pd.DataFrame:
    """Differential expression of one contrast (Love, Huber and Anders 2014).

    Parameters
    ----------
    adata
        Samples x genes, integer counts in ``layers["counts"]``.
    design
        A formula over columns of ``obs``, e.g. ``~batch + condition``.
    contrast
        (variable, target, reference); a positive log2 fold change is higher in the target. A target ``a+b`` pools two
        levels: the mean of their log2 fold changes is tested.
    options
        Of `FittedDesign.results`: ``alpha``, the level that independent filtering is tuned for;
        ``independent_filter`` and ``cooks_filter``, on as in R; ``shrink``, whether to shrink ``log2FoldChange`` and
        ``lfcSE`` (apeglm's prior, Zhu et al. 2019), which leaves p-values unchanged.

    Returns
    -------
    A row a gene, in the order of the data set: ``baseMean`` (counts), ``log2FoldChange``, ``lfcSE`` (log2), ``stat``
    (Wald), ``pvalue``, ``padj`` (Benjamini-Hochberg). Genes without counts, and genes removed by Cook's distance or
    independent filtering, have NaN where R has NA.

    Raises
    ------
    DataError
        Naming a column, level or term: missing, empty, with too few samples, or confounded with another.

    Examples
    --------
    >>> from epigen_utils.data import datasets
    >>> from epigen_utils.expression import differential
    >>> adata = datasets.load("table-two")
    >>> results = differential.deseq(adata, design="~condition", contrast=("condition", "mutant", "WT"))
    >>> results[["log2FoldChange", "lfcSE", "padj"]].head(3).round(3)
                  log2FoldChange  lfcSE   padj
    gene
    LL0000013464           0.128  0.220  0.912
    LL0000009394           0.038  0.059  0.912
    LL0000012381           0.016  0.065  0.912
    """
    designs.check_contrast(adata, contrast)
    return fit_design(adata, design=design, engine=engine).results(contrast, **options)


def linear_contrasts(
    adata: anndata.AnnData, table: pd.DataFrame, *, design: str, contrasts: dict[str, tuple[str, str, str]]
) -> pd.DataFrame:
    """Contrasts of values other than counts, such as scores or log intensities, by ordinary least squares.

    With one factor this is Student's t test; with the donor in the design, the paired t test.

    Parameters
    ----------
    table
        Samples x features, in the order of the data set.

    Returns
    -------
    A row a contrast and feature: ``contrast``, ``feature``, ``mean`` (of all samples), ``difference``, ``low``,
    ``high`` (95% interval), ``df``, ``p`` and ``padj`` (Benjamini-Hochberg over the features of the contrast).

    Raises
    ------
    DataError
        If `designs.check_design` or `designs.check_contrast` refuses the design or a contrast.
    """
    designs.check_design(adata, design)
    x, y = designs.design_matrix(adata, design).to_numpy(dtype=float), table.to_numpy(dtype=float)
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    df = len(x) - x.shape[1]
    variance = np.square(y - x @ coefficients).sum(axis=0) / df
    inverse = np.linalg.inv(x.T @ x)
    parts = []
    for name, contrast in contrasts.items():
        designs.check_contrast(adata, contrast)
        vector = designs.contrast_vector(adata, design, contrast)
        part = pd.DataFrame({"contrast": name, "feature": table.columns, "mean": y.mean(axis=0)})
        error = np.sqrt(variance * (vector @ inverse @ vector))
        difference = vector @ coefficients
        half = student.ppf(0.975, df) * error
        part["difference"], part["low"], part["high"], part["df"] = difference, difference - half, difference + half, df
        with np.errstate(divide="ignore", invalid="ignore"):
            part["p"] = np.where(error > 0, 2 * student.sf(np.abs(difference / error), df), np.nan)
        part["padj"] = false_discovery_control(part["p"].fillna(1)) if len(part) else []
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def count_called_under_permutation(
    adata: anndata.AnnData, table: pd.DataFrame, *, alpha: float, n_permutations: int, seed: int
) -> np.ndarray:
    """Number of features that `linear_contrasts` calls between two groups, for each permutation of the labels."""
    group = adata.uns["epigen"]["group"]
    design, contrasts = designs.design_and_contrasts(adata)
    shuffled, n_called = adata.copy(), []
    observed = adata.obs[group].astype(str).to_numpy()
    permutations = permutation.permuted_labels(observed, n_permutations=n_permutations, seed=seed)
    for labels in itertools.islice(permutations, n_permutations):
        shuffled.obs[group] = pd.Categorical(labels, adata.obs[group].cat.categories)
        results = linear_contrasts(shuffled, table, design=design, contrasts=contrasts)
        n_called.append(int((results["padj"] < alpha).sum()))
    return np.array(n_called)
