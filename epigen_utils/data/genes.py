"""Gene names: approved symbols, Ensembl ids, species, lengths, and panels of genes with sources."""

import re
import zlib
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import paths
from epigen_utils.data import fetching, registry
from epigen_utils.errors import DataError, first_line
from epigen_utils.files import open_text

#: Columns of the registry's `genes-...` tables, which have no header.
GENE_TABLE_COLUMNS = ["ensembl_id", "symbol", "version", "length", "biotype"]
#: File of ``data/``: species -> data set with its table of genes, prefix of its Ensembl ids, NCBI taxonomy id.
SPECIES_FILE = "species.yml"
PANELS_FILE = paths.DATA / "gene_panels.gmt"


def approved_symbol(symbol: str) -> str:
    """The approved symbol of a name misspelt in a paper; other names unchanged."""
    return registry.read_data_file("gene_aliases.yml").get(symbol, symbol)


#: Month of a date that a spreadsheet made of a gene -> stems of the former and the approved symbol, where they differ.
_DATED = {"Mar": [("MARCH", "MARCHF"), ("MARC", "MTARC")], "Sep": [("SEPT", "SEPTIN")], "Dec": [("DEC", "DELEC")]}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def gene_of_date(name: str) -> str:
    """The gene, by its former and approved symbol, of which a spreadsheet made a date; empty if it is no date.

    Examples
    --------
    >>> from epigen_utils.data import genes
    >>> genes.gene_of_date("2-Sep"), genes.gene_of_date("2024-03-01 00:00:00"), genes.gene_of_date("SEPTIN2")
    ('SEPT2, now SEPTIN2', 'MARCH1, now MARCHF1, or MARC1, now MTARC1', '')
    """
    month = "|".join(_MONTHS)
    day_first = re.fullmatch(rf"(\d{{1,2}})-({month})", name)
    month_first = re.fullmatch(rf"({month})-(\d{{1,2}})", name)
    iso = re.fullmatch(r"(?:19|20)\d\d-(\d\d)-(\d\d)(?:[ T]00:00:00)?", name)
    if day_first:
        day, word = int(day_first[1]), day_first[2]
    elif month_first:
        day, word = int(month_first[2]), month_first[1]
    elif iso and 1 <= int(iso[1]) <= 12:
        day, word = int(iso[2]), _MONTHS[int(iso[1]) - 1]
    else:
        return ""
    stems = _DATED.get(word, [(word.upper(), word.upper())])
    return ", or ".join(f"{old}{day}" + (f", now {new}{day}" if new != old else "") for old, new in stems)


def check_dates(path: Path, names: pd.Index) -> None:
    """Refuse gene ids of which a spreadsheet made dates.

    Raises
    ------
    DataError
        Naming the ids, and the genes that they were.
    """
    found = [(name, gene) for name in names.astype(str) if (gene := gene_of_date(name))]
    if found:
        listed = "; ".join(f"{name!r} was {gene}" for name, gene in found[:6])
        more = f"; and {len(found) - 6} more" if len(found) > 6 else ""
        raise DataError(f"{path}: a spreadsheet made dates of genes: {listed}{more}; write their names in the file")


@cache
def normalise_name(name: str) -> str:
    """A name in lower case with dots for punctuation, to match tables written by R."""
    return re.sub(r"[^a-z0-9]", ".", name.lower())


