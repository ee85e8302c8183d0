"""Random analyses for tests/fuzz_deseq.py: a data set, a design over its samples, a contrast and options, from a seed.

A case is held in the words of `epigen_utils.expression.differential` and written in those of DESeq2's manual pages, for
data/reference/deseq2_cases.R. Names that R would have to change are replaced there, so that results are compared and
not names.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import datasets

#: Terms of a formula: each a tuple of the columns whose interaction it is.
Terms = tuple[tuple[str, ...], ...]

#: Kinds of design, and how often each is drawn.
DESIGNS = {
    "two groups": 0.19, "levels": 0.14, "batch": 0.13, "pairs": 0.11, "interaction": 0.11, "nested": 0.04,
    "numeric": 0.09, "numeric alone": 0.04, "alias": 0.04, "empty cell": 0.03, "unbalanced": 0.05, "no replicates": 0.03,
}  # fmt: skip
#: Kinds of contrast.
CONTRASTS = {"reference": 0.42, "swapped": 0.14, "between": 0.16, "weights": 0.24, "wrong": 0.04}
#: Properties of simulated counts; several may be drawn.
COUNTS = {
    "outliers": 0.3, "zero inflation": 0.15, "genes without counts": 0.35, "single samples": 0.25, "huge": 0.12,
    "no gene everywhere": 0.12, "poisson": 0.07, "constant": 0.1, "empty group": 0.25,
    "all equal": 0.015,
}  # fmt: skip
#: Shares of the other choices.
REAL, FEW_GENES, ODD_NAMES, UNUSED_LEVEL, LRT, SHRUNKEN = 0.13, 0.08, 0.15, 0.08, 0.22, 0.2

ODD_LEVELS = (
    "wild type",
    "knock-out",
    "+/-",
    "5 mg",
    "µ-opioid",
    "été",
    "a.b",
    "a b",
    "x+y",
    "(ctrl)",
    "2",
    "a:b",
    "a[b]",
)
ODD_COLUMNS = ("cell line", "dose-group", "Größe", "1st")

#: Largest count that R's integers hold, with room for a replaced one.
LARGEST = 2_000_000_000


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a fit and of a test, by the names of `differential.fit_design` and `FittedDesign.results`."""

    size_factors: str | tuple[float, ...] = "ratio"
    trend: str = "parametric"
    min_replicates_for_replace: int | None = 7
    alpha: float = 0.05
    independent_filter: bool = True
    cooks_filter: bool = True
    lfc_threshold: float = 0.0
    alt_hypothesis: str = "greaterAbs"
    shrink: str | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One analysis.

    Attributes
    ----------
    counts
        Samples x genes.
    normalization_factors
        Of the same shape, or None.
    obs
        A row a sample; factors are categorical with the reference first, covariates are floats.
    terms, reduced
        The formula's terms, and those of the reduced one; without a reduced one the test is Wald's.
    contrast
        (variable, target, reference), weights by the names of formulaic's coefficients, or None (a likelihood-ratio
        test of the last coefficient).
    kinds
        What was drawn, in words.
    """

    seed: int
    number: int
    counts: pd.DataFrame
    obs: pd.DataFrame
    terms: Terms
    contrast: tuple[str, str, str] | dict[str, float] | None
    reduced: Terms | None = None
    normalization_factors: pd.DataFrame | None = None
    options: Options = Options()
    kinds: tuple[str, ...] = ()

    @property
    def design(self) -> str:
        """The formula for formulaic."""
        return formula(self.terms, {column: quoted(column) for column in self.obs})

    @property
    def reduced_design(self) -> str | None:
        """The reduced formula for formulaic."""
        columns = {column: quoted(column) for column in self.obs}
        return None if self.reduced is None else formula(self.reduced, columns)

    def adata(self) -> anndata.AnnData:
        """The data set, as `epigen_utils` wants it."""
        return anndata.AnnData(
            obs=self.obs.copy(),
            var=pd.DataFrame({"symbol": self.counts.columns}, index=self.counts.columns),
            layers={"counts": self.counts.to_numpy(np.int64)},
            uns={"epigen": {"name": f"case {self.number}", "measure": "counts"}},
        )


def quoted(column: str) -> str:
    """A column's name in a formula."""
    return column if column.isidentifier() and column.isascii() else f"`{column}`"


