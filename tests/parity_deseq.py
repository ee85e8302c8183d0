"""Parity with R on whole data sets: ours beside R DESeq2's on real cohorts and on simulated ones of three sizes.

    python tests/parity_deseq.py [--only NAME ...] [--record data/recorded/deseq-parity.json] [--keep FOLDER]

`fuzz_deseq` runs R and compares; here every gene beyond a tolerance is listed with its cause. The rat, human, zebrafish
and mouse cohorts come from the registry's addresses, or from the folder that EPIGEN_DATA_MIRROR names; a data set that
cannot be had is left out and named. For the Expression Atlas's contrasts R 1.50.2's published fold changes stand beside,
whose differences are R 1.38.3's too. The exit code is 1 if a data set is outside of the tolerances, or if
none can be had.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import deseq_draws
import fuzz_deseq
import numpy as np
import pandas as pd
import torch
from deseq_draws import Case, Options

from epigen_utils.book import provenance
from epigen_utils.data import datasets, fetching, registry, simulated_bulk
from epigen_utils.deseq import dispersions, glm
from epigen_utils.errors import DataError
from epigen_utils.expression import agreement, designs, differential, normalisation
from epigen_utils.files import write_atomically

REAL = {
    "airway": (("cell",), ("dex",)),
    "pasilla": (("type",), ("condition",)),
    "rat-epilepsy": None,
    "human-tle": None,
    "zebrafish-mecp2": None,
    "mouse-fmr1": None,
    "slc2a5-xenografts": None,
    "klf1-erythroid": None,
    "prostate-paired": (("individual",), ("condition",)),
    "elp3-bt549": None,
    "dmd-myoblasts": None,
    "mdx-myoblasts": None,
    "mdx-bgeo-myoblasts": None,
}
SIMULATED = {f"simulated, n = {n}": n for n in (6, 40, 200)}
COLUMNS = tuple(agreement.RECORDED_COLUMNS)
#: False discovery rate at which genes are called.
ALPHA = 0.05
#: Difference of two log posteriors that R's search, which ends at a gain of 1e-6, may leave.
FLAT = 1e-5
UNKNOWN = "not known"
#: Sign of the published fold changes of the Expression Atlas's contrasts: first level over second, but for the paired.
PUBLISHED_SIGN = {"prostate-paired": 1}


def real_case(name: str, number: int) -> Case:
    """A data set of the registry with its first contrast."""
    adata = normalisation.sum_by_donor(datasets.load(name))
    _, contrasts = designs.design_and_contrasts(adata)
    contrast = next(iter(contrasts.values()))
    terms = REAL[name] or ((contrast[0],),)
    obs = designs.covariates(adata.obs)[[column for (column,) in terms]]
    obs = obs.apply(lambda column: pd.Categorical(column.astype(str), levels_of(adata.obs[column.name])))
    counts = normalisation.count_table(adata)
    counts.columns = [f"g{i}" for i in range(counts.shape[1])] if counts.columns.has_duplicates else counts.columns
    return Case(0, number, counts, obs, terms, contrast, options=Options(), kinds=(f"data: {name}",))


def levels_of(column: pd.Series) -> list[str]:
    """Levels in their order, the reference first."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(level) for level in column.cat.categories if (column == level).any()]
    return sorted(column.astype(str).unique())


