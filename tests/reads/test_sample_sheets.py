import csv
import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigen_utils.errors import DataError
from epigen_utils.reads import sample_sheets


def fastq(path, names, length=5, opener=gzip.open):
    with opener(path, "wt") as stream:
        for name in names:
            stream.write(f"@{name}\n{'A' * length}\n+\n{'I' * length}\n")


@pytest.fixture
def files(tmp_path):
    """Two samples, paired and single, beside their sheet; `write` makes variants of it."""
    folder = tmp_path / "with a space"
    folder.mkdir()
    for mate in (1, 2):
        fastq(folder / f"a_{mate}.fq.gz", [f"r{i}/{mate}" for i in range(3)], length=4 + mate)
    fastq(folder / "b.fastq", ["s0", "s1"], opener=open)

    def write(*rows, header="sample,fastq_1,fastq_2,strandedness,group,donor"):
        (folder / "sheet.csv").write_text("\n".join([header, *rows]) + "\n")
        return folder / "sheet.csv"

    return write


def test_a_sheet(files):
    sheet = files("a,a_1.fq.gz,a_2.fq.gz,reverse,ko,x", "b,b.fastq,,,wt,y")
    one, other = sample_sheets.read_sheet(sheet)
    assert one.paired
    assert one.strandedness == "reverse"
    assert [file.rsplit("/", 1)[1] for file in one.fastq] == ["a_1.fq.gz", "a_2.fq.gz"]
    assert all(file.startswith(str(sheet.parent)) for file in one.fastq)
    assert not other.paired
    assert other.strandedness == "auto"
    assert sample_sheets.check_fastq(one) == sample_sheets.ReadSummary(3, 33, 5, 6)
    assert sample_sheets.check_fastq(other) == sample_sheets.ReadSummary(2, 10, 5, 5)


def test_two_columns_are_enough(files):
    sheet = files("b,b.fastq", header="sample,fastq_1")
    assert sample_sheets.read_sheet(sheet)[0].group == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a/b,b.fastq,,,,"], "row 2: sample 'a/b': becomes the name of files; use letters"),
        (["a b,b.fastq,,,,"], "row 2: sample 'a b': becomes the name of files"),
        ([",b.fastq,,,,"], "row 2: sample '': becomes the name of files"),
        (["a,b.fastq,,,,", "a,a_1.fq.gz,,,,"], "row 3: sample 'a' is there twice"),
        (["a,b.fastq,,,,", "c,b.fastq,,,,"], "b.fastq: is a file of sample 'a' already"),
        (["a,a_1.fq.gz,a_1.fq.gz,,,"], "holds mates 1 (read 'r0/1'); put it in column fastq_1"),
        (["a,a_2.fq.gz,a_1.fq.gz,,,"], "holds mates 2 (read 'r0/2'); put it in column fastq_2"),
        (["a,b.fastq,a_2.fq.gz,,,"], "read 1 is 'r0/2', and 's0' in b.fastq; mates stand in the same order"),
        (["a,c.fq.gz,,,,"], "row 2: fastq_1: "),
        (["a,,,,,"], "row 2: sample 'a': no fastq_1"),
        (["a,b.fastq,,stranded,,"], "row 2: strandedness 'stranded'; did you mean 'unstranded'?"),
        ([], "no samples; add a row for each"),
    ],
)
def test_mistakes_in_a_sheet_are_one_line(files, rows, said):
    sheet = files(*rows)
    with pytest.raises(DataError) as caught:
        sample_sheets.read_sheet(sheet)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_that_are_not_known_or_not_there(files):
    with pytest.raises(DataError, match=r"sheet\.csv: unknown column 'fastq1'; did you mean 'fastq_1'\?"):
        sample_sheets.read_sheet(files("a,b.fastq", header="sample,fastq1"))
    with pytest.raises(DataError, match=r"sheet\.csv: no column 'fastq_1'; add it"):
        sample_sheets.read_sheet(files("a,x", header="sample,group"))
    with pytest.raises(DataError, match=r"no\.csv: no such sample sheet"):
        sample_sheets.read_sheet("no.csv")


