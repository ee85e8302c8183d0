import pytest
from papermill import iorw

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.commands import parameter_files
from epigen_utils.errors import DataError

KEYS = [f"{path.parent.name}/{path.stem}" for path in sorted(paths.NOTEBOOKS.glob("*/*.ipynb"))]


@pytest.mark.parametrize("key", KEYS)
def test_papermill_reads_the_defaults_from_it(key, tmp_path):
    (tmp_path / "my.yml").write_text(parameter_files.as_yaml(key))
    values = iorw.read_yaml_file(str(tmp_path / "my.yml"))
    defaults = notebooks.default_values(paths.NOTEBOOKS / f"{key}.ipynb")
    assert values == defaults
    assert {name: type(values[name]) for name in values} == {name: type(defaults[name]) for name in defaults}


@pytest.mark.parametrize("key", KEYS)
def test_each_parameter_has_a_line_with_its_comment_in_a_group(key):
    blocks = parameter_files.as_yaml(key).split("\n\n")[1:]
    headings = [block.partition("\n")[0] for block in blocks]
    assert headings == [heading for heading in ("# data", "# model", "# training", "# controls") if heading in headings]
    lines = [line for block in blocks for line in block.strip().splitlines()[1:]]
    declared = notebooks.declared_parameters(paths.NOTEBOOKS / f"{key}.ipynb")
    assert {line.partition(":")[0]: line.rpartition("  # ")[2] for line in lines} == declared


@pytest.mark.parametrize(
    ("key", "name", "group"),
    [
        ("epilepsy/07_classification", "start", "model"),
        ("geneformer/11_perturbation", "start", "data"),
        ("geneformer/06_distillation", "alpha", "training"),
        ("epilepsy/03_differential_expression", "alpha", "controls"),
        ("epilepsy/03_differential_expression", "gene_sets", "data"),
    ],
)
def test_a_name_with_several_meanings_is_in_the_group_of_its_comment(key, name, group):
    blocks = parameter_files.as_yaml(key).split("\n\n")[1:]
    assert [block.partition("\n")[0] for block in blocks if f"\n{name}: " in block] == [f"# {group}"]


def test_no_group_names_a_parameter_that_no_chapter_has():
    lines = set()
    for key in KEYS:
        declared = notebooks.declared_parameters(paths.NOTEBOOKS / f"{key}.ipynb")
        lines |= {f"{name}: {comment}" for name, comment in declared.items()}
    for starts in parameter_files.GROUPS.values():
        assert [start for start in starts if not any(line.startswith(start) for line in lines)] == []


def test_an_unknown_chapter_is_one_line():
    with pytest.raises(DataError, match="^epilepsy/02_tabletwo: no such chapter; did you mean 'epilepsy/02_table_two'"):
        parameter_files.as_yaml("epilepsy/02_tabletwo")
