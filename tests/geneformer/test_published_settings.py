import json

import pytest

from epigen_utils import paths
from epigen_utils.data import fetching
from epigen_utils.geneformer import masked_genes, published_settings

PUBLISHED, STATED = paths.DATA / "geneformer_settings.csv", paths.DATA / "paper_b_architecture.csv"


def test_settings_are_those_of_the_published_configuration(mirror):
    settings = published_settings.read_settings(PUBLISHED)
    config = json.loads(fetching.fetch("geneformer-published")["config"].read_text())
    for name, key in published_settings.CONFIG_KEYS.items():
        assert settings[name] == config[key]


def test_parameters_are_counted_from_the_published_sizes():
    settings = published_settings.read_settings(PUBLISHED)
    assert published_settings.count_parameters(settings) == 10_288_722
    assert published_settings.count_parameters(settings | {"layers": 1.0}) < 10_288_722


def test_masking_here_is_the_published_one():
    settings = published_settings.read_settings(PUBLISHED)
    shares = masked_genes.MASKED_SHARE, masked_genes.MASK_TOKEN_SHARE, masked_genes.RANDOM_GENE_SHARE
    assert shares == tuple(settings[name] for name in ("masked share", "mask token share", "random gene share"))


def test_the_paper_agrees_with_the_files_on_what_it_states():
    table = published_settings.compare_settings(STATED, PUBLISHED)
    stated = table[table["paper B"] != ""]
    assert len(stated) == 11
    for row in stated.itertuples(index=False):
        assert row[1].lower() == row.published or float(row[1]) == float(row.published)
    here = table[table["preset"] != ""]
    assert set(here["setting"]) == set(published_settings.CONFIG_KEYS)
    for row in here.itertuples():
        assert row.preset == row.published or float(row.preset) == float(row.published)


def test_the_paper_contradicts_itself_on_the_feed_forward_width():
    """Section 1.4 has 512 and 256; section 2.3 takes four times the width for typical."""
    stated = published_settings.read_settings(STATED)
    assert stated["feed-forward width"] / stated["width"] == pytest.approx(2)
    assert stated["feed-forward width over width"] == 4