def gene_panels() -> dict[str, list[str]]:
    """Panels of human gene symbols, from ``data/gene_panels.gmt``, which gives the source of each."""
    return read_gmt(PANELS_FILE)


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Gene sets of a GMT file (name, source, symbols, tab-separated): name -> symbols.

    Raises
    ------
    DataError
        If it cannot be read, a line has no three fields, or a set is there twice.
    """
    sets = {}
    try:
        with open_text(path, encoding="utf-8-sig") as stream:
            lines = stream.read().split("\n")
    except (OSError, UnicodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as gene sets ({first_line(error)}); give a GMT file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line.count("\t") < 2:
            raise DataError(f"{path}: line {number}: a set is a name, a source and genes, with tabs between them")
        name, _source, *symbols = (field.strip() for field in line.split("\t"))
        if name in sets:
            raise DataError(f"{path}: line {number}: set {name!r} is there twice; keep one, or rename it")
        sets[name] = [symbol for symbol in symbols if symbol]
    if not sets:
        raise DataError(f"{path}: no gene sets; give a GMT file")
    return sets


def species_named(word: str) -> str:
    """A species as the registry writes it, from its Latin or English name in any spelling.

    Raises
    ------
    DataError
        If it is not in ``data/species.yml``.

    Examples
    --------
    >>> from epigen_utils.data import genes
    >>> genes.species_named("mouse"), genes.species_named("Mus musculus")
    ('mus_musculus', 'mus_musculus')
    """
    species = registry.read_data_file(SPECIES_FILE)
    spelt = re.sub(r"[\W_]+", "_", str(word).strip().lower())
    for name, about in species.items():
        if spelt in (name, *about["names"]):
            return name
    known = ", ".join(f"{name} ({about['names'][0]})" for name, about in species.items())
    raise DataError(f"species {word!r}: no table of genes; write one of {known}, or leave it out")


@cache
def gene_table(species: str) -> pd.DataFrame:
    """Genes of a species: ``ensembl_id``, ``symbol``, ``length`` (bases), ``biotype``.

    Raises
    ------
    DataError
        If the species is not in ``data/species.yml``.
    """
    species_table = registry.read_data_file(SPECIES_FILE)
    if species not in species_table:
        raise DataError(f"species {species!r}: no table of genes; known: {', '.join(species_table)}")
    path = fetching.fetch(species_table[species]["genes"])["genes"]
    return pd.read_csv(path, names=GENE_TABLE_COLUMNS, dtype={"symbol": str}, keep_default_na=False)


def species_of(adata: anndata.AnnData) -> str:
    """The species stated by a data set, else that of its Ensembl ids, else an empty string."""
    stated = adata.uns["epigen"]["species"]
    if stated in registry.read_data_file(SPECIES_FILE):
        return stated
    for name, about in registry.read_data_file(SPECIES_FILE).items():
        if adata.var_names.str.startswith(about["ensembl_prefix"]).mean() > 0.5:
            return name
    return ""


def add_symbols(adata: anndata.AnnData) -> anndata.AnnData:
    """Fill in ``var["symbol"]``, in place, of a data set with Ensembl ids but no symbols; the ids remain the index."""
    species = species_of(adata)
    if not (adata.var["symbol"] == adata.var_names).all() or "ensembl_id" not in adata.var or not species:
        return adata
    symbols = gene_table(species).set_index("ensembl_id")["symbol"].reindex(adata.var["ensembl_id"])
    adata.var["symbol"] = np.where(symbols.isna(), adata.var_names, symbols)
    return adata


def use_names(adata: anndata.AnnData, names: dict[str, str]) -> anndata.AnnData:
    """Take the symbols of the genes from an annotation, in place; a gene that it lacks keeps its symbol.

    Parameters
    ----------
    names
        Gene id -> name (`references.gene_names` of a GTF file).

    Raises
    ------
    DataError
        If the annotation has none of the genes.
    """
    symbols = pd.Series(names).reindex(adata.var_names)
    if symbols.isna().all():
        raise DataError(
            f"{adata.uns['epigen']['name']}: none of its {adata.n_vars} genes ({adata.var_names[0]}, ...) is in the "
            f"annotation ({next(iter(names))}, ...); give the one that it was counted with"
        )
    adata.var["symbol"] = symbols.fillna(adata.var["symbol"]).to_numpy()
    return adata


def collapse_probes(adata: anndata.AnnData, symbols: pd.Series) -> anndata.AnnData:
    """Replace the probes of an array by genes; each gene is represented by its probe of highest mean intensity.

    Parameters
    ----------
    symbols
        Probe -> gene symbol (`geo.read_probe_symbols`).

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


def gene_lengths(adata: anndata.AnnData) -> pd.Series:
    """Lengths of the genes of a data set in bases (merged exons), by id; empty if the species has no table."""
    if not (species := species_of(adata)):
        return pd.Series(dtype=float)
    by = "ensembl_id" if "ensembl_id" in adata.var else "symbol"
    reference = gene_table(species).drop_duplicates(by).set_index(by)["length"]
    return reference.reindex(adata.var[by].to_numpy()).set_axis(adata.var_names).dropna()


def summing_matrix(names: pd.Series) -> tuple[sparse.csr_matrix, pd.Index]:
    """Indicator matrix that sums columns of equal name, and drops columns without a name.

    Returns
    -------
    Zeros and ones, columns x unique names; the unique names in order of first appearance.
    """
    codes, unique = pd.factorize(names)
    columns = np.flatnonzero(codes >= 0)
    ones = np.ones(len(columns), np.int64)  # sums of 32 bits would wrap
    return sparse.csr_matrix((ones, (columns, codes[columns])), (len(names), len(unique))), pd.Index(unique)
