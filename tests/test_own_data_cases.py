"""Inputs as people have them, by kind: each gives the right answer, or one line that names the place and a mend.

The counts are simulated, 120 genes of 8 samples (``tests/reference/own_data``); numbers are R DESeq2 1.38.3's for them.
"""

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import datasets, genes
from epigen_utils.errors import DataError
from epigen_utils.expression import designs, differential, normalisation
from epigen_utils.reads import pipeline, references

REFERENCE = Path(__file__).parent / "reference" / "own_data"
TEXT = (REFERENCE / "counts.csv").read_text()
SAMPLES_TEXT = (REFERENCE / "samples.csv").read_text()


@pytest.fixture
def counts():
    return pd.read_csv(REFERENCE / "counts.csv", index_col=0)


@pytest.fixture
def samples():
    return pd.read_csv(REFERENCE / "samples.csv", index_col=0, dtype=str)


@pytest.fixture
def mine(tmp_path):
    """Load counts and a sample table that are written as text, or tables that are written as text first."""

    def load(counts=TEXT, samples=SAMPLES_TEXT, *, names=("counts.csv", "samples.csv"), **options):
        files = [tmp_path / name for name in names]
        for file, content in zip(files, (counts, samples), strict=True):
            if not isinstance(content, str):
                content = content.to_csv(sep="," if ".csv" in file.name else "\t")
            file.write_text(content)
        return datasets.load(files[0], metadata=files[1], **options)

    return load


def change(adata, design="", contrast="", at="", gene="JUN"):
    """Genes called by the first contrast, its name, and the log2 fold change of a gene, as chapter 3 takes them."""
    adata = genes.add_symbols(normalisation.sum_by_donor(designs.with_first_levels(adata, at), contrast))
    formula, contrasts = designs.design_and_contrasts(adata, design=design, contrast=contrast)
    name = next(iter(contrasts))
    table = differential.fit_design(adata, design=formula).results(contrasts[name])
    found = table["log2FoldChange"][(adata.var["symbol"] == gene).to_numpy()]
    return int((table["padj"] < 0.05).sum()), name, round(float(found.iloc[0]), 2)


#: Batches of the samples that are written as numbers, as in the case b20.
BATCHES = ["1.0", "2.0", "3.0", "2.0", "3.0", "1.0", "2.0", "1.0"]


def assert_as_base(adata):
    """The counts and groups of the plain files; `test_the_plain_files` has R's results of them."""
    plain = pd.read_csv(REFERENCE / "counts.csv", index_col=0)
    assert adata.layers["counts"].tolist() == plain.T.to_numpy().tolist()
    assert adata.obs["condition"].astype(str).tolist() == ["wt"] * 4 + ["ko"] * 4
    assert designs.design_and_contrasts(adata)[1] == {"ko against wt": ("condition", "ko", "wt")}


def test_the_plain_files(mine):
    adata = mine(group="condition", reference="wt")
    assert_as_base(adata)
    assert change(adata) == (11, "ko against wt", 1.87)
    assert notes(adata) == ""


