import numpy as np
import pandas as pd

from epigen_utils.geneformer import masked_cell, masked_genes, vocabularies
from epigen_utils.models import batching

GENES = [f"ENSG{i:011d}" for i in range(60)]
VOCABULARY = vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="v")


def test_the_example_is_the_cell_that_the_model_is_given():
    ids = np.random.default_rng(0).permutation(60) + 2
    table = masked_cell.mask_example(ids, VOCABULARY, seed=1, row=3)
    batch = masked_genes.MaskedGenes(VOCABULARY, seed=1)([{"input_ids": ids, "row": 3}])
    assert table["shown"].tolist() == batch["input_ids"][0].tolist()
    assert table["token"].tolist() == list(ids)
    asked = (batch["labels"][0] != batching.IGNORED).numpy()
    assert ((table["kind"] != "context") == asked).all()
    assert (table.loc[table["kind"] == "context", "shown"] == table.loc[table["kind"] == "context", "token"]).all()


def test_genes_are_named_and_hidden_ones_are_not():
    mask = VOCABULARY.tokens[vocabularies.MASK]
    table = pd.DataFrame({"token": [2, 3, 4], "shown": [2, mask, 5], "kind": ["context", "hidden", "replaced"]})
    genes = pd.DataFrame({"symbol": ["A", "B", None, "D"]}, index=GENES[:4])
    named = masked_cell.name_genes(table, VOCABULARY, genes)
    assert named["symbol"].tolist() == ["A", "B", GENES[2]]
    assert named["text"].tolist() == ["A", "[MASK]", "D"]
    by_column = masked_cell.name_genes(table, VOCABULARY, genes.reset_index(names="ensembl_id"))
    assert by_column["text"].tolist() == named["text"].tolist()
    assert masked_cell.name_genes(table, VOCABULARY, pd.DataFrame())["text"].tolist() == [GENES[0], "[MASK]", GENES[3]]
