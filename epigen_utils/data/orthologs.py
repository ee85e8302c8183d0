"""Orthologs of four species, with paralogs kept apart, and counts carried over to human genes."""

import contextlib
from functools import cache

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.data import fetching, genes, registry, schema
from epigen_utils.errors import DataError, UnreachableError


@cache
def ortholog_pairs(species: str) -> pd.DataFrame:
    """Pairs of orthologs of a species and human; a gene with several orthologs has several rows.

    Mouse: Ensembl BioMart. Zebrafish: ZFIN. Rat: HomoloGene, of its R package or of NCBI; if neither can be
    reached, genes whose symbols differ only in case, of kind ``same name``. Human: itself.

    Returns
    -------
    symbol, human
        Symbol in the species, human symbol.
    kind
        one2one, one2many, many2one or many2many, human to species, counted in the table itself.

    Raises
    ------
    DataError
        If the species is not one of these, or its table cannot be obtained.
    """
    if species == "homo_sapiens":
        symbols = genes.gene_table(species)["symbol"]
        pairs = pd.DataFrame({"symbol": symbols, "human": symbols})
    elif species == "mus_musculus":
        raw = pd.read_csv(fetching.fetch("orthologs-human-mouse")["biomart_human_to_mouse"], dtype=str)
        pairs = raw.rename(columns={"Mouse gene name": "symbol", "Gene name": "human"})
    elif species == "danio_rerio":
        raw = pd.read_csv(fetching.fetch("orthologs-zebrafish")["evidence"], sep="\t", dtype=str)
        pairs = raw.rename(columns={"ZFIN Symbol": "symbol", "Human Symbol": "human"})
    elif species == "rattus_norvegicus":
        raw = _homologene()
        if raw is None:
            return _pairs_of_equal_names(species)
        taxa = registry.read_data_file(genes.SPECIES_FILE)
        sides = {name: raw[raw["Taxonomy"] == about["ncbi_taxon"]] for name, about in taxa.items()}
        pairs = sides[species].merge(sides["homo_sapiens"], on="HID", suffixes=("", "_human"))
        pairs = pairs.rename(columns={"Gene.Symbol": "symbol", "Gene.Symbol_human": "human"})
    else:
        raise DataError(
            f"species {species!r}: no table of orthologs; "
            f"known: {', '.join(registry.read_data_file(genes.SPECIES_FILE))}"
        )
    pairs = pairs[["symbol", "human"]].replace("", pd.NA).dropna().drop_duplicates(ignore_index=True)
    many_human = pairs.groupby("symbol")["human"].transform("size") > 1
    many_symbols = pairs.groupby("human")["symbol"].transform("size") > 1
    words = {True: "many", False: "one"}
    # From human to the species: one human gene with two zebrafish paralogs is one2many.
    pairs["kind"] = many_human.map(words) + "2" + many_symbols.map(words)
    return pairs


def _homologene() -> pd.DataFrame | None:
    """HomoloGene's groups (``HID``, ``Taxonomy``, ``Gene.Symbol``), or None if no source of them can be reached."""
    with contextlib.suppress(UnreachableError):
        return pd.read_csv(fetching.fetch("orthologs-homologene")["groups"], sep="\t")
    try:
        path = fetching.fetch("homologene-ncbi")["groups"]
    except UnreachableError:
        return None  # the caller falls back on equal names, and marks the kind of each pair
    return pd.read_csv(path, sep="\t", usecols=[0, 1, 3], names=["HID", "Taxonomy", "Gene.Symbol"], dtype={3: str})


def _pairs_of_equal_names(species: str) -> pd.DataFrame:
    human = genes.gene_table("homo_sapiens")["symbol"].drop_duplicates()
    human = human[human != ""]
    symbols = genes.gene_table(species)["symbol"].drop_duplicates()
    pairs = pd.DataFrame({"symbol": symbols, "upper": symbols.str.upper()}).merge(
        pd.DataFrame({"human": human, "upper": human.str.upper()}), on="upper"
    )
    return pairs[["symbol", "human"]].assign(kind="same name")


def one_to_one_orthologs(species: str) -> pd.Series:
    """Symbol of a species -> human symbol, for one-to-one orthologs."""
    pairs = ortholog_pairs(species)
    return pairs[pairs["kind"] == "one2one"].set_index("symbol")["human"]


