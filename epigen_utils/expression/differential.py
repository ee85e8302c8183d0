"""Differential expression by a design and its contrasts, in DESeq2's columns.

The engine is `deseq`, which gives R's numbers (tests/fuzz_deseq.py); PyDESeq2 (Muzellec et al. 2023) is a
second one, to compare with.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping

import anndata
import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

from epigen_utils.data import schema
from epigen_utils.deseq import fitting, parts, shrinkage, testing
from epigen_utils.errors import DataError, suggest
from epigen_utils.expression import designs, normalisation, second_engine
from epigen_utils.stats import permutation

DESEQ_COLUMNS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
ENGINES = ("torch", "pydeseq2")
PRIORS = ("normal", "apeglm")

#: (variable, target, reference), or weights of the design's coefficients by their names.
Contrast = tuple[str, str, str] | Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FittedDesign:
    """A design fitted to a data set: the size factors, dispersions and coefficients that contrasts are tested with.

    ``fit.trend.kind`` says which trend was fitted: where the parametric one fails, as in R, it is ``local``.
    """

    adata: anndata.AnnData
    design: str
    matrix: pd.DataFrame
    test: str
    fit_for: Callable[[str], fitting.Fit]  # a test, "wald" or "lrt", whose outliers are replaced

    @property
    def fit(self) -> fitting.Fit:
        """The fit for the test that the design was fitted for."""
        return self.fit_for(self.test)

    def results(
        self,
        contrast: Contrast,
        *,
        alpha: float = 0.05,
        independent_filter: bool = True,
        cooks_filter: bool = True,
        lfc_threshold: float = 0.0,
        alt_hypothesis: str = "greaterAbs",
        shrink: str | None = None,
    ) -> pd.DataFrame:
        """Wald test of one contrast; `deseq` documents parameters, columns and errors."""
        weights, compared = self._weights(contrast)
        options = self._filters(alpha, independent_filter, cooks_filter)
        options |= {"compared": compared, "threshold": lfc_threshold, "alternative": alt_hypothesis}
        tests = testing.wald(self._fit_of("wald"), weights, **options)
        table = self._table(tests)
        if shrink is not None:
            table["log2FoldChange"], table["lfcSE"] = self._shrunken(weights, tests.error, shrink)
        return table

    def likelihood_ratio(
        self,
        reduced: str,
        contrast: Contrast | None = None,
        *,
        alpha: float = 0.05,
        independent_filter: bool = True,
        cooks_filter: bool = True,
    ) -> pd.DataFrame:
        """Likelihood-ratio test of the design against a reduced one: whether the terms left out explain anything.

        Parameters
        ----------
        reduced
            A formula within the design's, such as ``~1``.
        contrast
            Whose fold changes and errors the table shows; by default the design's last coefficient.

        Raises
        ------
        DataError
            If the reduced design is not within the full one.
        """
        weights, compared = np.eye(self.matrix.shape[1])[-1], None
        if contrast is not None:
            weights, compared = self._weights(contrast)
        smaller = designs.design_matrix(self.adata, reduced).to_numpy(dtype=float)
        options = self._filters(alpha, independent_filter, cooks_filter)
        fit = self._fit_of("lrt")
        return self._table(testing.likelihood_ratio(fit, smaller, weights, compared=compared, **options))

    @property
    def dispersions(self) -> pd.DataFrame:
        """Dispersions of the genes with counts.

        Returns
        -------
        A row a gene: ``baseMean`` (counts), ``genewise`` (from the gene's own counts), ``trend``, ``map`` (shrunken
        towards the trend), ``final`` (used in the tests), ``outlier`` (so far above the trend that the final estimate
        is the gene-wise one).
        """
        names = {"base_mean": "baseMean", "genewise": "genewise", "trend": "trend", "map": "map", "dispersion": "final"}
        table = pd.DataFrame({label: self.fit.of_all(getattr(self.fit.genes, name)) for name, label in names.items()})
        table["outlier"] = self.fit.of_all(self.fit.genes.outlier, missing=0) > 0
        return table.set_axis(self.adata.var_names)[table["genewise"].notna().to_numpy()]

    def _fit_of(self, test: str) -> fitting.Fit:
        """The fit for a test; where no outlier can be replaced, both tests have the same."""
        return self.fit_for(test) if self.fit.replaces else self.fit

    def _weights(self, contrast: Contrast) -> tuple[np.ndarray, np.ndarray | None]:
        """Weights of the coefficients, and the samples that a contrast of levels compares."""
        if isinstance(contrast, Mapping):
            unknown = [name for name in contrast if name not in self.matrix]
            if unknown:
                raise DataError(f"contrast: no coefficient {unknown[0]!r} (there is {', '.join(self.matrix)})")
            weights = np.array([contrast.get(name, 0) for name in self.matrix], dtype=float)
            if not weights.any():
                raise DataError("contrast: the weights of all coefficients are zero; give one that is not")
            return weights, None
        designs.check_contrast(self.adata, contrast)
        variable, target, reference = contrast
        levels = [*designs.target_levels(self.adata, variable, target), reference]
        compared = self.adata.obs[variable].astype(str).isin(levels).to_numpy()
        return designs.contrast_vector(self.adata, self.design, contrast), compared

    def _filters(self, alpha: float, independent_filter: bool, cooks_filter: bool) -> dict:
        two_groups = designs.is_two_groups(self.adata, self.design)
        filters = {"independent_filter": independent_filter, "cooks_filter": cooks_filter}
        return {"alpha": alpha, "two_groups": two_groups, **filters}

    def _table(self, tests: testing.Tests) -> pd.DataFrame:
        columns = (tests.base_mean, tests.log2_fold_change, tests.error, tests.statistic, tests.pvalue, tests.padj)
        return pd.DataFrame(dict(zip(DESEQ_COLUMNS, columns, strict=True)), index=self.adata.var_names)

    def _shrunken(self, weights: np.ndarray, errors: np.ndarray, prior: str) -> tuple[np.ndarray, np.ndarray]:
        if prior not in PRIORS:
            raise DataError(f"shrinkage {prior!r}: {suggest(prior, PRIORS)}")
        position = int(np.abs(weights).argmax())
        sign = weights[position]
        if np.count_nonzero(weights) != 1 or abs(sign) != 1:
            raise DataError(
                f"shrinkage: this contrast is not one coefficient of {self.design!r}; compare with the design's "
                "reference level, or leave it unshrunk"
            )
        if prior == "apeglm":
            change, error = shrinkage.apeglm(self._fit_of("wald"), position, errors)
        else:
            if designs.has_interactions(self.design):
                raise DataError(
                    "shrinkage: the normal prior is not for designs with interactions; take shrink='apeglm'"
                )
            names = list(self.matrix)
            intercept = names.index("Intercept") if "Intercept" in names else None
            change, error = shrinkage.normal(self._fit_of("wald"), position, intercept=intercept)
        return sign * change, error


def fit_design(
    adata: anndata.AnnData,
    *,
    design: str,
    size_factors: str | pd.Series = "",
    normalization_factors: pd.DataFrame | None = None,
    trend: str = "parametric",
    min_replicates_for_replace: int | None = fitting.MIN_REPLICATES,
    test: str = "wald",
    device: str = "cpu",
) -> FittedDesign:
    """Fit a design once, to test several contrasts of it; `deseq` documents parameters and errors.

    Parameters
    ----------
    test
        ``wald`` or ``lrt``: for which the design is fitted at once; for the other it is fitted when that is used.
    """
    designs.check_design(adata, design)
    matrix = designs.design_matrix(adata, design)
    counts = normalisation.count_table(adata).to_numpy()
    fitting.check(counts, matrix.to_numpy())
    if not schema.are_integers(counts).all():
        raise DataError("differential expression: counts are not integers; load the data set with round_counts=True")
    if normalization_factors is not None:
        factors = _complete(normalization_factors, adata.obs_names, adata.var_names).to_numpy(dtype=float)
    elif isinstance(size_factors, pd.Series):
        factors = _complete(size_factors, adata.obs_names).to_numpy(dtype=float)
    else:
        factors = normalisation.size_factors(adata, size_factors).to_numpy()
    _check_device(device)

    @functools.cache
    def fit_for(test: str) -> fitting.Fit:
        return fitting.fit(
            counts,
            matrix.to_numpy(dtype=float),
            factors=factors,
            trend_kind=trend,
            min_replicates=min_replicates_for_replace,
            test=test,
            device=device,
        )

    fit_for(test)
    return FittedDesign(adata, design, matrix, test, fit_for)


def _check_device(device: str) -> None:
    kind = device.split(":")[0]
    if kind not in parts.SIZE:
        raise DataError(f"device {device!r}: {suggest(kind, sorted(parts.SIZE))}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {device!r}: {str(error).splitlines()[0]}") from None


def _complete(factors: pd.Series | pd.DataFrame, *names: pd.Index) -> pd.Series | pd.DataFrame:
    """Factors in the order of the samples, and of the genes if they are of every count; each must have one."""
    for index, wanted in zip(factors.axes, names, strict=True):
        if len(missing := wanted.difference(index, sort=False)):
            raise DataError(f"size factors: there is none for {missing[0]!r}")
    return factors.loc[names]


def deseq(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: Contrast | None = None,
    reduced: str | None = None,
    engine: str = "torch",
    **options,
) -> pd.DataFrame:
    """Differential expression of one contrast (Love, Huber and Anders 2014), as R DESeq2 1.38 computes it.

    Parameters
    ----------
    adata
        Samples x genes, integer counts in ``layers["counts"]``.
    design
        A formula over columns of ``obs``, e.g. ``~batch + condition``.
    contrast
        (variable, target, reference); a positive log2 fold change is higher in the target. A target ``a+b`` pools two
        levels: the mean of their log2 fold changes is tested. Or weights by coefficient, such as
        ``{"dose": 1}`` or ``{"genotype[T.ko]:sex[T.m]": 1}``.
    reduced
        A smaller formula: a likelihood-ratio test against it instead of the Wald test
        (`FittedDesign.likelihood_ratio`).
    engine
        ``torch``, or ``pydeseq2`` to compare with, which has ``alpha``, ``independent_filter`` and ``cooks_filter``.
    options
        Of the fit: ``size_factors``, ``ratio`` or ``poscounts`` (no gene needs to be detected in every sample) or a
        series, by default what the data set was loaded with; ``normalization_factors``, samples x genes, for gene
        lengths that differ between samples; ``trend`` of the dispersions, ``parametric`` (falls back to ``local``),
        ``local``, ``mean`` or ``none``; ``min_replicates_for_replace``, samples in a cell from which outliers are
        replaced, None for never; ``device`` of torch.

        Of the test: ``alpha``, the level that independent filtering is tuned for; ``independent_filter`` and
        ``cooks_filter``, on as in R; ``lfc_threshold``, the log2 fold change to test against, with ``alt_hypothesis``
        ``greaterAbs``, ``lessAbs``, ``greater`` or ``less``; ``shrink``, whether to shrink ``log2FoldChange`` and
        ``lfcSE`` by the prior ``normal`` or ``apeglm`` (Zhu et al. 2019), which leaves p-values unchanged.

    Returns
    -------
    A row a gene, in the order of the data set: ``baseMean`` (counts), ``log2FoldChange``, ``lfcSE`` (log2), ``stat``
    (Wald, or twice the log likelihood ratio), ``pvalue``, ``padj`` (Benjamini-Hochberg). Genes without counts, and
    genes removed by Cook's distance or independent filtering, have NaN where R has NA.

    Raises
    ------
    DataError
        Naming a column, level, term or option: missing, empty, with too few samples, or confounded with another.

    Examples
    --------
    >>> from epigen_utils.data import datasets
    >>> from epigen_utils.expression import differential
    >>> adata = datasets.load("negative-binomial-sim")
    >>> results = differential.deseq(adata, design="~group", contrast=("group", "mutant", "control"))
    >>> results[["log2FoldChange", "lfcSE", "padj"]].head(3).round(3)
              log2FoldChange  lfcSE   padj
    SIM00000          -0.235  0.231  0.885
    SIM00001           0.056  0.308  0.983
    SIM00002           0.269  0.281  0.906
    """
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r}: there is {', '.join(ENGINES)}")
    if contrast is None and reduced is None:
        raise DataError("deseq: give a contrast, or a reduced design for a likelihood-ratio test")
    if isinstance(contrast, tuple):
        designs.check_contrast(adata, contrast)
    if engine == "pydeseq2":
        _check_second_engine(contrast, reduced, options)
        return second_engine.results(adata, design=design, contrast=contrast, **options)[DESEQ_COLUMNS]
    of_fit = ("size_factors", "normalization_factors", "trend", "min_replicates_for_replace", "device")
    of_fit = {name: options.pop(name) for name in of_fit if name in options}
    fitted = fit_design(adata, design=design, test="lrt" if reduced else "wald", **of_fit)
    if reduced is not None:
        return fitted.likelihood_ratio(reduced, contrast, **options)
    return fitted.results(contrast, **options)


def _check_second_engine(contrast: Contrast | None, reduced: str | None, options: dict) -> None:
    unknown = options.keys() - {"alpha", "independent_filter", "cooks_filter"}
    if reduced is not None or not isinstance(contrast, tuple) or unknown:
        raise DataError(
            "engine 'pydeseq2': it tests contrasts of levels (Wald), with alpha, independent_filter and cooks_filter; "
            "take engine='torch'"
        )


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
    tables = []
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
        part["padj"] = testing.benjamini_hochberg(part["p"].to_numpy())
        tables.append(part)
    return pd.concat(tables, ignore_index=True)


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
