"""One cell as a masked language model sees it, by the names of its genes (paper B, section 1.4.2, Figure 3)."""

import numpy as np
import pandas as pd

from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.vocabularies import MASK, Vocabulary


def mask_example(ids: np.ndarray, vocabulary: Vocabulary, *, seed: int, row: int = 0) -> pd.DataFrame:
    """Mask one cell.

    Parameters
    ----------
    ids
        Token ids of the cell.
    row
        Position of the cell, which its mask depends on.

    Returns
    -------
    One row per token: ``rank``, ``token``, ``shown`` (token in its place), and ``kind``: of `masked_genes.KINDS`, or
    ``context`` where not selected.
    """
    ids = np.asarray(ids)
    shown, selected = masked_genes.mask_cell(ids, masked_genes.MaskedGenes(vocabulary, seed=seed), row=row)
    table = pd.DataFrame({"rank": np.arange(len(ids)), "token": ids, "shown": shown})
    kinds = masked_genes.kinds_of_positions(table["token"], table["shown"], vocabulary).astype(str)
    return table.assign(kind=np.where(selected, kinds, "context"))


def name_genes(table: pd.DataFrame, vocabulary: Vocabulary, genes: pd.DataFrame) -> pd.DataFrame:
    """Add the names of genes to the table of `mask_example`.

    Parameters
    ----------
    genes
        ``var`` of the cells: ``ensembl_id``, or Ensembl ids as names, and ``symbol``; genes without one keep their id.

    Returns
    -------
    The table with ``symbol`` (the gene that stands there) and ``text`` (what the position shows).
    """
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    if "symbol" in genes:
        pairs = zip(genes.get("ensembl_id", genes.index), genes["symbol"], strict=True)
        symbols = {gene: symbol for gene, symbol in pairs if isinstance(symbol, str) and symbol}
        names = {token: symbols.get(gene, gene) for token, gene in names.items()}
    names[vocabulary.tokens[MASK]] = "[MASK]"
    return table.assign(symbol=table["token"].map(names), text=table["shown"].map(names))