def find_gene_sets(adata: anndata.AnnData, sets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Convert sets of human symbols to gene ids of a data set, through orthologs; all paralogs are included."""
    pairs = find_genes(adata, sorted({symbol for symbols in sets.values() for symbol in symbols})).dropna()
    return {
        name: list(dict.fromkeys(pairs.loc[pairs["human"].isin(symbols), "gene"])) for name, symbols in sets.items()
    }


def find_genes(adata: anndata.AnnData, human: list[str]) -> pd.DataFrame:
    """Find the genes of a data set that correspond to human symbols, one row per paralog.

    If the species is unknown, the symbols themselves are compared, in upper case.

    Returns
    -------
    Columns ``human``, ``gene`` (id in the data set; missing if there is none), ``symbol``, ``kind``, in the order of
    ``human``.
    """
    wanted = list(dict.fromkeys(genes.approved_symbol(symbol) for symbol in human))
    measured = pd.DataFrame({"gene": adata.var_names, "symbol": adata.var["symbol"].to_numpy()})
    if species := genes.species_of(adata):
        pairs = ortholog_pairs(species)
        by_symbol = pairs[pairs["human"].isin(wanted)].merge(measured, on="symbol")
    else:
        by_symbol = measured.assign(human=measured["symbol"].str.upper(), kind="same name")
    matches = pd.DataFrame({"human": wanted}).merge(by_symbol, on="human", how="left")
    return matches[["human", "gene", "symbol", "kind"]]


#: Kinds of orthologs, from human to the species; the last applies if there is no table of orthologs.
ORTHOLOGY_KINDS = ("one2one", "one2many", "many2one", "many2many", "same name")


def ortholog_coverage(adata: anndata.AnnData) -> dict[str, object]:
    """Number of genes of a data set with human orthologs, in all and by kind, and their share of the counts."""
    pairs = ortholog_pairs(genes.species_of(adata) or "not stated")
    kinds = pairs.drop_duplicates("symbol").set_index("symbol")["kind"]
    kind = kinds.reindex(adata.var["symbol"]).to_numpy()
    counts = np.asarray(adata.layers["counts"].sum(axis=0)).ravel()
    has_ortholog = ~pd.isna(kind)
    row = {"genes": adata.n_vars, "with a human ortholog": int(has_ortholog.sum())}
    row["share of counts"] = float(counts[has_ortholog].sum() / counts.sum())
    for name in ORTHOLOGY_KINDS:
        row[name] = int((kind == name).sum())
    return row


def humanise(adata: anndata.AnnData) -> anndata.AnnData:
    """Convert counts to human Ensembl ids, through orthologs or symbols, for models of human genes.

    Paralogs of one human gene are summed. A gene with several human orthologs is dropped, because its counts cannot be
    assigned to one of them. ``uns["humanised"]`` gives the number of converted genes and their share of the counts.

    Returns
    -------
    Samples or cells x human genes, with the depth over all genes in ``obs["n_counts"]``; a human data set with Ensembl
    ids is returned unchanged.

    Raises
    ------
    DataError
        If the species is unknown, or none of its genes has a human id.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from epigen_utils.data import orthologs
    >>> mouse = anndata.AnnData(
    ...     var={"var_names": ["Gria1", "Sst", "unnamed"], "symbol": ["Gria1", "Sst", "unnamed"]},
    ...     layers={"counts": np.array([[5, 3, 2], [4, 0, 6]])},
    ...     uns={"epigen": {"name": "mine", "species": "mus_musculus"}},
    ... )
    >>> human = orthologs.humanise(mouse)
    >>> human.var["symbol"].tolist()
    ['GRIA1', 'SST']
    >>> human.layers["counts"].toarray()
    array([[5, 3],
           [4, 0]])
    >>> human.obs["n_counts"].tolist()
    [10, 10]
    >>> human.uns["humanised"]
    {'species': 'mus_musculus', 'genes': 2, 'of': 3, 'share of counts': 0.6}
    """
    species, stated = genes.species_of(adata), adata.uns["epigen"]["species"]
    if species == "homo_sapiens" and "ensembl_id" in adata.var:
        return adata
    if not species and stated == "not stated":
        raise DataError(f"{adata.uns['epigen']['name']}: species not stated; name it to read its genes as human ones")
    ids = (
        genes.gene_table("homo_sapiens")
        .query("symbol != ''")
        .drop_duplicates("symbol")
        .set_index("symbol")["ensembl_id"]
    )
    if species == "homo_sapiens":
        human_ids = ids.reindex([genes.approved_symbol(symbol) for symbol in adata.var["symbol"]])
    elif not species:
        # Without a table of orthologs, genes are matched to human genes of the same name.
        human_ids = ids.reindex(adata.var["symbol"].str.upper())
    else:
        pairs = ortholog_pairs(species)
        pairs = pairs[pairs["kind"].isin(["one2one", "one2many", "same name"])]
        human = pairs.assign(ensembl_id=pairs["human"].map(ids)).dropna().drop_duplicates("symbol")
        human_ids = human.set_index("symbol")["ensembl_id"].reindex(genes.add_symbols(adata).var["symbol"])
    merging, names = genes.summing_matrix(human_ids)
    if not len(names):
        raise DataError(f"{adata.uns['epigen']['name']}: none of its genes has a human id; is it {stated}?")
    counts = sparse.csr_matrix(adata.layers["counts"]) @ merging  # (samples, human genes)
    symbols = pd.Series(ids.index, ids.to_numpy())
    var = pd.DataFrame(
        {"symbol": symbols[~symbols.index.duplicated()].reindex(names).to_numpy(), "ensembl_id": names}, names
    )
    converted = anndata.AnnData(obs=adata.obs.copy(), var=var, layers={"counts": counts.tocsr()}, uns=adata.uns.copy())
    converted.uns["humanised"] = {
        "species": species or stated,
        "genes": merging.nnz,
        "of": adata.n_vars,
        "share of counts": float(counts.sum() / adata.layers["counts"].sum()),
    }
    # The depth of a cell includes the genes that are dropped here.
    converted.obs[schema.DEPTH_COLUMN] = np.asarray(adata.layers["counts"].sum(axis=1)).ravel()
    return converted
