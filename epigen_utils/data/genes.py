"""Gene names: approved symbols, orthologs of four species with separate paralogs, and panels of genes with sources."""

import re
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import paths, registry, schema
from epigen_utils.errors import DataError, Unreachable

#: Misspelt gene names in the papers, and the approved symbols.
ALIASES = {"PVLAB": "PVALB"}
#: Columns of the registry's `genes-...` tables, which have no header.
GENE_COLUMNS = ["ensembl_id", "symbol", "version", "length", "biotype"]
#: Species -> data set with its table of genes.
TABLES = {
    "homo_sapiens": "genes-human",
    "mus_musculus": "genes-mouse",
    "rattus_norvegicus": "genes-rat",
    "danio_rerio": "genes-zebrafish",
}
#: NCBI taxonomy ids, which identify species in HomoloGene.
TAXA = {"homo_sapiens": 9606, "rattus_norvegicus": 10116}
PANELS = paths.DATA / "gene_panels.gmt"


def repair(symbol: str) -> str:
    """The approved symbol of a name misspelt in a paper; other names unchanged."""
    return ALIASES.get(symbol, symbol)


@cache
def plain(name: str) -> str:
    """A name in lower case with dots for punctuation, to match tables written by R."""
    return re.sub(r"[^a-z0-9]", ".", name.lower())


def panels() -> dict[str, list[str]]:
    """Panels of human gene symbols, from ``data/gene_panels.gmt``, which gives the source of each."""
    return read_gmt(PANELS)


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file (name, source, symbols, tab-separated): name -> symbols."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {name: symbols for name, _source, *symbols in rows}


@cache
def table(species: str) -> pd.DataFrame:
    """Genes of a species: ``ensembl_id``, ``symbol``, ``length`` (bases), ``biotype``.

    Raises
    ------
    DataError
        If the species is not one of `TABLES`.
    """
    if species not in TABLES:
        raise DataError(f"species {species!r}: no table of genes; known: {', '.join(TABLES)}")
    path = registry.fetch(TABLES[species])["genes"]
    return pd.read_csv(path, names=GENE_COLUMNS, dtype={"symbol": str}, keep_default_na=False)


@cache
def orthologs(species: str) -> pd.DataFrame:
    """Pairs of orthologs of a species and human; a gene with several orthologs has several rows.

    Mouse: Ensembl BioMart. Zebrafish: ZFIN. Rat: HomoloGene, from the mirror or from NCBI; if neither is available,
    genes whose symbols differ only in case, of kind ``same name``. Human: itself.

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
        symbols = table(species)["symbol"]
        pairs = pd.DataFrame({"symbol": symbols, "human": symbols})
    elif species == "mus_musculus":
        raw = pd.read_csv(registry.fetch("orthologs-human-mouse")["biomart_human_to_mouse"], dtype=str)
        pairs = raw.rename(columns={"Mouse gene name": "symbol", "Gene name": "human"})
    elif species == "danio_rerio":
        raw = pd.read_csv(registry.fetch("orthologs-zebrafish")["evidence"], sep="\t", dtype=str)
        pairs = raw.rename(columns={"ZFIN Symbol": "symbol", "Human Symbol": "human"})
    elif species == "rattus_norvegicus":
        raw = _homologene()
        if raw is None:
            return _same_names(species)
        sides = {name: raw[raw["Taxonomy"] == taxon] for name, taxon in TAXA.items()}
        pairs = sides[species].merge(sides["homo_sapiens"], on="HID", suffixes=("", "_human"))
        pairs = pairs.rename(columns={"Gene.Symbol": "symbol", "Gene.Symbol_human": "human"})
    else:
        raise DataError(f"species {species!r}: no table of orthologs; known: {', '.join(TABLES)}")
    pairs = pairs[["symbol", "human"]].replace("", pd.NA).dropna().drop_duplicates(ignore_index=True)
    many_human = pairs.groupby("symbol")["human"].transform("size") > 1
    many_symbols = pairs.groupby("human")["symbol"].transform("size") > 1
    words = {True: "many", False: "one"}
    # From human to the species: one human gene with two zebrafish paralogs is one2many.
    pairs["kind"] = many_human.map(words) + "2" + many_symbols.map(words)
    return pairs


def _homologene() -> pd.DataFrame | None:
    """HomoloGene's groups (``HID``, ``Taxonomy``, ``Gene.Symbol``), or None if no source of them can be reached."""
    if registry.at_hand("orthologs-homologene"):
        return pd.read_csv(registry.fetch("orthologs-homologene")["groups"], sep="\t")
    try:
        path = registry.fetch("homologene-ncbi")["groups"]
    except Unreachable:
        return None  # the caller falls back on equal names, and marks the kind of each pair
    return pd.read_csv(path, sep="\t", usecols=[0, 1, 3], names=["HID", "Taxonomy", "Gene.Symbol"], dtype={3: str})