def test_an_empty_file_and_one_without_reads(files):
    sheet = files("a,none.fq.gz,,,,")
    (sheet.parent / "none.fq.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"row 2: fastq_1: .*none\.fq\.gz: is empty; give the reads again"):
        sample_sheets.read_sheet(sheet)
    (sheet.parent / "none.fq.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="holds no read"):
        sample_sheets.read_sheet(sheet)


def sample(*files):
    return sample_sheets.Sample("a", tuple(map(str, files)))


def test_a_file_that_breaks_off_is_named_with_the_read(tmp_path):
    path = tmp_path / "long.fq.gz"
    fastq(path, [f"r{i} {i % 97} {i**3}" for i in range(5000)], length=40)
    whole = path.read_bytes()
    assert sample_sheets.check_fastq(sample(path)).reads == 5000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"long\.fq\.gz: cannot be read after read [\d,]+ \(.* ended before .*\); fetch it again"
    ):
        sample_sheets.check_fastq(sample(path))
    plain = tmp_path / "short.fastq"
    plain.write_text("@r0\nACGT\n+\nIIII\n@r1\nAC")
    with pytest.raises(DataError, match="read 2: .* Premature end of file encountered"):
        sample_sheets.check_fastq(sample(plain))
    plain.write_text("@r0\nACGT\n+\nIII\n")
    with pytest.raises(DataError, match="read 1: .* Length of sequence and qualities differ"):
        sample_sheets.check_fastq(sample(plain))
    plain.write_text(">r0\nACGT\n>r1\nACGT\n")
    with pytest.raises(DataError, match="read 1: .* Line expected to start with '@', but found '>'"):
        sample_sheets.check_fastq(sample(plain))
    named = tmp_path / "plain.fq.gz"
    named.write_text("@r0\nACGT\n+\nIIII\n")
    with pytest.raises(DataError, match=r"plain\.fq\.gz: is named \.gz and is no gzip"):
        sample_sheets.check_fastq(sample(named))


def test_mates_that_are_not_the_same_fragments(tmp_path):
    one, other = tmp_path / "1.fq.gz", tmp_path / "2.fq.gz"
    fastq(one, ["a 1:N:0:AC", "b 1:N:0:AC"])
    fastq(other, ["a 2:N:0:AC"])
    with pytest.raises(DataError, match=r"2\.fq\.gz: 1 reads, and more in 1\.fq\.gz; each read needs its mate"):
        sample_sheets.check_fastq(sample(one, other))
    fastq(other, ["a 2:N:0:AC", "c 2:N:0:AC"])
    with pytest.raises(DataError, match=r"2\.fq\.gz: read 2 is 'c', and 'b' in 1\.fq\.gz"):
        sample_sheets.check_fastq(sample(one, other))


def test_sizes_of_groups_are_of_donors_where_all_have_one():
    def of(*rows):
        return [sample_sheets.Sample(str(i), (), group=group, donor=donor) for i, (group, donor) in enumerate(rows)]

    assert sample_sheets.group_sizes(of(("a", ""), ("a", ""), ("b", ""))) == {"a": 2, "b": 1}
    assert sample_sheets.group_sizes(of(("a", "x"), ("a", "x"), ("b", "x"))) == {"a": 1, "b": 1}
    assert sample_sheets.group_sizes(of(("a", "x"), ("a", ""), ("b", "y"))) == {"a": 2, "b": 1}
    assert sample_sheets.group_sizes(of(("a", "x"), ("", "y"))) == {}


def test_names_of_mates_in_the_archive(tmp_path):
    """As fastq-dump -I writes them."""
    fastq(tmp_path / "1.fq.gz", ["SRR100.1.1", "SRR100.2.1"])
    fastq(tmp_path / "2.fq.gz", ["SRR100.1.2", "SRR100.2.2"])
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("sample,fastq_1,fastq_2\na,1.fq.gz,2.fq.gz\n")
    (found,) = sample_sheets.read_sheet(sheet)
    assert sample_sheets.check_fastq(found).reads == 2
    sheet.write_text("sample,fastq_1,fastq_2\na,2.fq.gz,1.fq.gz\n")
    with pytest.raises(DataError, match="holds mates 2"):
        sample_sheets.read_sheet(sheet)
    # The second read of a run is no second mate.
    fastq(tmp_path / "1.fq.gz", ["SRR100.1", "SRR100.2"])
    fastq(tmp_path / "2.fq.gz", ["SRR100.1", "SRR100.2"])
    sheet.write_text("sample,fastq_1,fastq_2\na,1.fq.gz,2.fq.gz\n")
    assert sample_sheets.check_fastq(sample_sheets.read_sheet(sheet)[0]).reads == 2
    fastq(tmp_path / "2.fq.gz", ["SRR100.2", "SRR100.1"])
    with pytest.raises(DataError, match="read 1 is 'SRR100.2', and 'SRR100.1'"):
        sample_sheets.read_sheet(sheet)


# As SRA's Run Selector writes them, of GSE140393; columns that differ from series to series are in between.
SRA_HEADER = "Run,Assay Type,AvgSpotLen,Bases,BioProject,BioSample,condition,Experiment,GEO_Accession (exp),LibraryLayout,Sample Name"
SRA_ROW = '{run},RNA-Seq,100,2591718100,PRJNA589589,SAMN1,"lobe, temporal",SRX1,{sample},{layout},{sample}'
ENA_HEADER = "run_accession\tsample_alias\texperiment_alias\tlibrary_layout\tlibrary_strategy\tfastq_ftp\tfastq_md5"


def ena_row(run, sample, mates, strategy="RNA-Seq", layout=None):
    """A row of ENA's file report; ``mates`` are the endings of its files."""
    at = f"ftp.sra.ebi.ac.uk/vol1/fastq/{run[:6]}/00{run[-1]}/{run}/{run}"
    addresses = ";".join(f"{at}{mate}.fastq.gz" for mate in mates)
    sums = ";".join(f"{run}{mate}".ljust(32, "0") for mate in mates)
    layout = layout or ("PAIRED" if "_1" in mates else "SINGLE")
    return "\t".join([run, sample, f"{sample}_r1", layout, strategy, addresses, sums])


def table_of_runs(folder, header, *rows):
    path = folder / "runs.txt"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_run_selector_s_table_is_a_sheet(tmp_path):
    rows = [
        SRA_ROW.format(run=f"SRR{i}", sample=f"GSM{i}", layout=layout) for i, layout in ((1, "PAIRED"), (2, "SINGLE"))
    ]
    path = table_of_runs(tmp_path, SRA_HEADER, *rows)
    for name in ("SRR1_1", "SRR1_2", "SRR2"):
        fastq(tmp_path / f"{name}.fastq.gz", [f"SRR.{i}" for i in range(2)])
    one, other = sample_sheets.read_sheet(path)
    assert (one.name, one.fastq) == ("GSM1", tuple(str(tmp_path / f"SRR1_{mate}.fastq.gz") for mate in (1, 2)))
    assert (other.name, other.fastq) == ("GSM2", (str(tmp_path / "SRR2.fastq.gz"),))
    assert sample_sheets.from_run_table(path)[1] == {"SRR1_1.fastq.gz": [], "SRR1_2.fastq.gz": [], "SRR2.fastq.gz": []}
    (tmp_path / "SRR2.fastq.gz").unlink()
    with pytest.raises(DataError, match=r"row 3: fastq_1: .*SRR2\.fastq\.gz: no such file"):
        sample_sheets.read_sheet(path)


def test_a_group_that_is_added_to_a_table_of_runs_counts(tmp_path):
    row = SRA_ROW.format(run="SRR1", sample="GSM1", layout="SINGLE")
    fastq(tmp_path / "SRR1.fastq.gz", ["a"])
    (found,) = sample_sheets.read_sheet(table_of_runs(tmp_path, f"{SRA_HEADER},group,donor", f"{row},KO,mouse 1"))
    assert (found.group, found.donor) == ("KO", "mouse 1")


def test_ena_s_table_gives_addresses_and_joins_the_runs_of_a_sample(tmp_path):
    # A paired run has a third file, of reads without their mate.
    rows = [
        ena_row("SRR11", "GSM1", ["", "_1", "_2"]),
        ena_row("SRR12", "GSM1", ["_1", "_2"]),
        ena_row("SRR13", "SAMN9", [""]),
    ]
    sheet, parts = sample_sheets.from_run_table(table_of_runs(tmp_path, ENA_HEADER, *rows))
    assert sheet.to_dict("list") == {
        "sample": ["GSM1", "SAMN9"],
        "fastq_1": ["GSM1_1.fastq.gz", "SRR13.fastq.gz"],
        "fastq_2": ["GSM1_2.fastq.gz", ""],
    }
    assert list(parts) == ["GSM1_1.fastq.gz", "GSM1_2.fastq.gz", "SRR13.fastq.gz"]
    at = "https://ftp.sra.ebi.ac.uk/vol1/fastq/SRR"
    assert parts["GSM1_2.fastq.gz"] == [
        (f"{at}11/001/SRR11/SRR11_2.fastq.gz", "SRR11_2".ljust(32, "0")),
        (f"{at}12/002/SRR12/SRR12_2.fastq.gz", "SRR12_2".ljust(32, "0")),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [ena_row("SRR1", "GSM1", [""], strategy="ATAC-seq")],
            "row 2: run SRR1 is ATAC-seq, not RNA-Seq; leave the row",
        ),
        ([ena_row("SRR1", "GSM1", [""], layout="BOTH")], "row 2: library_layout 'BOTH'; write PAIRED or SINGLE"),
        (
            [ena_row("SRR1", "GSM1", [""], layout="PAIRED")],
            "row 2: run SRR1 should have 2 files, and ENA has SRR1.fastq.gz",
        ),
        ([ena_row("SRR1", "GSM1", [""])] * 2, "row 3: run SRR1 is there twice; leave one out"),
        (
            [ena_row("SRR1", "GSM1", [""]), ena_row("SRR2", "GSM1", ["_1", "_2"])],
            "row 3: runs of sample GSM1 are paired and single; leave one kind out",
        ),
        ([], "no runs; add a row for each"),
    ],
)
def test_mistakes_in_a_table_of_runs_are_one_line(tmp_path, rows, said):
    with pytest.raises(DataError) as caught:
        sample_sheets.read_sheet(table_of_runs(tmp_path, ENA_HEADER, *rows))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_of_runs_and_one_without_layouts(tmp_path):
    with pytest.raises(DataError, match="no column Run or run_accession; give SRA's or ENA's table of runs"):
        sample_sheets.from_run_table(table_of_runs(tmp_path, "sample,fastq_1", "a,b"))
    with pytest.raises(DataError, match="no column 'LibraryLayout'; add it"):
        sample_sheets.from_run_table(table_of_runs(tmp_path, "Run,Sample Name", "SRR1,GSM1"))