def formula(terms: Terms, columns: dict[str, str]) -> str:
    """Text of a formula, with each column by another name."""
    return "~ " + (" + ".join(":".join(columns[column] for column in term) for term in terms) or "1")


# What is drawn


def draw(seed: int, number: int) -> Case:
    """The case of a number; cases of one seed do not depend on each other."""
    rng = np.random.default_rng([seed, number])
    if rng.random() < REAL:
        name, counts, obs, terms = draw_real(rng)
        kinds = [f"data: {name}", "design: real"]
    else:
        kind = choice(rng, DESIGNS)
        obs, terms = draw_design(rng, kind)
        properties = [name for name, share in COUNTS.items() if rng.random() < share]
        counts = draw_counts(rng, obs, properties)
        kinds = ["data: simulated", f"design: {kind}", *(f"counts: {name}" for name in properties)]
    if counts.shape[1] <= 20:
        kinds.append("few genes")
    if rng.random() < UNUSED_LEVEL:
        obs = with_unused_level(rng, obs)
        kinds.append("unused level")
    if rng.random() < ODD_NAMES:
        obs, terms = with_odd_names(rng, obs, terms)
        kinds.append("odd names")
    contrast, kind = draw_contrast(rng, obs, terms)
    kinds.append(f"contrast: {kind}")
    reduced = draw_reduced(rng, terms) if rng.random() < LRT else None
    options, factors, more = draw_options(rng, counts, kind, is_lrt=reduced is not None)
    return Case(seed, number, counts, obs, terms, contrast, reduced, factors, options, (*kinds, *more))


def choice(rng: np.random.Generator, shares: dict):
    """A key, by shares."""
    keys, weights = list(shares), np.array(list(shares.values()))
    return keys[rng.choice(len(keys), p=weights / weights.sum())]


def factor(values, levels) -> pd.Categorical:
    """A categorical of text."""
    return pd.Categorical([str(value) for value in values], [str(level) for level in levels])


def draw_levels(rng: np.random.Generator, n: int, n_levels: int, prefix: str) -> pd.Categorical:
    """A factor of n samples: in turn, or at random with each level once at least."""
    levels = [f"{prefix}{i + 1}" for i in range(n_levels)]
    index = np.arange(n) % n_levels
    if rng.random() < 0.5:
        index = np.concatenate([np.arange(n_levels), rng.integers(n_levels, size=n - n_levels)])
        rng.shuffle(index)
    return factor(np.array(levels)[index], levels)