def _same_names(species: str) -> pd.DataFrame:
    human = table("homo_sapiens")["symbol"].drop_duplicates()
    human = human[human != ""]
    symbols = table(species)["symbol"].drop_duplicates()
    pairs = pd.DataFrame({"symbol": symbols, "upper": symbols.str.upper()}).merge(
        pd.DataFrame({"human": human, "upper": human.str.upper()}), on="upper"
    )
    return pairs[["symbol", "human"]].assign(kind="same name")


def one_to_one(species: str) -> pd.Series:
    """Symbol of a species -> human symbol, for one-to-one orthologs."""
    pairs = orthologs(species)
    return pairs[pairs["kind"] == "one2one"].set_index("symbol")["human"]


def sets_in_data(adata: anndata.AnnData, sets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Convert sets of human symbols to gene ids of a data set, through orthologs; all paralogs are included."""
    pairs = in_data(adata, sorted({symbol for symbols in sets.values() for symbol in symbols})).dropna()
    return {
        name: list(dict.fromkeys(pairs.loc[pairs["human"].isin(symbols), "gene"])) for name, symbols in sets.items()
    }


#: Prefixes of Ensembl gene ids.
PREFIXES = {
    "ENSG0": "homo_sapiens",
    "ENSMUSG": "mus_musculus",
    "ENSRNOG": "rattus_norvegicus",
    "ENSDARG": "danio_rerio",
}


def species_of(adata: anndata.AnnData) -> str:
    """The species stated by a data set, else that of its Ensembl ids, else an empty string."""
    stated = adata.uns["epigen"]["species"]
    if stated in TABLES:
        return stated
    return next((name for prefix, name in PREFIXES.items() if adata.var_names.str.startswith(prefix).mean() > 0.5), "")


def in_data(adata: anndata.AnnData, human: list[str]) -> pd.DataFrame:
    """Find the genes of a data set that correspond to human symbols, one row per paralog.

    If the species is unknown, the symbols themselves are compared, in upper case.

    Returns
    -------
    Columns ``human``, ``gene`` (id in the data set; missing if there is none), ``symbol``, ``kind``, in the order of
    ``human``.
    """
    wanted = list(dict.fromkeys(repair(symbol) for symbol in human))
    measured = pd.DataFrame({"gene": adata.var_names, "symbol": adata.var["symbol"].to_numpy()})
    if species := species_of(adata):
        pairs = orthologs(species)
        by_symbol = pairs[pairs["human"].isin(wanted)].merge(measured, on="symbol")
    else:
        by_symbol = measured.assign(human=measured["symbol"].str.upper(), kind="same name")
    matches = pd.DataFrame({"human": wanted}).merge(by_symbol, on="human", how="left")
    return matches[["human", "gene", "symbol", "kind"]]


def named(adata: anndata.AnnData) -> anndata.AnnData:
    """Fill in ``var["symbol"]``, in place, of a data set with Ensembl ids but no symbols; the ids remain the index."""
    species = species_of(adata)
    if not (adata.var["symbol"] == adata.var_names).all() or "ensembl_id" not in adata.var or not species:
        return adata
    symbols = table(species).set_index("ensembl_id")["symbol"].reindex(adata.var["ensembl_id"])
    adata.var["symbol"] = np.where(symbols.isna(), adata.var_names, symbols)
    return adata


def of_probes(adata: anndata.AnnData, symbols: pd.Series) -> anndata.AnnData:
    """Replace the probes of an array by genes; each gene is represented by its probe of highest mean intensity.

    Parameters
    ----------
    symbols
        Probe -> gene symbol (`geo.platform`).

    Raises
    ------
    DataError
        If none of the probes has a symbol.
    """
    symbol_of_probe = symbols.reindex(adata.var_names).dropna()
    if symbol_of_probe.empty:
        raise DataError(f"none of the {adata.n_vars} probes has a gene symbol; is it the annotation of this array?")
    mean = pd.Series(np.asarray(adata.layers["intensity"]).mean(axis=0), adata.var_names)[symbol_of_probe.index]
    brightest = mean.groupby(symbol_of_probe.to_numpy()).idxmax()
    by_gene = adata[:, brightest.to_numpy()].copy()
    by_gene.var["probe"], by_gene.var["symbol"] = brightest.to_numpy(), brightest.index.to_numpy()
    by_gene.var_names = brightest.index
    return by_gene


def lengths(adata: anndata.AnnData) -> pd.Series:
    """Lengths of the genes of a data set in bases (merged exons), by id; empty if the species has no table."""
    if not (species := species_of(adata)):
        return pd.Series(dtype=float)
    by = "ensembl_id" if "ensembl_id" in adata.var else "symbol"
    reference = table(species).drop_duplicates(by).set_index(by)["length"]
    return reference.reindex(adata.var[by].to_numpy()).set_axis(adata.var_names).dropna()


#: Kinds of orthologs, from human to the species; the last applies if there is no table of orthologs.
KINDS = ("one2one", "one2many", "many2one", "many2many", "same name")


def coverage(adata: anndata.AnnData) -> dict[str, object]:
    """Number of genes of a data set with human orthologs, in all and by kind, and their share of the counts."""
    pairs = orthologs(species_of(adata) or "not stated")
    kinds = pairs.drop_duplicates("symbol").set_index("symbol")["kind"]
    kind = kinds.reindex(adata.var["symbol"]).to_numpy()
    counts = np.asarray(adata.layers["counts"].sum(axis=0)).ravel()
    has_ortholog = ~pd.isna(kind)
    row = {"genes": adata.n_vars, "with a human ortholog": int(has_ortholog.sum())}
    row["share of counts"] = float(counts[has_ortholog].sum() / counts.sum())
    for name in KINDS:
        row[name] = int((kind == name).sum())
    return row


def humanised(adata: anndata.AnnData) -> anndata.AnnData:
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
    """
    species, stated = species_of(adata), adata.uns["epigen"]["species"]
    if species == "homo_sapiens" and "ensembl_id" in adata.var:
        return adata
    if not species and stated == "not stated":
        raise DataError(f"{adata.uns['epigen']['name']}: species not stated; name it to read its genes as human ones")
    ids = table("homo_sapiens").query("symbol != ''").drop_duplicates("symbol").set_index("symbol")["ensembl_id"]
    if species == "homo_sapiens":
        human_ids = ids.reindex([repair(symbol) for symbol in adata.var["symbol"]])
    elif not species:
        # Without a table of orthologs, genes are matched to human genes of the same name.
        human_ids = ids.reindex(adata.var["symbol"].str.upper())
    else:
        pairs = orthologs(species)
        pairs = pairs[pairs["kind"].isin(["one2one", "one2many", "same name"])]
        human = pairs.assign(ensembl_id=pairs["human"].map(ids)).dropna().drop_duplicates("symbol")
        human_ids = human.set_index("symbol")["ensembl_id"].reindex(named(adata).var["symbol"])
    merging, names = summing(human_ids)
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
    converted.obs[schema.DEPTH] = np.asarray(adata.layers["counts"].sum(axis=1)).ravel()
    return converted


def summing(names: pd.Series) -> tuple[sparse.csr_matrix, pd.Index]:
    """Indicator matrix that sums columns of equal name, and drops columns without a name.

    Returns
    -------
    Zeros and ones, columns x unique names; the unique names in order of first appearance.
    """
    codes, unique = pd.factorize(names)
    columns = np.flatnonzero(codes >= 0)
    ones = np.ones(len(columns), np.int32)
    return sparse.csr_matrix((ones, (columns, codes[columns])), (len(names), len(unique))), pd.Index(unique)
