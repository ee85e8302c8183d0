"""Gene names: aliases mended, orthologs of four species with their paralogs kept apart, panels of genes with sources."""

import re
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import paths, registry, schema
from epigen_utils.errors import DataError, Unreachable

#: Names that the papers print, and the genes they mean.
ALIASES = {"PVLAB": "PVALB"}
#: Columns without a header of the registry's `genes-...` tables.
GENE_COLUMNS = ["ensembl_id", "symbol", "version", "length", "biotype"]
#: Species of the registry -> its table of genes.
TABLES = {
    "homo_sapiens": "genes-human",
    "mus_musculus": "genes-mouse",
    "rattus_norvegicus": "genes-rat",
    "danio_rerio": "genes-zebrafish",
}
#: NCBI taxonomy, as HomoloGene names species.
TAXA = {"homo_sapiens": 9606, "rattus_norvegicus": 10116}
PANELS = paths.DATA / "gene_panels.gmt"


def repair(symbol: str) -> str:
    """The approved symbol of a name that a paper misspells; others as they are."""
    return ALIASES.get(symbol, symbol)


@cache
def plain(name: str) -> str:
    """A name without case and punctuation, which tables written by R have lost."""
    return re.sub(r"[^a-z0-9]", ".", name.lower())


def panels() -> dict[str, list[str]]:
    """Panels of human gene symbols, from ``data/gene_panels.gmt``, where each names its source."""
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
    """Pairs of a species' symbol and a human symbol; a gene with several orthologs has several rows.

    Returns
    -------
    Columns ``symbol``, ``human`` and ``kind`` (one2one, one2many, many2one, many2many; read from the pairs themselves).
    Mouse: Ensembl BioMart. Zebrafish: ZFIN. Rat: HomoloGene, from the mirror or from NCBI; where neither can be had, genes
    of the same name but for case, of kind ``same name``. Human: itself.

    Raises
    ------
    DataError
        If the species is not one of these, or its table cannot be had.
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
    many_own = pairs.groupby("human")["symbol"].transform("size") > 1
    pairs["kind"] = many_own.map({True: "many", False: "one"}) + "2" + many_human.map({True: "many", False: "one"})
    # Read from human to the species: one human gene, two zebrafish paralogs, is one2many.
    pairs["kind"] = pairs["kind"].map(
        {"one2one": "one2one", "many2one": "one2many", "one2many": "many2one", "many2many": "many2many"}
    )
    return pairs


def _homologene() -> pd.DataFrame | None:
    """HomoloGene's groups (``HID``, ``Taxonomy``, ``Gene.Symbol``), or None where no source of them can be reached."""
    if registry.at_hand("orthologs-homologene"):
        return pd.read_csv(registry.fetch("orthologs-homologene")["groups"], sep="\t")
    try:
        path = registry.fetch("homologene-ncbi")["groups"]
    except Unreachable:
        return None  # the caller has a way without, and says so in the kind of each pair
    return pd.read_csv(path, sep="\t", usecols=[0, 1, 3], names=["HID", "Taxonomy", "Gene.Symbol"], dtype={3: str})


def _same_names(species: str) -> pd.DataFrame:
    human = table("homo_sapiens")["symbol"].drop_duplicates()
    human = human[human != ""]
    own = pd.DataFrame({"symbol": table(species)["symbol"].drop_duplicates()})
    pairs = own.merge(
        pd.DataFrame({"human": human, "upper": human.str.upper()}), left_on=own["symbol"].str.upper(), right_on="upper"
    )
    return pairs[["symbol", "human"]].assign(kind="same name")


def one_to_one(species: str) -> pd.Series:
    """Symbol of a species -> human symbol, for genes with one ortholog on both sides."""
    pairs = orthologs(species)
    return pairs[pairs["kind"] == "one2one"].set_index("symbol")["human"]


