"""One door to differential expression: a design, its contrasts, DESeq2's columns.

The engine is PyDESeq2 (Muzellec et al. 2023); what it does differently from R is measured in
tests/test_differential.py against values of R DESeq2 1.38.3.
"""

import dataclasses
import itertools

import anndata
import numpy as np
import pandas as pd
from formulaic import model_matrix
from formulaic.errors import FormulaicError
from formulaic_contrasts import FormulaicContrasts
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from epigen_utils import evaluation, expression, paths
from epigen_utils.errors import DataError

COLUMNS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
ENGINES = ("pydeseq2",)


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


@dataclasses.dataclass(frozen=True)
class Fit:
    """A design fitted to a data set: size factors, dispersions and coefficients, from which contrasts are tested."""

    adata: anndata.AnnData
    design: str
    dds: DeseqDataSet
    inference: DefaultInference

    def results(
        self,
        contrast: tuple[str, str, str],
        *,
        alpha: float = 0.05,
        independent_filter: bool = True,
        cooks_filter: bool = True,
        shrink: bool = False,
    ) -> pd.DataFrame:
        """Test one contrast; parameters, columns and errors as of `deseq`."""
        _check_contrast(self.adata, contrast)
        stats = DeseqStats(
            self.dds,
            contrast=contrast_vector(self.adata, self.design, contrast),
            alpha=alpha,
            cooks_filter=cooks_filter,
            independent_filter=independent_filter,
            inference=self.inference,
            quiet=True,
        )
        with expression.quiet_pydeseq2():
            stats.summary()
            if shrink:
                stats.lfc_shrink(coeff=self._coefficient(stats, contrast), adapt=True)
        return stats.results_df[COLUMNS].reindex(self.adata.var_names)

    @property
    def dispersions(self) -> pd.DataFrame:
        """Dispersions of the genes with counts.

        Returns
        -------
        A row a gene: ``baseMean`` (counts), ``genewise`` (by the gene's own counts), ``trend``, ``final`` (the one that is
        tested with), ``outlier`` (kept at its own estimate, being far above the trend).
        """
        names = {"_normed_means": "baseMean", "genewise_dispersions": "genewise", "fitted_dispersions": "trend"}
        names |= {"dispersions": "final", "_outlier_genes": "outlier"}
        found = self.dds.var.loc[self.dds.var["non_zero"], list(names)].rename(columns=names)
        return found.astype({"outlier": bool})

    def _coefficient(self, stats: DeseqStats, contrast: tuple[str, str, str]) -> str:
        variable, target, reference = contrast
        name = f"{variable}[T.{target}]"
        vector = stats.contrast_vector
        if name not in stats.LFC or vector[stats.LFC.columns.get_loc(name)] != 1 or np.count_nonzero(vector) != 1:
            raise DataError(
                f"shrinkage: {target!r} against {reference!r} is not one coefficient of {self.design!r}; compare with the "
                "design's reference level, or leave it unshrunk"
            )
        return name


def fit(adata: anndata.AnnData, *, design: str, engine: str = "pydeseq2", threads: int = 1) -> Fit:
    """Fit a design once, to test several contrasts of it; parameters and errors as of `deseq`."""
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r}: there is {', '.join(ENGINES)}")
    _check_design(adata, design)
    expression.size_factors(adata)  # says in one line where there are none
    inference = DefaultInference(n_cpus=threads)
    with expression.quiet_pydeseq2():
        dds = DeseqDataSet(
            counts=expression.counts(adata),
            metadata=_covariates(adata.obs),
            design=design,
            inference=inference,
            quiet=True,
        )
        dds.deseq2()
    return Fit(adata, design, dds, inference)