def draw_design(rng: np.random.Generator, kind: str) -> tuple[pd.DataFrame, Terms]:
    """Samples and the terms of a design over them; the column of interest comes last."""
    n = int(rng.choice([4, 5, 6, 7, 8, 10, 12, 16, 24, 40], p=[0.05, 0.05, 0.2, 0.1, 0.2, 0.1, 0.1, 0.1, 0.06, 0.04]))
    if kind == "no replicates":
        n = int(rng.integers(2, 5))
        return samples({"condition": factor(range(n), range(n))}), (("condition",),)
    if kind == "levels":
        return samples({"condition": draw_levels(rng, max(n, 8), int(rng.integers(3, 5)), "c")}), (("condition",),)
    if kind == "pairs":
        donors = max(n // 2, 3)
        table = {"donor": factor(np.repeat(np.arange(donors), 2), range(donors))}
        table["condition"] = factor(np.tile(["before", "after"], donors), ["before", "after"])
        return samples(table), (("donor",), ("condition",))
    if kind == "nested":
        donors = max(n // 4, 2)
        table = {"group": factor(np.repeat(["g1", "g2"], 2 * donors), ["g1", "g2"])}
        table["treatment"] = factor(np.tile(["no", "yes"], 2 * donors), ["no", "yes"])
        return samples(table), (("group",), ("group", "treatment"))
    if kind in ("interaction", "empty cell"):
        n = max(n, 8)
        table = {"batch": factor(np.arange(n) % 2, range(2)), "condition": factor(np.arange(n) // 2 % 2, "01")}
        if n > 10 and rng.random() < 0.6:
            table["condition"] = factor(np.arange(n) // 2 % 3, range(3))
        table = samples(table)
        if kind == "empty cell":
            first, second = table["batch"].astype(str), table["condition"].astype(str)
            table = table[~((first == "1") & (second == second.max()))]
        return table, (("batch",), ("condition",), ("batch", "condition"))
    table = {}
    if kind in ("batch", "unbalanced", "alias"):
        n = max(n, 6)
        table["batch"] = draw_levels(rng, n, int(rng.integers(2, 4)), "b")
    if kind in ("numeric", "numeric alone"):
        n = max(n, 6)
        table["age"] = draw_covariate(rng, n)
    if kind != "numeric alone":
        table["condition"] = draw_levels(rng, n, 2, "c")
    if kind == "alias":
        codes = table["batch"].codes % 2
        table["condition"] = factor(np.array(["c1", "c2"])[codes], ["c1", "c2"])
    table = samples(table)
    if kind == "unbalanced":
        first, second = table["batch"].astype(str), table["condition"].astype(str)
        table = table[~((first == first.max()) & (second == "c1"))]
    return table, tuple((column,) for column in table)


def draw_covariate(rng: np.random.Generator, n: int) -> np.ndarray:
    """A numeric covariate: centred, an age in years, or of a large scale."""
    scale = rng.choice(["centred", "age", "large"], p=[0.6, 0.3, 0.1])
    values = {"centred": rng.normal(size=n), "age": rng.uniform(20, 80, size=n), "large": rng.uniform(1e3, 1e5, size=n)}
    return np.round(values[scale], 3)


def samples(table: dict) -> pd.DataFrame:
    """A sample table."""
    table = pd.DataFrame(table)
    table.index = [f"s{i + 1}" for i in range(len(table))]
    return table


def draw_counts(rng: np.random.Generator, obs: pd.DataFrame, properties: list[str]) -> pd.DataFrame:
    """Counts of a negative binomial around a drawn trend, with effects of every column and what was asked for."""
    n = len(obs)
    n_genes = (
        int(rng.integers(1, 21)) if rng.random() < FEW_GENES else int(np.exp(rng.uniform(np.log(50), np.log(800))))
    )
    mean = np.exp(rng.normal(rng.uniform(2.5, 5.5), rng.uniform(0.5, 2.2), size=n_genes))
    dispersion = 10 ** rng.uniform(-2.5, -0.3) + 10 ** rng.uniform(-1, 1.2) / mean
    dispersion *= np.exp(rng.normal(0, rng.uniform(0, 1), size=n_genes))
    if "poisson" in properties:
        dispersion[:] = 1e-8
    depth = np.exp(rng.normal(0, rng.uniform(0.05, 0.8), size=n))
    mu = depth[:, None] * mean * np.exp2(draw_effects(rng, obs, n_genes))
    if "huge" in properties:
        mu[:, rng.random(n_genes) < 0.1] *= 10 ** (rng.uniform(2, 4) if rng.random() < 0.7 else rng.uniform(4, 7))
    mu = np.clip(mu, 1e-8, LARGEST / 20)
    counts = rng.poisson(mu * rng.gamma(1 / dispersion, dispersion, size=mu.shape))
    for name, plant in PLANT.items():
        if name in properties:
            plant(rng, counts, obs)
    counts = np.minimum(counts, LARGEST)
    return pd.DataFrame(counts, obs.index, [f"g{i + 1}" for i in range(n_genes)])


def draw_effects(rng: np.random.Generator, obs: pd.DataFrame, n_genes: int) -> np.ndarray:
    """Log2 effects, samples x genes: of each level of a factor, and of a standard deviation of a covariate."""
    effects = np.zeros((len(obs), n_genes))
    for column in obs:
        changed = (rng.random(n_genes) < 0.25) * rng.uniform(0.5, 2)
        if isinstance(obs[column].dtype, pd.CategoricalDtype):
            levels = rng.normal(size=(len(obs[column].cat.categories), n_genes)) * changed
            effects += levels[obs[column].cat.codes]
        else:
            scaled = (obs[column] - obs[column].mean()) / obs[column].std()
            effects += scaled.to_numpy()[:, None] * rng.normal(size=n_genes) * changed / 2
    return effects


def plant_outliers(rng, counts, obs):
    """Single counts many times too large."""
    for gene in np.flatnonzero(rng.random(counts.shape[1]) < 0.08):
        sample = rng.integers(len(counts))
        counts[sample, gene] = min(LARGEST, int((counts[sample, gene] + 5) * 10 ** rng.uniform(1, 3)))


def plant_zeros(rng, counts, obs):
    """A share of all counts is lost."""
    counts[rng.random(counts.shape) < rng.uniform(0.1, 0.6)] = 0


def plant_empty_genes(rng, counts, obs):
    """Genes without a count."""
    counts[:, rng.random(counts.shape[1]) < 0.06] = 0


def plant_single_samples(rng, counts, obs):
    """Genes that are seen in one sample."""
    for gene in np.flatnonzero(rng.random(counts.shape[1]) < 0.04):
        counts[:, gene] = 0
        counts[rng.integers(len(counts)), gene] = int(10 ** rng.uniform(0, 4))


def plant_a_zero_everywhere(rng, counts, obs):
    """No gene is detected in every sample."""
    counts[rng.integers(len(counts), size=counts.shape[1]), np.arange(counts.shape[1])] = 0


def plant_constants(rng, counts, obs):
    """Genes with the same count in all samples."""
    counts[:, rng.random(counts.shape[1]) < 0.03] = int(10 ** rng.uniform(0, 4))


def plant_one_count(rng, counts, obs):
    """All counts are the same."""
    counts[:] = int(rng.integers(1, 100))


def plant_empty_groups(rng, counts, obs):
    """Genes that are not seen in one level of a factor, or only there."""
    factors = [column for column in obs if isinstance(obs[column].dtype, pd.CategoricalDtype)]
    for gene in np.flatnonzero(rng.random(counts.shape[1]) < 0.04):
        if factors:
            column = obs[rng.choice(factors)]
            inside = (column == rng.choice(column.cat.categories)).to_numpy()
            counts[inside if rng.random() < 0.7 else ~inside, gene] = 0


PLANT = {
    "outliers": plant_outliers,
    "zero inflation": plant_zeros,
    "genes without counts": plant_empty_genes,
    "single samples": plant_single_samples,
    "constant": plant_constants,
    "empty group": plant_empty_groups,
    "no gene everywhere": plant_a_zero_everywhere,
    "all equal": plant_one_count,
}


@functools.cache
def real_data(name: str) -> anndata.AnnData:
    """A registered data set with one row for each count."""
    return datasets.load(name)


def draw_real(rng: np.random.Generator) -> tuple[str, pd.DataFrame, pd.DataFrame, Terms]:
    """Some samples and genes of airway or pasilla."""
    name, condition, batch = [("airway", "dex", "cell"), ("pasilla", "condition", "type")][rng.integers(2)]
    adata = real_data(name)
    n = adata.n_obs if rng.random() < 0.5 else int(rng.integers(4, adata.n_obs))
    chosen = np.sort(rng.choice(adata.n_obs, n, replace=False))
    counts = adata.layers["counts"][chosen]
    detected = np.flatnonzero(counts.any(axis=0) | (rng.random(adata.n_vars) < 0.05))
    genes = np.sort(rng.choice(detected, int(rng.integers(100, 801)), replace=False))
    table = {}
    for column in (batch, condition):
        values = adata.obs[column].astype(str).to_numpy()[chosen]
        first = adata.uns["epigen"]["reference"] if column == condition else ""
        table[column] = factor(values, sorted(set(values), key=lambda level, first=first: (level != first, level)))
    obs = pd.DataFrame(table, index=[f"s{i + 1}" for i in range(n)])
    terms = ((condition,),) if rng.random() < 0.4 else ((batch,), (condition,))
    counts = pd.DataFrame(counts[:, genes], obs.index, [f"g{i + 1}" for i in range(len(genes))])
    return name, counts, obs, terms


def with_unused_level(rng: np.random.Generator, obs: pd.DataFrame) -> pd.DataFrame:
    """Add a level that no sample has, at any place, to a factor."""
    factors = [column for column in obs if isinstance(obs[column].dtype, pd.CategoricalDtype)]
    if not factors:
        return obs
    column = rng.choice(factors)
    levels = list(obs[column].cat.categories)
    levels.insert(rng.integers(len(levels) + 1), "unused")
    return obs.assign(**{column: obs[column].cat.set_categories(levels)})


def with_odd_names(rng: np.random.Generator, obs: pd.DataFrame, terms: Terms) -> tuple[pd.DataFrame, Terms]:
    """Rename columns and levels to what people write in a table."""
    columns = dict(zip(obs, rng.permutation(ODD_COLUMNS).tolist(), strict=False)) if rng.random() < 0.6 else {}
    renamed = obs.rename(columns=columns)
    for column in renamed:
        if isinstance(renamed[column].dtype, pd.CategoricalDtype) and len(renamed[column].cat.categories) <= len(
            ODD_LEVELS
        ):
            odd = rng.permutation(ODD_LEVELS)[: len(renamed[column].cat.categories)]
            renamed[column] = renamed[column].cat.rename_categories(odd.tolist())
    return renamed, tuple(tuple(columns.get(column, column) for column in term) for term in terms)


def draw_contrast(rng: np.random.Generator, obs: pd.DataFrame, terms: Terms):
    """A contrast and its kind."""
    kind = choice(rng, CONTRASTS)
    names = [ours for ours, _ in coefficients(obs, terms)][1:]
    column = terms[-1][-1]
    is_factor = isinstance(obs[column].dtype, pd.CategoricalDtype)
    if kind == "weights" or not is_factor:
        chosen = rng.choice(len(names), size=min(len(names), int(rng.integers(1, 4))), replace=False)
        weights = rng.choice([1.0, -1.0, 0.5, 2.0], size=len(chosen), p=[0.5, 0.2, 0.2, 0.1])
        if not is_factor or rng.random() < 0.4:
            chosen, weights = [len(names) - 1], [1.0]
        return {names[i]: float(weight) for i, weight in zip(chosen, weights, strict=True)}, "weights"
    reference, *others = used_levels(obs[column])
    if kind == "wrong" or not others:
        wrong = [(column, reference, reference), (column, "absent", reference), ("absent", "a", "b")]
        return wrong[rng.integers(3)], "wrong"
    if kind == "between" and len(others) > 1:
        target, base = rng.permutation(others)[:2].tolist()
        return (column, target, base), "between"
    target = str(rng.choice(others))
    if kind == "swapped":
        return (column, reference, target), "swapped"
    return (column, target, reference), "reference"


def draw_reduced(rng: np.random.Generator, terms: Terms) -> Terms:
    """A formula without some of the terms, whose interactions go with them."""
    dropped = {terms[-1][0]} if len(terms[-1]) == 1 else set()
    if len(terms) > 1 and rng.random() < 0.3:
        dropped = {terms[int(rng.integers(len(terms)))][0]}
    kept = tuple(term for term in terms[:-1] if not dropped & set(term))
    if terms[-1] not in kept and not dropped & set(terms[-1]) and dropped:
        kept += (terms[-1],)
    return kept


def draw_options(rng: np.random.Generator, counts: pd.DataFrame, contrast: str, *, is_lrt: bool):
    """Options, normalization factors, and the kinds of both, for a kind of contrast."""
    values, kinds, factors = {}, [], None
    ratio = 0.68 if (counts > 0).all().any() else 0.2  # else refused by both, which a few cases show
    how = choice(rng, {"ratio": ratio, "poscounts": 0.18, "given": 0.09, "normalization factors": 0.09})
    if how == "poscounts":
        values["size_factors"] = how
    elif how == "given":
        values["size_factors"] = tuple(np.round(np.exp(rng.normal(0, 0.4, size=len(counts))), 6).tolist())
    elif how == "normalization factors":
        raw = np.exp(rng.normal(0, 0.3, size=(len(counts), 1)) + rng.normal(0, 0.2, size=counts.shape))
        factors = pd.DataFrame(raw / np.exp(np.log(raw).mean(axis=0)), counts.index, counts.columns).round(9)
    kinds.append(f"size factors: {how}")
    values["trend"] = choice(rng, {"parametric": 0.82, "mean": 0.13, "local": 0.04})
    values["min_replicates_for_replace"] = choice(rng, {7: 0.8, 3: 0.1, None: 0.1})
    values["alpha"] = choice(rng, {0.05: 0.5, 0.1: 0.3, 0.01: 0.1, 0.2: 0.1})
    values["independent_filter"] = bool(rng.random() < 0.85)
    values["cooks_filter"] = bool(rng.random() < 0.85)
    if not is_lrt and rng.random() < 0.35:
        values["lfc_threshold"] = choice(rng, {0.25: 0.3, 0.5: 0.3, 1.0: 0.3, 0.0: 0.1})
        values["alt_hypothesis"] = choice(rng, {"greaterAbs": 1, "lessAbs": 1, "greater": 1, "less": 1})
        kinds.append(f"alternative: {values['alt_hypothesis']}")
    elif not is_lrt and contrast == "reference" and rng.random() < SHRUNKEN:
        values["shrink"] = "normal"
        kinds.append("shrink: normal")
    kinds.append("test: LRT" if is_lrt else "test: Wald")
    kinds += [f"{name}: {values[name]}" for name in ("trend", "min_replicates_for_replace") if name in values]
    kinds += [f"{name}: off" for name in ("independent_filter", "cooks_filter") if not values[name]]
    return Options(**values), factors, kinds


# Names in R


def used_levels(column: pd.Series) -> list[str]:
    """Levels that samples have, the reference first."""
    present = set(column.astype(str))
    return [level for level in column.cat.categories if level in present]


def safe_names(names, prefix: str) -> dict[str, str]:
    """Names that R leaves as they are; those it would change become a prefix and a number."""
    return {
        name: name if re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) else f"{prefix}{i + 1}q"
        for i, name in enumerate(names)
    }


def coefficients(obs: pd.DataFrame, terms: Terms) -> list[tuple[str, str]]:
    """Names of the coefficients of a hierarchical design: formulaic's, and resultsNames's."""
    columns = safe_names(obs, "col")
    names = [("Intercept", "Intercept")]
    for term in terms:
        products = [("", "")]
        for column in term:
            products = [
                (f"{ours}:{a}".strip(":"), f"{theirs}.{b}".strip("."))
                for ours, theirs in products
                for a, b in parts_of(obs, terms, term, column, columns[column])
            ]
        names += products
    return names


def parts_of(obs: pd.DataFrame, terms: Terms, term: tuple[str, ...], column: str, name: str) -> list[tuple[str, str]]:
    """What a column adds to the names of a term's coefficients."""
    if not isinstance(obs[column].dtype, pd.CategoricalDtype):
        return [(column, name)]
    levels, safe = used_levels(obs[column]), safe_names(obs[column].cat.categories, "lev")
    reference, *others = levels
    if len(term) == 1:
        return [(f"{column}[T.{level}]", f"{name}_{safe[level]}_vs_{safe[reference]}") for level in others]
    margin = tuple(other for other in term if other != column)
    if margin in terms:
        # R codes a factor in an interaction by contrasts where the term without it is in the model
        return [(f"{column}[T.{level}]", f"{name}{safe[level]}") for level in others]
    return [(f"{column}[{level}]", f"{name}{safe[level]}") for level in levels]


# Files


def write(case: Case, folder: Path) -> None:
    """Write a case for R, with what `read` needs to have it back."""
    folder.mkdir(parents=True)
    columns = safe_names(case.obs, "col")
    levels = {
        column: safe_names(case.obs[column].cat.categories, "lev")
        for column in case.obs
        if isinstance(case.obs[column].dtype, pd.CategoricalDtype)
    }
    table = case.obs.copy()
    for column, names in levels.items():
        table[column] = table[column].cat.rename_categories(names)
    table.rename(columns=columns).to_csv(folder / "samples.csv", index_label="sample")
    case.counts.T.to_csv(folder / "counts.csv", index_label="gene")
    if case.normalization_factors is not None:
        case.normalization_factors.T.to_csv(folder / "normalization_factors.csv", index_label="gene")
    about = {
        "columns": {
            columns[column]: {"kind": "factor", "levels": list(levels[column].values())}
            if column in levels
            else {"kind": "numeric"}
            for column in case.obs
        },
        "design": formula(case.terms, columns),
        **contrast_in_r(case, columns, levels),
        **options_in_r(case),
        "ours": {
            "seed": case.seed,
            "number": case.number,
            "names": columns,
            "levels": levels,
            "terms": case.terms,
            "reduced": case.reduced,
            "contrast": case.contrast,
            "options": dataclasses.asdict(case.options),
            "kinds": case.kinds,
        },
    }
    (folder / "case.json").write_text(json.dumps(about, indent=1, ensure_ascii=False))


def contrast_in_r(case: Case, columns: dict[str, str], levels: dict[str, dict[str, str]]) -> dict:
    """The contrast, and the reduced formula, as deseq2_cases.R reads them."""
    found = {"test": "Wald" if case.reduced is None else "LRT"}
    if case.reduced is not None:
        found["reduced"] = formula(case.reduced, columns)
    if isinstance(case.contrast, dict):
        names = dict(coefficients(case.obs, case.terms))
        found["contrast"] = {names[name]: weight for name, weight in case.contrast.items()}
    elif case.contrast:
        column, *two = case.contrast
        if case.options.shrink:
            names = dict(coefficients(case.obs, case.terms))
            found["shrinkCoef"] = names.get(f"{column}[T.{two[0]}]", "absent")
        found["contrast"] = [columns.get(column, column), *(levels.get(column, {}).get(name, name) for name in two)]
    return found


def options_in_r(case: Case) -> dict:
    """Options by the names of DESeq2."""
    options = case.options
    given = not isinstance(options.size_factors, str)
    found = {
        "alpha": options.alpha,
        "lfcThreshold": options.lfc_threshold,
        "altHypothesis": options.alt_hypothesis,
        "sfType": "ratio" if given else options.size_factors,
        "fitType": options.trend,
        "independentFiltering": options.independent_filter,
        "cooksCutoff": options.cooks_filter,
        "minReplicatesForReplace": options.min_replicates_for_replace,
        "vst": "none",
        "shrink": options.shrink or "none",
    }
    return found | ({"sizeFactors": options.size_factors} if given else {})


def table_file(folder: Path, name: str) -> Path:
    """A table of a case, compressed or not."""
    return next((path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.exists()), folder / name)


def read(folder: Path) -> Case:
    """Read a case that `write` wrote."""
    ours = json.loads((folder / "case.json").read_text())["ours"]
    names = {safe: column for column, safe in ours["names"].items()}
    obs = pd.read_csv(folder / "samples.csv", index_col=0, dtype=str, keep_default_na=False).rename(columns=names)
    for column in obs:
        if column in ours["levels"]:
            levels = ours["levels"][column]
            coded = pd.Categorical(obs[column], list(levels.values()))
            obs[column] = coded.rename_categories(list(levels))
        else:
            obs[column] = obs[column].astype(float)
    factors = table_file(folder, "normalization_factors")
    options = ours["options"]
    if isinstance(options["size_factors"], list):
        options["size_factors"] = tuple(options["size_factors"])
    contrast = tuple(ours["contrast"]) if isinstance(ours["contrast"], list) else ours["contrast"]
    return Case(
        ours["seed"],
        ours["number"],
        pd.read_csv(table_file(folder, "counts"), index_col=0).T,
        obs.rename_axis(None),
        as_terms(ours["terms"]),
        contrast,
        None if ours["reduced"] is None else as_terms(ours["reduced"]),
        pd.read_csv(factors, index_col=0).T if factors.exists() else None,
        Options(**options),
        tuple(ours["kinds"]),
    )


def as_terms(lists: list[list[str]]) -> Terms:
    """Terms that went through JSON."""
    return tuple(tuple(term) for term in lists)