def sets_in_data(adata: anndata.AnnData, sets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sets of human symbols as ids of a data set, through orthologs; a human gene with paralogs brings them all."""
    found = in_data(adata, sorted({symbol for symbols in sets.values() for symbol in symbols})).dropna()
    return {
        name: list(dict.fromkeys(found.loc[found["human"].isin(symbols), "gene"])) for name, symbols in sets.items()
    }


#: Prefixes of Ensembl gene ids.
PREFIXES = {
    "ENSG0": "homo_sapiens",
    "ENSMUSG": "mus_musculus",
    "ENSRNOG": "rattus_norvegicus",
    "ENSDARG": "danio_rerio",
}


def species_of(adata: anndata.AnnData) -> str:
    """The species that a data set states, else the one whose Ensembl ids it has, else an empty word."""
    stated = adata.uns["epigen"]["species"]
    if stated in TABLES:
        return stated
    return next((name for prefix, name in PREFIXES.items() if adata.var_names.str.startswith(prefix).mean() > 0.5), "")


def in_data(adata: anndata.AnnData, human: list[str]) -> pd.DataFrame:
    """Genes of a data set that stand for human symbols, paralogs in rows of their own.

    Where the species is not known, symbols are compared as they are, without regard to case.

    Returns
    -------
    Columns ``human``, ``gene`` (the data set's id; missing where it has none), ``symbol``, ``kind``, in the order asked.
    """
    wanted = list(dict.fromkeys(repair(symbol) for symbol in human))
    have = pd.DataFrame({"gene": adata.var_names, "symbol": adata.var["symbol"].to_numpy()})
    if species := species_of(adata):
        pairs = orthologs(species)
        by_symbol = pairs[pairs["human"].isin(wanted)].merge(have, on="symbol")
    else:
        by_symbol = have.assign(human=have["symbol"].str.upper(), kind="same name")
    found = pd.DataFrame({"human": wanted}).merge(by_symbol, on="human", how="left")
    return found[["human", "gene", "symbol", "kind"]]


def named(adata: anndata.AnnData) -> anndata.AnnData:
    """The data set with symbols in ``var`` where its ids are Ensembl's and no symbols came with it; ids stay the index."""
    species = species_of(adata)
    if not (adata.var["symbol"] == adata.var_names).all() or "ensembl_id" not in adata.var or not species:
        return adata
    symbols = table(species).set_index("ensembl_id")["symbol"].reindex(adata.var["ensembl_id"])
    adata.var["symbol"] = np.where(symbols.isna(), adata.var_names, symbols)
    return adata


def of_probes(adata: anndata.AnnData, symbols: pd.Series) -> anndata.AnnData:
    """Genes in the place of an array's probes; of several probes of a gene, the one with the highest mean intensity.

    Parameters
    ----------
    symbols
        Probe -> gene symbol (`geo.platform`).

    Raises
    ------
    DataError
        If none of the probes has a symbol.
    """
    named = symbols.reindex(adata.var_names).dropna()
    if named.empty:
        raise DataError(f"none of the {adata.n_vars} probes has a gene symbol; is it the annotation of this array?")
    mean = pd.Series(np.asarray(adata.layers["intensity"]).mean(axis=0), adata.var_names)[named.index]
    best = mean.groupby(named.to_numpy()).idxmax()
    found = adata[:, best.to_numpy()].copy()
    found.var["probe"], found.var["symbol"] = best.to_numpy(), best.index.to_numpy()
    found.var_names = best.index
    return found


def lengths(adata: anndata.AnnData) -> pd.Series:
    """Length in bases (merged exons) of the data set's genes, by their ids; empty where the species has no table."""
    if not (species := species_of(adata)):
        return pd.Series(dtype=float)
    known = table(species)
    by = "ensembl_id" if "ensembl_id" in adata.var else "symbol"
    known = known.drop_duplicates(by).set_index(by)["length"]
    found = known.reindex(adata.var[by].to_numpy()).set_axis(adata.var_names)
    return found.dropna()


#: Kinds of pairs of orthologs, read from human to the species; the last stands in where there is no table of them.
KINDS = ("one2one", "one2many", "many2one", "many2many", "same name")


def coverage(adata: anndata.AnnData) -> dict[str, object]:
    """How many genes of a data set have human orthologs, by kind; shares of genes and of counts."""
    pairs = orthologs(species_of(adata) or "not stated")
    kinds = pairs.drop_duplicates("symbol").set_index("symbol")["kind"]
    kind = kinds.reindex(adata.var["symbol"]).to_numpy()
    counts = np.asarray(adata.layers["counts"].sum(axis=0)).ravel()
    has = ~pd.isna(kind)
    row = {"genes": adata.n_vars, "with a human ortholog": int(has.sum())}
    row["share of counts"] = float(counts[has].sum() / counts.sum())
    for name in KINDS:
        row[name] = int((kind == name).sum())
    return row


def humanised(adata: anndata.AnnData) -> anndata.AnnData:
    """Counts under human Ensembl ids, for what knows human genes only: through orthologs, or through symbols.

    Paralogs of one human gene are summed; a gene with several human orthologs is left out, since its counts are of none of them
    alone. What was lost is in ``uns["humanised"]``: genes and share of counts that have a place.

    Returns
    -------
    Samples or cells x human genes, depth over all genes in ``obs["n_counts"]``; a human data set that has Ensembl ids is given
    back as it is.

    Raises
    ------
    DataError
        If the species is not known, or none of its genes has a place.
    """
    species, stated = species_of(adata), adata.uns["epigen"]["species"]
    if species == "homo_sapiens" and "ensembl_id" in adata.var:
        return adata
    if not species and stated == "not stated":
        raise DataError(f"{adata.uns['epigen']['name']}: species not stated; name it to read its genes as human ones")
    ids = table("homo_sapiens").query("symbol != ''").drop_duplicates("symbol").set_index("symbol")["ensembl_id"]
    if species == "homo_sapiens":
        place = ids.reindex([repair(symbol) for symbol in adata.var["symbol"]])
    elif not species:
        # Of a species without tables here genes are taken for the human ones of the same name.
        place = ids.reindex(adata.var["symbol"].str.upper())
    else:
        pairs = orthologs(species)
        pairs = pairs[pairs["kind"].isin(["one2one", "one2many", "same name"])]
        human = pairs.assign(ensembl_id=pairs["human"].map(ids)).dropna().drop_duplicates("symbol")
        place = human.set_index("symbol")["ensembl_id"].reindex(named(adata).var["symbol"])
    deal, names = summing(place)
    if not len(names):
        raise DataError(f"{adata.uns['epigen']['name']}: none of its genes has a human id; is it {stated}?")
    counts = sparse.csr_matrix(adata.layers["counts"]) @ deal
    symbols = pd.Series(ids.index, ids.to_numpy())
    var = pd.DataFrame(
        {"symbol": symbols[~symbols.index.duplicated()].reindex(names).to_numpy(), "ensembl_id": names}, names
    )
    found = anndata.AnnData(obs=adata.obs.copy(), var=var, layers={"counts": counts.tocsr()}, uns=adata.uns.copy())
    share = float(counts.sum() / adata.layers["counts"].sum())
    found.uns["humanised"] = {
        "species": species or stated,
        "genes": deal.nnz,
        "of": adata.n_vars,
        "share of counts": share,
    }
    # The depth of a cell is over all its genes, also those without a place.
    found.obs[schema.DEPTH] = np.asarray(adata.layers["counts"].sum(axis=1)).ravel()
    return found


def summing(names: pd.Series) -> tuple[sparse.csr_matrix, pd.Index]:
    """What counts are multiplied by so that columns of one name become one, and those without a name none.

    Returns
    -------
    Zeros and ones, columns x names, and the names in the order in which they first come.
    """
    codes, found = pd.factorize(names)
    inside = np.flatnonzero(codes >= 0)
    ones = np.ones(len(inside), np.int32)
    return sparse.csr_matrix((ones, (inside, codes[inside])), (len(names), len(found))), pd.Index(found)
