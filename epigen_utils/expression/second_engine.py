"""PyDESeq2 (Muzellec, Telenczuk, Cabeli and Andreux 2023), as a second engine to compare the first one with."""

import warnings

import anndata
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats

from epigen_utils.expression import designs, formulas, normalisation


def results(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    alpha: float = 0.05,
    independent_filter: bool = True,
    cooks_filter: bool = True,
) -> pd.DataFrame:
    """Test one contrast with PyDESeq2, in one process; `differential.deseq` documents parameters and columns.

    Raises
    ------
    DataError
        If `designs.check_design` refuses the design.
    """
    designs.check_design(adata, design)
    inference = DefaultInference(n_cpus=1)
    with warnings.catch_warnings():
        # cases that PyDESeq2 resolves itself, by falling back to another fit
        for message in ("The dispersion trend curve fitting did not converge", "As the residual degrees of freedom"):
            warnings.filterwarnings("ignore", message=message)
        dds = DeseqDataSet(
            counts=normalisation.count_table(adata),
            metadata=formulas.covariates(adata.obs),
            design=design,
            inference=inference,
            quiet=True,
        )
        dds.deseq2()
        vector = designs.contrast_vector(adata, design, contrast)
        filters = {"cooks_filter": cooks_filter, "independent_filter": independent_filter}
        test = DeseqStats(dds, contrast=vector, alpha=alpha, inference=inference, quiet=True, **filters)
        test.summary()
    return test.results_df.reindex(adata.var_names)