def refused(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def notes(adata):
    return " ".join(adata.uns["epigen"].get("notes", []))


@pytest.mark.parametrize(
    ("column", "reference", "levels"),
    [
        ("genotype", 0, ("1", "0")),
        ("genotype", 1, ("0", "1")),
        ("genotype", "0", ("1", "0")),
        ("mutant", False, ("True", "False")),
        ("shouted", False, ("TRUE", "FALSE")),
        ("treatment", None, ("drug", "None")),
        ("dose", 2, ("10.0", "2.0")),
    ],
)
def test_levels_that_look_like_numbers_and_truth_values_are_words(mine, samples, column, reference, levels):
    """b17, b13: what papermill makes of ``-p reference 0`` once was no reference, and turned every sign."""
    ko = samples["condition"] == "ko"
    samples["genotype"] = np.where(ko, "0", "1")
    samples["mutant"], samples["shouted"] = ko.astype(str), ko.astype(str).str.upper()
    samples["treatment"], samples["dose"] = np.where(ko, "drug", "None"), np.where(ko, "10.0", "2.0")
    adata = mine(samples=samples, group=column, reference=reference)
    assert designs.design_and_contrasts(adata)[1] == {" against ".join(levels): (column, *levels)}


def test_one_against_zero(mine, samples):
    """b17, R's sign."""
    adata = mine(samples=samples.assign(genotype=list("11110000")), group="genotype", reference=0)
    assert change(adata) == (11, "1 against 0", -1.87)


def test_batches_of_text_and_h5ad_are_factors_by_one_rule(mine, counts, samples, tmp_path):
    """b20: 1.0, 2.0, 3.0 are batches; an age is a number; a formula says otherwise."""
    samples["batch"] = BATCHES
    of_text = mine(samples=samples)
    obs = samples.assign(batch=samples["batch"].astype(float), age=samples["age"].astype(int))
    adata = anndata.AnnData(obs=obs, var=pd.DataFrame(index=counts.index), X=counts.T.to_numpy(dtype=float))
    adata.write_h5ad(tmp_path / "counts.h5ad")
    of_h5ad = datasets.load(tmp_path / "counts.h5ad")
    assert change(of_h5ad, "~batch + condition", "condition,ko,wt") == (10, "ko against wt", 1.93)
    assert change(of_h5ad, "~numeric(batch) + condition", "condition,ko,wt") == (12, "ko against wt", 1.91)
    for design in ("~batch + condition", "~numeric(batch) + condition", "~batch + age + condition"):
        by_text, by_h5ad = (designs.design_matrix(adata, design) for adata in (of_text, of_h5ad))
        pd.testing.assert_frame_equal(by_text, by_h5ad, check_names=False, check_dtype=False)
        said = designs.describe_design(of_text, design, "condition")
        assert said == designs.describe_design(of_h5ad, design, "condition")
    assert "batch is a factor of 3 levels, the first 1.0; " in said
    assert "age is a number, 29 to 61" in said
    assert designs.design_and_contrasts(of_h5ad, contrast="batch,2,1")[1] == {
        "2.0 against 1.0": ("batch", "2.0", "1.0")
    }


def test_rows_that_counting_programs_add_are_no_genes(mine, counts):
    """b04: HTSeq's, also its older names; STAR's; the rest of the table is as without them."""
    special = ["__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"]
    for names in (special, ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"], ["no_feature"]):
        more = pd.DataFrame(100_000, names, counts.columns)
        adata = mine(pd.concat([counts, more]), group="condition", reference="wt")
        assert adata.n_vars == 120
        assert f"Rows that are no genes are left out: {', '.join(names)}." in notes(adata)
        assert_as_base(adata)


def test_the_scaled_age_of_r(mine):
    """b01: 7 are called by R."""
    assert change(mine(), "~ scale(age) + condition", "condition,ko,wt")[0] == 7


@pytest.mark.parametrize(
    ("design", "columns"),
    [
        ("~center(age)", lambda obs: [obs["age"] - obs["age"].mean()]),
        ("~scale(age)", lambda obs: [(obs["age"] - obs["age"].mean()) / obs["age"].std()]),
        ("~log(age)", lambda obs: [np.log(obs["age"])]),
        ("~I(age^2)", lambda obs: [obs["age"] ** 2]),
        ("~I(center(age)^2)", lambda obs: [(obs["age"] - obs["age"].mean()) ** 2]),
        ("~numeric(age)", lambda obs: [obs["age"]]),
        ("~factor(batch)", lambda obs: [obs["batch"] == "b2"]),
        ("~as.factor(batch)", lambda obs: [obs["batch"] == "b2"]),
        ("condition", lambda obs: [obs["condition"] == "wt"]),
    ],
)
def test_formulas_of_r(mine, design, columns):
    """b01: the columns of the model; a contrast beside such a term has a weight of its own column alone."""
    adata = mine()
    obs = adata.obs.assign(age=adata.obs["age"].astype(float))
    model = designs.design_matrix(adata, design)
    np.testing.assert_allclose(model.iloc[:, 1:].to_numpy(dtype=float).T, [x.astype(float) for x in columns(obs)])
    terms = "" if "condition" in design else " + condition"
    weights = designs.contrast_vector(adata, design + terms, ("condition", "ko", "wt"))
    assert np.flatnonzero(weights).tolist() == [len(weights) - 1]
    assert weights[-1] == -1


def test_a_polynomial_is_orthogonal_and_spans_the_powers_as_in_r(mine):
    adata = mine()
    poly = designs.design_matrix(adata, "~ poly(age, 2)").iloc[:, 1:].to_numpy()
    np.testing.assert_allclose(poly.T @ poly, np.eye(2), atol=1e-12)
    assert np.linalg.matrix_rank(np.column_stack([poly, designs.design_matrix(adata, "~age + I(age^2)")])) == 3


@pytest.mark.parametrize(
    ("design", "said"),
    [
        ("~1", "contrast: 'condition' is not in the design '~1'; add it to the design"),
        ("~", "design '~': it has no terms; give a formula, such as ~condition"),
        ("~condition | batch", "there are no random effects and no conditioning; block on the column instead: ~batch"),
        ("~condition + (1|donor)", "block on the column instead: ~donor"),
        ("y ~ condition", "counts stand on its left side; leave 'y' out"),
        ("~ .", "'.' stands for every column"),
        ("~Condition", r"`Condition` is not present in the dataset"),
        ("~ns(age, 3) + condition", "name 'ns' is not defined"),
        ("~condition + ", "misplaced"),
        ("~log(zero) + condition", "log(zero) of sample 'S1' is not finite"),
        ("~country + condition", "sample 'S2' lacks a value of 'country' (an empty cell, or NA)"),
        ("~numeric(sex) + condition", "'sex' has 'm', no number"),
        ("~condition:batch", "'condition' has no term of its own"),
    ],
)
def test_formulas_that_cannot_be_fitted_are_one_line(mine, samples, design, said):
    samples["zero"], samples["country"] = [f"{i / 2}" for i in range(8)], ["EU", "NA"] * 4
    assert said in refused(change, mine(samples=samples), design, "condition,ko,wt")


def test_a_name_with_dots_as_r_makes_them(mine, samples):
    adata = mine(samples=samples.rename(columns={"condition": "cell.type"}))
    assert list(designs.design_matrix(adata, "~batch + cell.type")) == ["Intercept", "batch[T.b2]", "cell.type[T.wt]"]
    assert designs.contrast_vector(adata, "~batch + cell.type", ("cell.type", "ko", "wt")).tolist() == [0, 0, -1]


def test_pairs_by_donor_and_contrast_alone(mine):
    """b01: the paired test of R."""
    assert change(mine(donor="donor", task="samples"), contrast="condition,ko,wt") == (13, "ko against wt", 1.9)


def test_one_gene_and_copies_are_refused_at_the_door(mine, counts):
    """b27."""
    one = counts.loc[["RELN"]]
    copies = counts[["S1"] * 4 + ["S5"] * 4].set_axis(counts.columns, axis=1)
    for task in ("groups", "samples"):
        assert "counts of one gene only" in refused(mine, one, group="condition", task=task)
        assert "samples 'S1' and 'S2': the same counts in every gene" in refused(
            mine, copies, group="condition", task=task
        )


def test_an_interaction_says_at_which_level_its_effect_is(mine):
    """b25: at the first level of the other factor, which a parameter sets."""
    samples = pd.DataFrame(
        {"genotype": ["ctrl"] * 6 + ["mut"] * 6, "treatment": (["vehicle"] * 3 + ["drug"] * 3) * 2},
        index=[f"R{i}" for i in range(1, 13)],
    )
    adata = mine((REFERENCE / "interaction.csv").read_text(), samples)
    design = "~genotype*treatment"
    assert "effect at treatment = drug (parameter at" in designs.describe_design(adata, design, "genotype")
    assert change(adata, design, "genotype,mut,ctrl") == (16, "mut against ctrl", 1.49)
    at_vehicle = designs.with_first_levels(adata, "treatment=vehicle")
    assert "effect at treatment = vehicle" in designs.describe_design(at_vehicle, design, "genotype")
    # The effect at another level is the effect at the first plus the interaction's.
    fitted = differential.fit_design(adata, design=design)
    weights = {"genotype[T.mut]": 1.0, "genotype[T.mut]:treatment[T.vehicle]": 1.0}
    at_drug = fitted.results(("genotype", "mut", "ctrl"))["log2FoldChange"]
    expected = fitted.results(weights)["log2FoldChange"]
    found = differential.fit_design(at_vehicle, design=design).results(("genotype", "mut", "ctrl"))["log2FoldChange"]
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert (expected - at_drug).abs().max() > 1
    assert "no level 'placebo' (levels: drug, vehicle)" in refused(
        designs.with_first_levels, adata, "treatment=placebo"
    )
    assert "write column=level" in refused(designs.with_first_levels, adata, "vehicle")


@pytest.mark.parametrize(
    ("old", "new"),
    [("S2,wt", "S2,wt "), ("S2,wt", "S2 ,\twt"), ("sample,condition", "sample,condition "), ("S6,ko", "S6, ko")],
)
def test_blanks_are_stripped_and_said(mine, old, new):
    """b14."""
    adata = mine(samples=SAMPLES_TEXT.replace(old, new), group="condition", reference="wt")
    assert_as_base(adata)
    assert "Blanks at the ends of " in notes(adata)


def test_blanks_in_an_h5ad(counts, samples, tmp_path):
    samples["condition"] = pd.Categorical([*samples["condition"][:-1], "ko "])
    obs = samples.rename(columns={"batch": " batch"}).rename(index={"S3": "S3 "})
    anndata.AnnData(obs=obs, var=pd.DataFrame(index=counts.index), X=counts.T.to_numpy()).write_h5ad(
        tmp_path / "b.h5ad"
    )
    adata = datasets.load(tmp_path / "b.h5ad", group="condition", reference="wt")
    assert_as_base(adata)
    assert "Blanks at the ends of words were taken off: sample 'S3 ', column ' batch', condition 'ko '." in notes(adata)


@pytest.mark.parametrize(
    "extra", [["gene_name"], ["gene_name", "length"], ["length"], ["Chr", "Start", "End", "Strand"]]
)
def test_columns_of_genes_are_no_samples(mine, counts, extra):
    """b06: nf-core's and salmon's merged tables, featureCounts', and the product's own counts.tsv."""
    about = {"gene_name": counts.index, "length": 1000, "Chr": "1;1", "Start": "5;9", "End": "7;11", "Strand": "+;+"}
    ids = [f"ENSG{i:011}.4" for i in range(len(counts))]
    table = pd.concat([pd.DataFrame({name: about[name] for name in extra}, index=counts.index), counts], axis=1)
    table = table.set_axis(pd.Index(ids, name="gene_id"))
    text = table.to_csv(sep="\t")
    if "Chr" in extra:  # as featureCounts begins
        text = '# Program:featureCounts v2.0.3; Command:"featureCounts" "-a" "genes.gtf"\n' + text
    adata = mine(text, names=("counts.tsv", "samples.csv"), group="condition", reference="wt")
    assert adata.shape == (8, 120)
    assert ("JUN" in set(adata.var["symbol"])) == ("gene_name" in extra)
    assert f"Of genes, not samples: column{'s' if len(extra) > 1 else ''} {', '.join(extra)};" in notes(adata)
    assert adata.layers["counts"].tolist() == counts.T.to_numpy().tolist()


def test_decimals_are_rounded_where_asked(mine, counts):
    estimates = counts + np.where(np.arange(8) > 2, 0.119, 0)
    assert "round_counts if they are estimates" in refused(mine, estimates, group="condition")
    adata = mine(estimates, group="condition", reference="wt", round_counts=True)
    assert_as_base(adata)
    assert "rounded (parameter round_counts)" in notes(adata)
    per_million = counts / counts.sum() * 1e6
    assert "these are TPM or CPM" in refused(mine, per_million, group="condition", round_counts=True)


def test_dates_that_a_spreadsheet_made_of_genes_are_named(mine):
    """b03."""
    dated = TEXT.replace("SEPTIN2,", "2-Sep,").replace("MARCHF1,", "1-Mar,")
    said = refused(mine, dated, group="condition")
    assert "'2-Sep' was SEPT2, now SEPTIN2; '1-Mar' was MARCH1, now MARCHF1, or MARC1, now MTARC1; write" in said


def test_a_level_without_samples_is_dropped(counts, samples, tmp_path):
    """b22."""
    for column in ("condition", "batch"):
        samples[column] = pd.Categorical(samples[column], ["none", *sorted(set(samples[column]))])
    anndata.AnnData(obs=samples, var=pd.DataFrame(index=counts.index), X=counts.T.to_numpy()).write_h5ad(
        tmp_path / "c.h5ad"
    )
    adata = datasets.load(tmp_path / "c.h5ad", group="condition", reference="wt")
    assert_as_base(adata)
    assert designs.design_matrix(adata, "~batch + condition").shape == (8, 3)


def test_zeros_are_said_at_the_door(mine, counts):
    """b23."""
    assert "sample 'S3': has no counts; drop it" in refused(mine, counts.assign(S3=0), group="condition")
    zeros = counts.mask(np.arange(120)[:, None] % 8 == np.arange(8), 0)
    said = refused(mine, zeros, group="condition")
    assert "no gene is detected in every sample" in said
    assert "size_factors=poscounts" in said
    adata = mine(zeros, group="condition", size_factors="poscounts")
    assert (normalisation.size_factors(adata) > 0).all()


@pytest.mark.parametrize("both", [False, True])
def test_tabs_in_a_file_named_csv(mine, both):
    """b10."""
    samples, counts = SAMPLES_TEXT.replace(",", "\t"), TEXT.replace(",", "\t") if both else TEXT
    adata = mine(counts, samples, group="condition", reference="wt")
    assert_as_base(adata)
    assert "samples.csv is read as separated by tabs." in notes(adata)


@pytest.mark.parametrize("columns", [["condition"], ["condition", "batch", "sex"]])
def test_sample_tables_as_r_writes_them(mine, samples, columns):
    """b11: write.table leaves the name of the first column out."""
    samples = samples[columns].to_csv(sep="\t", index_label="sample").removeprefix("sample\t")
    counts = TEXT.replace(",", "\t").removeprefix("gene\t")
    adata = mine(counts, samples, names=("counts.tsv", "samples.tsv"), group="condition", reference="wt")
    assert_as_base(adata)


def test_none_is_a_level_and_nan_a_gene(mine, samples):
    """b13: the gene nan is one of the fly's; NA in a sample table is missing, and said to be."""
    adata = mine(TEXT.replace("SOX2,", "nan,"), group="condition")
    assert "nan" in adata.var_names
    samples["country"] = ["EU", "NA"] * 4
    assert "sample 'S2': no group" in refused(mine, samples=samples, group="country")


@pytest.mark.parametrize("form", ["run numbers", "pandas", "R names", "bam"])
def test_ids_of_samples_are_found(mine, counts, samples, form):
    """Brothers: ids in another column, numbers of rows before them, and names that R or featureCounts has changed."""
    said = ""
    if form == "run numbers":
        samples = samples.assign(run=samples.index).set_axis([f"SRR{i}" for i in range(8)])
        said = "The samples' ids are in column 'run' of samples.csv"
    elif form == "pandas":
        counts, samples = (table.rename_axis("id").reset_index() for table in (counts, samples))
        said = "Ids are taken from column 'id'"
    else:
        samples.index = [f"{i}-{name}" for i, name in enumerate(samples.index)]
        names = [f"X{name.replace('-', '.')}" for name in samples.index]
        counts.columns = names if form == "R names" else [f"out/{name}.sorted.bam" for name in samples.index]
        said = "Samples are named as in the sample table: "
    adata = mine(counts, samples, group="condition", reference="wt")
    assert_as_base(adata)
    assert said in notes(adata)


def test_excel(mine, counts, samples, tmp_path):
    counts.to_excel(tmp_path / "counts.xlsx")
    samples.to_excel(tmp_path / "samples.xlsx")
    adata = datasets.load(
        tmp_path / "counts.xlsx", metadata=tmp_path / "samples.xlsx", group="condition", reference="wt"
    )
    assert_as_base(adata)


def test_a_place_that_is_no_number_in_an_annotation(tmp_path):
    """f02."""
    (tmp_path / "g.fa").write_text(">1 dna\nACGTACGTACGT\n")
    for first, last in (("1", "."), ("0", "4"), ("5", "4")):
        (tmp_path / "g.gtf").write_text(f'1\tx\texon\t{first}\t{last}\t.\t+\t.\tgene_id "G1"; transcript_id "T1";\n')
        said = refused(references.check_annotation, tmp_path / "g.fa", tmp_path / "g.gtf")
        assert f"g.gtf: line 1: an exon from '{first}' to '{last}'; columns 4 and 5" in said


@pytest.mark.parametrize("name", ["sample {R1}.fq", "genome{1}.fa"])
def test_braces_in_the_names_of_files(tmp_path, name):
    """g01."""
    reads, genome = ("a.fq", name) if name.endswith(".fa") else (name, "genome.fa")
    (tmp_path / reads).write_text("@r1\nACGT\n+\nIIII\n")
    (tmp_path / genome).write_text(">1\nACGT\n")
    (tmp_path / "genes.gtf").write_text('1\tx\texon\t1\t4\t.\t+\t.\tgene_id "G1"; transcript_id "T1";\n')
    (tmp_path / "sheet.csv").write_text(f"sample,fastq_1\na,{reads}\n")
    options = {"genome": str(tmp_path / genome), "gtf": str(tmp_path / "genes.gtf")}
    said = refused(pipeline.plan_pipeline, str(tmp_path / "sheet.csv"), tmp_path / "out", **options)
    assert f"{name}: has braces in its name" in said


@pytest.mark.parametrize("kind", ["htseq", "star"])
def test_a_folder_with_a_file_of_counts_a_sample(counts, tmp_path, kind):
    folder = tmp_path / "counted"
    folder.mkdir()
    for name in counts:
        table = counts[[name]]
        if kind == "star":
            table = pd.DataFrame({"both": table[name] + 1, "forward": 1, "reverse": table[name]}, counts.index)
            table = pd.concat([pd.DataFrame(9, ["N_unmapped", "N_noFeature"], table.columns), table])
        table.to_csv(
            folder / f"{name}{'.htseq.txt' if kind == 'htseq' else '_ReadsPerGene.out.tab'}", sep="\t", header=False
        )
    (tmp_path / "samples.csv").write_text(SAMPLES_TEXT)
    options = {"metadata": tmp_path / "samples.csv", "group": "condition", "reference": "wt"}
    adata = datasets.load(folder, **options)
    assert_as_base(adata)
    assert "Samples are 8 files of counted." in notes(adata)
    assert ("Of STAR's columns, that of reverse libraries is taken." in notes(adata)) == (kind == "star")
    last = sorted(folder.iterdir())[-1]
    last.write_text("\n".join(last.read_text().splitlines()[:-1]))
    assert f"{last}: other genes, or in another order, than S1" in refused(datasets.load, folder, **options)
    last.write_text("gene\tcount\nJUN\t5\n")
    assert f"{last}: no genes and counts as HTSeq or STAR write them" in refused(datasets.load, folder, **options)


def test_a_folder_of_transcripts_names_the_table_to_give(tmp_path):
    (tmp_path / "out" / "S1").mkdir(parents=True)
    (tmp_path / "out" / "S1" / "quant.sf").write_text("Name\tLength\n")
    assert "give the table of genes that tximport or nf-core makes" in refused(datasets.load, tmp_path / "out")


def test_logarithms_are_no_estimates_of_counts(mine, counts, samples, tmp_path):
    """Rounded, log2(x + 1) would be a matrix of twelves; estimates in raw are taken where X has logarithms."""
    said = refused(mine, np.log2(counts + 1.0), group="condition", round_counts=True)
    assert "these are logarithms, not estimates of counts; give the counts" in said
    adata = anndata.AnnData(counts.T.to_numpy() + 0.3, obs=samples, var=pd.DataFrame(index=counts.index))
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X)
    adata.write_h5ad(tmp_path / "raw.h5ad")
    rounded = datasets.load(tmp_path / "raw.h5ad", group="condition", reference="wt", round_counts=True)
    assert_as_base(rounded)
    assert "those of raw, with its genes: X has logarithms" in notes(rounded)
    del adata.raw
    adata.write_h5ad(tmp_path / "none.h5ad")
    assert "these are logarithms" in refused(datasets.load, tmp_path / "none.h5ad", round_counts=True)


def test_size_factors_that_there_are_none_of(mine):
    said = refused(mine, group="condition", size_factors="poscount")
    assert said == "size_factors 'poscount': did you mean 'poscounts'?"


@pytest.mark.parametrize("first", [",,,,,,,,", "   ", "# made by x\n,,,,,,,,\n\n"])
def test_blank_rows_before_the_header(mine, first):
    """As Excel exports them."""
    assert_as_base(mine(f"{first}\n{TEXT}", f",,\n{SAMPLES_TEXT}", group="condition", reference="wt"))


def test_rows_are_named_by_their_lines(mine):
    """After a comment and empty lines, as an editor counts them."""
    head, one, two, *rest = TEXT.splitlines()
    lines = ["# made by x", head, one, "", ",,,,,,,,", f",{two.partition(',')[2]}", *rest]
    assert "counts.csv: row 6: no gene id" in refused(mine, "\n".join(lines))
    head, one, two, *rest = SAMPLES_TEXT.splitlines()
    lines = ["", "# made by x", head, "", one, f",{two.partition(',')[2]}", *rest]
    assert "samples.csv: row 6: no sample id" in refused(mine, samples="\n".join(lines))


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["start", "mid", "end"], ["start", "mid", "end"]),
        (["start", "end"], ["start", "end"]),
        (["length", "a", "id", "b"], ["a", "id", "b"]),
        (["a", "b", "name", "description"], ["a", "b"]),
    ],
)
def test_samples_with_the_names_of_columns_of_genes(tmp_path, counts, names, kept):
    table = counts.iloc[:, : len(names)].set_axis(names, axis=1)
    table.to_csv(tmp_path / "counts.csv")
    adata = datasets.load(tmp_path / "counts.csv", task="counts")
    assert adata.obs_names.tolist() == kept
    left_out = [name for name in names if name not in kept]
    assert all(name in notes(adata) for name in left_out)
    assert ("rename what is a sample" in notes(adata)) == bool(left_out)