def deseq(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    engine: str = "pydeseq2",
    threads: int = 1,
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
        (variable, target, reference): a positive log2 fold change is higher in the target. A target ``a+b`` pools two
        levels: the mean of their log2 fold changes is tested.
    options
        Of `Fit.results`: ``alpha``, the level that independent filtering is tuned for; ``independent_filter`` and
        ``cooks_filter``, on as in R; ``shrink``, whether ``log2FoldChange`` and ``lfcSE`` are shrunk (apeglm's prior, Zhu et
        al. 2019), p-values untouched.

    Returns
    -------
    A row a gene, in the order of the data set: ``baseMean`` (counts), ``log2FoldChange``, ``lfcSE`` (log2),
    ``stat`` (Wald), ``pvalue``, ``padj`` (Benjamini-Hochberg). Genes without counts, and genes that Cook's distance or
    independent filtering takes out, have NaN where R has NA.

    Raises
    ------
    DataError
        Naming a column, level or term: not there, empty, too few samples, or confounded with another.
    """
    _check_contrast(adata, contrast)
    return fit(adata, design=design, engine=engine, threads=threads).results(contrast, **options)


def contrast_vector(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray:
    """Weights of the design's coefficients in a contrast; pooled levels count the same each."""
    variable, target, reference = contrast
    model = FormulaicContrasts(_covariates(adata.obs), design)
    levels = _levels(adata, variable, target)
    return np.mean([model.contrast(column=variable, baseline=reference, group_to_compare=x) for x in levels], axis=0)


def linear(
    adata: anndata.AnnData, table: pd.DataFrame, *, design: str, contrasts: dict[str, tuple[str, str, str]]
) -> pd.DataFrame:
    """Contrasts of values that are no counts, such as scores or log intensities, by ordinary least squares.

    With one factor this is Student's t test; with the donor in the design, the paired one.

    Parameters
    ----------
    table
        Samples x features, in the order of the data set.

    Returns
    -------
    A row a contrast and feature: ``contrast``, ``feature``, ``mean`` (of all samples), ``difference``, ``low``, ``high`` (95%
    interval), ``df``, ``p`` and ``padj`` (Benjamini-Hochberg over the features of the contrast).

    Raises
    ------
    DataError
        As of `deseq`.
    """
    _check_design(adata, design)
    x, y = design_matrix(adata, design).to_numpy(dtype=float), table.to_numpy(dtype=float)
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    df = len(x) - x.shape[1]
    variance = np.square(y - x @ coefficients).sum(axis=0) / df
    inverse = np.linalg.inv(x.T @ x)
    found = []
    for name, contrast in contrasts.items():
        _check_contrast(adata, contrast)
        vector = contrast_vector(adata, design, contrast)
        rows = pd.DataFrame({"contrast": name, "feature": table.columns, "mean": y.mean(axis=0)})
        error = np.sqrt(variance * (vector @ inverse @ vector))
        difference = vector @ coefficients
        half = student.ppf(0.975, df) * error
        rows["difference"], rows["low"], rows["high"], rows["df"] = difference, difference - half, difference + half, df
        with np.errstate(divide="ignore", invalid="ignore"):
            rows["p"] = np.where(error > 0, 2 * student.sf(np.abs(difference / error), df), np.nan)
        rows["padj"] = false_discovery_control(rows["p"].fillna(1)) if len(rows) else []
        found.append(rows)
    return pd.concat(found, ignore_index=True)


def called_under_shuffles(
    adata: anndata.AnnData, table: pd.DataFrame, *, alpha: float, n_permutations: int, seed: int
) -> np.ndarray:
    """How many features `linear` calls between two groups under each of a number of shuffled labelings."""
    group = adata.uns["epigen"]["group"]
    design, contrasts = contrasts_of(adata)
    shuffled, counts = adata.copy(), []
    new = evaluation.labelings(adata.obs[group].astype(str).to_numpy(), n_permutations=n_permutations, seed=seed)
    for labels in itertools.islice(new, n_permutations):
        shuffled.obs[group] = pd.Categorical(labels, adata.obs[group].cat.categories)
        counts.append(int((linear(shuffled, table, design=design, contrasts=contrasts)["padj"] < alpha).sum()))
    return np.array(counts)


def contrasts_of(adata: anndata.AnnData, *, design: str = "", contrast: str = "") -> tuple[str, dict[str, tuple]]:
    """The design and the contrasts of a data set: the caller's, else those of ``data/contrasts.csv``, else the plain ones.

    Parameters
    ----------
    design, contrast
        As `deseq` takes them, the contrast as text; empty to look them up. Without a row in the table, every level of the
        group is compared with the first, within donors where there are any.

    Returns
    -------
    The design, and name -> contrast.
    """
    about = adata.uns["epigen"]
    if contrast:
        variable, target, reference = parse_contrast(contrast)
        return design or f"~{variable}", {f"{target} against {reference}": (variable, target, reference)}
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    rows = table[table["id"].str.startswith(about["name"] + ":")]
    if len(rows):
        blocking = [term for term in rows["blocking"].iloc[0].split(";") if term]
        found = {row.id.partition(":")[2]: (row.variable, row.target, row.reference) for row in rows.itertuples()}
        return design or "~" + " + ".join([*blocking, rows["variable"].iloc[0]]), found
    group = about["group"]
    reference, *others = adata.obs[group].cat.categories
    blocking = [about["donor"]] if about.get("donor") else []
    return design or "~" + " + ".join([*blocking, group]), {
        f"{level} against {reference}": (group, level, reference) for level in others
    }


def _levels(adata: anndata.AnnData, variable: str, target: str) -> list[str]:
    """The level, or the levels that a target such as ``a+b`` pools."""
    there = set(adata.obs[variable].astype(str))
    parts = [part.strip() for part in target.split("+")]
    return parts if target not in there and len(parts) > 1 else [target]


def _check_contrast(adata: anndata.AnnData, contrast: tuple[str, str, str]) -> None:
    variable, target, reference = contrast
    if variable not in adata.obs:
        raise DataError(f"contrast: no column {variable!r} in obs (columns: {', '.join(map(str, adata.obs))})")
    sizes = adata.obs[variable].astype(str).value_counts()
    targets = _levels(adata, variable, target)
    for level in (*targets, reference):
        if level not in sizes:
            levels = ", ".join(sorted(sizes.index))
            raise DataError(f"contrast: {variable!r} has no level {level!r} (levels: {levels})")
        if sizes[level] < 2:
            raise DataError(f"contrast: {level!r} of {variable!r} has one sample; a comparison needs replicates")
    if reference in targets:
        raise DataError(f"contrast: {reference!r} is compared with itself; name two levels")


def _check_design(adata: anndata.AnnData, design: str) -> None:
    """Say in one line what a design cannot be."""
    matrix = design_matrix(adata, design)
    if len(matrix) < adata.n_obs:
        lost = adata.obs_names.difference(matrix.index, sort=False)[0]
        raise DataError(f"design {design!r}: sample {lost!r} lacks a value; fill it in, or drop the sample")
    rank = np.linalg.matrix_rank(matrix.to_numpy())
    if rank < matrix.shape[1]:
        raise DataError(f"design {design!r}: {_dependent(matrix)} cannot be told apart in these samples; drop a term")
    if len(matrix) <= matrix.shape[1]:
        raise DataError(
            f"design {design!r}: {matrix.shape[1]} coefficients for {len(matrix)} samples leave nothing to estimate "
            "dispersion from; add replicates"
        )


def design_matrix(adata: anndata.AnnData, design: str) -> pd.DataFrame:
    """The model matrix of a formula over ``obs``, samples x coefficients.

    A column of text is a factor, unless it holds numbers, more different ones than half of the samples: age or RIN.

    Raises
    ------
    DataError
        If the formula cannot be read or names a column that is not there.
    """
    try:
        return pd.DataFrame(model_matrix(design, _covariates(adata.obs)))
    except FormulaicError as error:
        columns = ", ".join(map(str, adata.obs))
        raise DataError(f"design {design!r}: {str(error).splitlines()[0]} (columns: {columns})") from None


def blocks(adata: anndata.AnnData, design: str, contrast: tuple[str, str, str]) -> np.ndarray | None:
    """Samples that a shuffle may exchange labels among: of one donor, or of one level of what the design blocks on.

    Returns
    -------
    A word a sample, or None where any two may be exchanged.
    """
    donor = adata.uns["epigen"].get("donor")
    terms = {term.strip() for term in design.lstrip("~ ").replace("*", "+").split("+")}
    columns = [donor] if donor else [term for term in adata.obs if term in terms and term != contrast[0]]
    return adata.obs[columns].astype(str).agg("/".join, axis=1).to_numpy() if columns else None


def _covariates(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table with numbers as numbers where, as levels, they would leave too few samples to a level."""
    obs = obs.copy()
    for column in obs:
        if not pd.api.types.is_numeric_dtype(obs[column]) and obs[column].nunique() > len(obs) / 2:
            numbers = pd.to_numeric(obs[column].astype(object), errors="coerce")
            obs[column] = numbers if (numbers.notna() == obs[column].notna()).all() else obs[column]
    return obs


def _dependent(matrix: pd.DataFrame) -> str:
    """Names of coefficients whose columns are linear combinations of others."""
    full = np.linalg.matrix_rank(matrix.to_numpy())
    names = [name for name in matrix if np.linalg.matrix_rank(matrix.drop(columns=name).to_numpy()) == full]
    return " and ".join(name for name in names if name != "Intercept") or "its coefficients"
