"""Parity with R on whole data sets: ours beside R DESeq2's on real cohorts and on simulated ones of three sizes.

    python tests/parity_deseq.py [--only NAME ...] [--record data/recorded/deseq-parity.json] [--keep FOLDER]

`fuzz_deseq` runs R and compares; here every gene beyond a tolerance is listed with its cause. The rat, human, zebrafish
and mouse cohorts come from the registry's addresses, or from the folder that EPIGEN_DATA_MIRROR names; a data set that
cannot be had is left out and named. For the Expression Atlas's contrasts R 1.50.2's published fold changes stand beside,
whose differences are R 1.38.3's too. The exit code is 1 if a data set is outside of the tolerances.
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
from deseq_draws import Case, Options

from epigen_utils.book import provenance
from epigen_utils.data import datasets, fetching, registry, simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import agreement, designs, normalisation
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


def beyond(ours: fuzz_deseq.Outcome, theirs: fuzz_deseq.Outcome) -> list[dict]:
    """Every gene that R does not flag with a value beyond its tolerance, the worst column of each, with its cause."""
    differing = agreement.differing_genes(ours.results, theirs.results, alpha=ALPHA)
    flagged = theirs.flagged.reindex(differing["gene"], fill_value=False).to_numpy()
    worst = {}
    for row in differing[differing["column"].isin(COLUMNS) & ~flagged].itertuples():
        error = abs(row.here - row.there) / max(abs(row.there), 1e-300)
        if row.gene not in worst or error > worst[row.gene]["error"]:
            values = {"ours": float(row.here), "R": float(row.there), "error": float(error)}
            worst[row.gene] = {"gene": row.gene, "column": row.column, **values, "cause": cause(row.gene, ours, theirs)}
    return sorted(worst.values(), key=lambda row: -row["error"])


def cause(gene: str, ours: fuzz_deseq.Outcome, theirs: fuzz_deseq.Outcome) -> str:
    """Why a gene differs: what is the first of its estimates that does."""
    if theirs.unsettled.get(gene, False):
        return "R's iteration did not settle; its general optimiser stopped short"
    mine, their = (side.dispersions.reindex([gene]).iloc[0] for side in (ours, theirs))
    steps = {"genewise": "the gene-wise dispersion", "trend": "the trend", "map": "the shrunken dispersion"}
    for name, text in steps.items():
        if abs(mine[name] - their[name]) > 1e-4 * abs(their[name]):
            return f"{text}: where R's line search ends depends on the rounding of its likelihood"
    return "a fold change near zero, or a p-value so small that the ninth digit of the statistic shows"


def compare(name: str, case: Case, folder: Path) -> dict:
    """A row of the record."""
    ours, theirs = fuzz_deseq.run_ours(case), fuzz_deseq.read_r(folder)
    row = {"name": name, "samples": len(case.counts), "genes": case.counts.shape[1], "design": case.design}
    if ours.crash or ours.refusal or theirs.refusal:
        return row | {"ours": ours.crash or ours.refusal, "R": theirs.refusal, "within": False}
    mine, their = ours.results, theirs.results.reindex(ours.results.index)
    called = [table["padj"] < ALPHA for table in (mine, their)]
    listed = beyond(ours, theirs)
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
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args(arguments)
    if reason := fuzz_deseq.missing_r():
        print(f"parity_deseq: {reason}; `make r` installs it where it can", file=sys.stderr)
        return 2
    rows, missing = [], []
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        for number, name in enumerate(given.only):
            folder = root / name.replace(" ", "_").replace(",", "")
            try:
                case = simulated_case(SIMULATED[name], number) if name in SIMULATED else real_case(name, number)
            except DataError as error:
                missing.append(f"{name}: {error}")
                continue
            deseq_draws.write(case, folder / "0")
            versions = fuzz_deseq.run_r(folder)
            rows.append(compare(name, case, folder / "0"))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "beyond"}), flush=True)
    content = {"made by": "tests/parity_deseq.py", "date": time.strftime("%Y-%m-%d")}
    content |= {"commit": provenance.current_commit(), "versions": versions, "missing": missing, "data sets": rows}
    if given.record:
        write_atomically(given.record, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(missing))
    return int(not all(row["within"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