def test_the_sample_table_says_what_is_a_sample(mine, counts, samples):
    names = ["Start", "End", "id", "Name", "s5", "s6", "s7", "Length"]
    table = samples.set_axis([name.lower() for name in names])
    adata = mine(counts.set_axis(names, axis=1), table, group="condition", reference="wt")
    assert_as_base(adata)


@pytest.mark.parametrize("ending", ["XLSX", "xlsm"])
def test_every_name_of_excel(counts, samples, tmp_path, ending):
    files = [tmp_path / f"{name}.{ending}" for name in ("counts", "samples")]
    for table, file in zip((counts, samples), files, strict=True):
        table.to_excel(tmp_path / "table.xlsx")
        (tmp_path / "table.xlsx").rename(file)
    assert_as_base(datasets.load(files[0], metadata=files[1], group="condition", reference="wt"))


@pytest.mark.parametrize("name", ["counts.xlsx", "samples.xlsx"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and half of a workbook", b"gene,S1\nJUN,5\n"])
def test_half_of_a_workbook_is_one_line(counts, samples, tmp_path, name, content):
    counts.to_excel(tmp_path / "counts.xlsx")
    samples.to_excel(tmp_path / "samples.xlsx")
    (tmp_path / name).write_bytes(content)
    said = refused(datasets.load, tmp_path / "counts.xlsx", metadata=tmp_path / "samples.xlsx")
    assert f"{name}: cannot be read as a table (" in said


def test_nothing_in_parquet_is_no_word(samples, tmp_path):
    (tmp_path / "counts.csv").write_text(TEXT)
    samples["batch"] = ["1", None] * 4
    for table in (samples, samples.rename_axis("sample").reset_index()):
        table.to_parquet(tmp_path / "samples.parquet")
        adata = datasets.load(
            tmp_path / "counts.csv", metadata=tmp_path / "samples.parquet", group="condition", reference="wt"
        )
        assert_as_base(adata)
        assert adata.obs["batch"].isna().tolist() == [False, True] * 4
        assert list(adata.obs) == list(samples)


def test_the_case_of_a_file_s_ending_says_nothing(tmp_path):
    (tmp_path / "COUNTS.CSV.GZ").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "SAMPLES.CSV").write_text(SAMPLES_TEXT)
    adata = datasets.load(
        tmp_path / "COUNTS.CSV.GZ", metadata=tmp_path / "SAMPLES.CSV", group="condition", reference="wt"
    )
    assert_as_base(adata)
    assert notes(adata) == ""
