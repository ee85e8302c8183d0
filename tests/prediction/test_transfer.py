import pandas as pd
import pytest

from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection
from epigen_utils.prediction import sample_cohort, transfer


def test_what_species_share_is_found_and_shuffled_labels_find_nothing():
    one, other = (sample_cohort.load_cohort(name) for name in ("species-one-sim", "species-other-sim"))
    truth = [cohort.adata.varm["log2_fold_change"]["case"] for cohort in (one, other)]
    pd.testing.assert_series_equal(*truth)
    table, found = transfer.evaluate_transfer(one, other, fold_selection.baseline_models(), n_genes=64)
    auc = table.set_index("model")["auc"]
    assert auc["logistic regression"] > 0.95
    assert auc["majority"] == 0.5
    assert len(found["random forest"]) == 32
    null = transfer.permuted_transfer_aucs(one, other, n_genes=64, n_permutations=9)
    assert abs(null.mean() - 0.5) < 0.25
    with pytest.raises(DataError, match="0 genes in common"):
        transfer.evaluate_transfer(one, sample_cohort.load_cohort("airway"), fold_selection.baseline_models())