def test_a_table_of_runs_as_the_run_selector_wrote_it(mirror):
    table = mirror / "bulk" / "human_TLE_GSE140393_rnaQuest" / "SraRunMetadata.csv"
    sheet, _ = sample_sheets.from_run_table(table)
    assert list(sheet["sample"])[:2] == ["GSM4160556", "GSM4160559"]
    assert list(sheet["fastq_2"])[:2] == ["SRR10446596_2.fastq.gz", "SRR10446599_2.fastq.gz"]


WORDS = st.text("abX01 .,;'\"_-()+/µé", max_size=6).map(str.strip)
ROWS = st.lists(
    st.tuples(
        st.text("aZ09._-", min_size=1, max_size=8).filter(lambda name: name[0].isalnum()),
        st.booleans(),
        st.sampled_from(["", *sample_sheets.STRANDEDNESS]),
        WORDS,
        WORDS,
        WORDS.map(lambda word: word.replace("/", "")),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda row: row[0],
)


@given(rows=ROWS, columns=st.permutations(sample_sheets.SHEET_COLUMNS), sep=st.sampled_from(",\t"), bom=st.booleans())
def test_a_sheet_comes_back_as_it_was_written(rows, columns, sep, bom):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        table = []
        for i, (sample, paired, strand, group, donor, word) in enumerate(rows):
            files = [f"{i}{word}_1.fastq", f"{i}{word}_2.fastq" if paired else ""]
            for file in filter(None, files):
                fastq(folder / file, ["r0"], opener=open)
            row = [sample, *files, strand, group, donor]
            table.append(dict(zip(sample_sheets.SHEET_COLUMNS, row, strict=True)))
        with open(folder / "sheet.csv", "w", encoding="utf-8-sig" if bom else "utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, delimiter=sep)
            writer.writeheader()
            writer.writerows(table)
        found = sample_sheets.read_sheet(folder / "sheet.csv")
        for sample, row in zip(found, table, strict=True):
            assert (sample.name, sample.group, sample.donor) == (row["sample"], row["group"], row["donor"])
            assert sample.strandedness == (row["strandedness"] or "auto")
            assert sample.fastq == tuple(str(folder / row[f"fastq_{mate}"]) for mate in sample.mates)
        groups = {sample.group for sample in found}
        sizes = sample_sheets.group_sizes(found)
        assert set(sizes) == (set() if "" in groups else groups)
        assert sum(sizes.values()) <= len(found)


@given(
    runs=st.lists(
        st.tuples(st.sampled_from(["GSM1", "GSM22", "SAMN9"]), st.integers(1, 999)),
        min_size=1,
        max_size=8,
        unique_by=lambda run: run[1],
    ),
    paired=st.sets(st.sampled_from(["GSM1", "GSM22", "SAMN9"])),
)
def test_every_run_of_a_table_is_a_part_of_one_file_of_its_sample(runs, paired):
    rows = [ena_row(f"SRR{number}", sample, ["_1", "_2"] if sample in paired else [""]) for sample, number in runs]
    with tempfile.TemporaryDirectory() as folder:
        sheet, parts = sample_sheets.from_run_table(table_of_runs(Path(folder), ENA_HEADER, *rows))
    samples = list(dict.fromkeys(sample for sample, _ in runs))
    assert list(sheet["sample"]) == samples
    files = sheet.reindex(columns=["fastq_1", "fastq_2"], fill_value="").to_numpy()
    assert [sum(file != "" for file in row) for row in files] == [1 + (sample in paired) for sample in samples]
    assert [file for row in files for file in row if file] == list(parts)
    for mate in range(2):
        for sample, row in zip(samples, files, strict=True):
            numbers = [number for other, number in runs if other == sample]
            end = f"_{mate + 1}" if sample in paired else ""
            wanted = [f"SRR{number}{end}.fastq.gz" for number in numbers] if row[mate] else []
            assert [address.rpartition("/")[2] for address, _ in parts.get(row[mate], [])] == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample,fastq_1,group\nb,b.fastq\nc\n", "row 3: sample 'c': no fastq_1"),
        ("sample,fastq_1\nb,b.fastq\nc,c.fq,more\n", "row 3: a value in column 3, which has no name; name the column"),
        ("sample,fastq_1\nb,b.fastq\n\n,\na b,b.fastq\n", "row 5: sample 'a b': becomes the name of files"),
    ],
)
def test_rows_that_are_too_short_too_long_or_empty(files, text, said):
    sheet = files()
    sheet.write_text(text)
    with pytest.raises(DataError, match=said):
        sample_sheets.read_sheet(sheet)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("sep", [";", "\t"])
def test_a_sheet_as_a_spreadsheet_saves_it(files, encoding, sep):
    sheet = files()
    sheet.write_text(f"sample{sep}fastq_1{sep}group\r\nb{sep}b.fastq{sep}NA\r\n", encoding=encoding)
    (sample,) = sample_sheets.read_sheet(sheet)
    assert (sample.name, sample.group) == ("b", "")


@pytest.mark.parametrize(
    ("run", "sample"), [("../../SRR1", "GSM1"), ("SRR1", "../x"), ("SRR1", "a b")], ids=["run", "sample", "blank"]
)
def test_names_of_a_table_of_runs_become_names_of_files(tmp_path, run, sample):
    """Its files are fetched before a sheet is made of it."""
    path = table_of_runs(tmp_path, ENA_HEADER, ena_row(run, sample, [""]))
    with pytest.raises(DataError, match="row 2: sample '.*': becomes the name of files"):
        sample_sheets.from_run_table(path)