def simulated_case(n_samples: int, number: int) -> Case:
    """Two groups of negative binomial counts, 10,000 genes, 1,000 of them changed."""
    groups = {"control": n_samples // 2, "mutant": n_samples // 2}
    adata = simulated_bulk.negative_binomial_cohort(
        groups=groups, reference="control", n_genes=10_000, n_changed=1_000, seed=n_samples
    )
    obs = pd.DataFrame({"group": pd.Categorical(adata.obs["group"], list(groups))}, index=adata.obs_names)
    counts, contrast = normalisation.count_table(adata), ("group", "mutant", "control")
    return Case(0, number, counts, obs, (("group",),), contrast, kinds=(f"simulated: {n_samples}",))


def beyond(case: Case, ours: fuzz_deseq.Outcome, theirs: fuzz_deseq.Outcome) -> list[dict]:
    """Every gene that R does not flag with a value beyond its tolerance, the worst column of each, with its cause."""
    differing = agreement.differing_genes(ours.results, theirs.results, alpha=ALPHA)
    flagged = theirs.flagged.reindex(differing["gene"], fill_value=False).to_numpy()
    fitted = differential.fit_design(case.adata(), design=case.design) if len(differing) else None
    worst = {}
    for row in differing[differing["column"].isin(COLUMNS) & ~flagged].itertuples():
        error = abs(row.here - row.there) / max(abs(row.there), 1e-300)
        if row.gene not in worst or error > worst[row.gene]["error"]:
            values = {"ours": float(row.here), "R": float(row.there), "error": float(error)}
            why = cause(row.gene, fitted, ours, theirs)
            worst[row.gene] = {"gene": row.gene, "column": row.column, **values, "cause": why}
    return sorted(worst.values(), key=lambda row: -row["error"])


def cause(gene: str, fitted, ours: fuzz_deseq.Outcome, theirs: fuzz_deseq.Outcome) -> str:
    """Why a gene differs, by the first of its estimates that does; `UNKNOWN` if nothing that is looked at says it."""
    if theirs.unsettled.get(gene, False):
        return "R's iteration did not converge; its general optimiser stopped short"
    mine, their = (side.dispersions.reindex([gene]).iloc[0] for side in (ours, theirs))
    for name in ("genewise", "map"):
        if abs(mine[name] - their[name]) > 1e-4 * abs(their[name]):
            heights = log_posteriors(fitted, gene, name, (mine[name], their[name]))
            if abs(heights[0] - heights[1]) < FLAT:
                return "two dispersions with the same log posterior to 1e-5; R's search ends where it gains 1e-6"
            if theirs.rounded.get(gene, False):
                return "counts so large that rounding decides on the first step of R's search for a dispersion"
            priors = fitted.fit.prior_variance, theirs.fit["dispPriorVar"]
            if name == "map" and close(*priors) and close(mine["trend"], their["trend"]):
                return "trend and prior differ by less than a thousandth, and R's search ends early at another step"
            return UNKNOWN
    mine, their = (side.results.loc[gene] for side in (ours, theirs))
    if abs(mine["log2FoldChange"] - their["log2FoldChange"]) < 1e-3 * their["lfcSE"]:
        return "a fold change, or what is tested with it, that differs by less than a thousandth of its error"
    return UNKNOWN


def close(ours: float, theirs: float) -> bool:
    """Whether two numbers differ, by less than a thousandth."""
    return 0 < abs(ours - theirs) < 1e-3 * abs(theirs)


def log_posteriors(fitted, gene: str, name: str, alphas: tuple[float, ...]) -> list[float]:
    """Log posteriors of a gene at some dispersions: of the gene-wise estimate, or of the one with a prior."""
    fit = fitted.fit
    place = torch.as_tensor(np.flatnonzero(fit.present == fitted.adata.var_names.get_loc(gene)))
    y, factors = fit.counts_of(place), fit.factors_of(place)
    if fit.design.is_groups:
        means = factors * dispersions.linear_means(y / factors, fit.design)
    else:
        guess = dispersions.initial_dispersions(y / factors, fit.design, float((1 / fit.factors).mean()))
        means = glm.regress(y, factors, guess, fit.design).mu
    prior = {} if name == "genewise" else {"centres": fit.genes.trend[place].log(), "variance": fit.prior_variance}
    posterior = dispersions.Posterior(y, means.clamp(min=glm.LEAST_MEAN), fit.design, **prior).prepare()
    return [float(posterior.evaluate(torch.full_like(posterior.excess, alpha).log())[0]) for alpha in alphas]


def compare(name: str, case: Case, folder: Path) -> dict:
    """A row of the record."""
    ours, theirs = fuzz_deseq.run_ours(case), fuzz_deseq.read_r(folder)
    row = {"name": name, "samples": len(case.counts), "genes": case.counts.shape[1], "design": case.design}
    if ours.crash or ours.refusal or theirs.refusal:
        return row | {"ours": ours.crash or ours.refusal, "R": theirs.refusal, "within": False}
    mine, their = ours.results, theirs.results.reindex(ours.results.index)
    called = [table["padj"] < ALPHA for table in (mine, their)]
    listed = beyond(case, ours, theirs)
    kept = ~theirs.flagged.reindex(mine.index, fill_value=False) & their["pvalue"].notna()
    errors = {}
    for column in COLUMNS:
        tolerance = fuzz_deseq.TOLERANCES[column]
        difference = (mine[column] - their[column]).abs()[kept]
        relative = (difference / their[column].abs()[kept]).where(difference > tolerance.absolute, 0.0)
        errors[column] = {"99.9%": float(relative.quantile(0.999)), "largest": float(relative.max())}
    row |= {"trend": theirs.fit["fitType"], "called by R": int(called[1].sum()), "called by ours": int(called[0].sum())}
    row["calls that differ"] = int((called[0] != called[1]).sum())
    row["NA that differ"] = int(sum((mine[name].isna() != their[name].isna()).sum() for name in ("pvalue", "padj")))
    row |= {"errors": errors, "flagged by R": int(theirs.flagged.sum()), "beyond": listed[:50], "n beyond": len(listed)}
    few = row["calls that differ"] * 1000 <= max(row["called by R"], 1000)
    row["not explained"] = sum(found["cause"] == UNKNOWN for found in listed)
    row["within"] = len(listed) <= 0.001 * kept.sum() and few and not row["NA that differ"]
    return row | ({"R 1.50.2": against_published(name, mine, their)} if name in published() else {})


def published() -> dict:
    """Files of R 1.50.2's fold changes, by data set."""
    return registry.entry("deseq2-r-atlas").files


def against_published(name: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict:
    """How far ours and R 1.38.3's fold changes are from those of R 1.50.2."""
    table = pd.read_csv(fetching.fetch("deseq2-r-atlas")[name], sep="\t", index_col=0)["log2_fold_change"]
    table = table.reindex(ours.index) * PUBLISHED_SIGN.get(name, -1)
    result = {}
    for side, results in (("ours", ours), ("R 1.38.3", theirs)):
        difference = (results["log2FoldChange"] - table).abs().dropna()
        off = difference > np.maximum(1e-3 * table.reindex(difference.index).abs(), 1e-6)
        result[side] = {"genes": len(difference), "beyond": int(off.sum()), "largest": float(difference.max())}
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[*REAL, *SIMULATED])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the data sets with R's results")
    parser.add_argument("--again", type=Path, help="compare what --keep kept, without R")
    given = parser.parse_args(arguments)
    if given.again is None and (reason := fuzz_deseq.missing_r()):
        print(f"parity_deseq: {reason}; `make r` installs it where it can", file=sys.stderr)
        return 2
    rows, missing, versions = [], [], {}
    with tempfile.TemporaryDirectory() as temporary:
        root = given.again or given.keep or Path(temporary)
        for number, name in enumerate(given.only):
            folder = root / name.replace(" ", "_").replace(",", "")
            try:
                case = simulated_case(SIMULATED[name], number) if name in SIMULATED else real_case(name, number)
            except DataError as error:
                missing.append(f"{name}: {error}")
                continue
            if given.again:
                versions = json.loads((folder / "session.json").read_text())
            else:
                deseq_draws.write(case, folder / "0")
                versions = fuzz_deseq.run_r(folder)
            rows.append(compare(name, case, folder / "0"))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "beyond"}), flush=True)
    content = {"made by": "tests/parity_deseq.py", "date": time.strftime("%Y-%m-%d")}
    content |= {"commit": provenance.current_commit(), "versions": versions, "missing": missing, "data sets": rows}
    if given.record:
        write_atomically(given.record, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(missing))
    return int(not rows or not all(row["within"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
