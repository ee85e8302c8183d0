import anndata
import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from epigen_utils.downstream import baselines
from epigen_utils.geneformer import vocabularies


def test_inputs_by_hand():
    vocabulary = vocabularies.vocabulary_from_medians({"g1": 1.0, "g2": 1.0, "g3": 1.0}, name="v", special=True)
    ids = [vocabulary.tokens[name] for name in ("<cls>", "g3", "g1", "<eos>")]
    found = baselines.bag_of_ranks({"input_ids": [ids, [vocabulary.tokens["g2"]]]}, vocabulary)
    assert found.toarray().tolist() == [[0.5, 0, 1], [0, 1, 0]]
    counts = sparse.csr_matrix(np.array([[1, 3], [0, 0]]))
    logged = baselines.log_normalised_counts(anndata.AnnData(layers={"counts": counts}, shape=(2, 2)))
    np.testing.assert_allclose(logged.toarray(), np.log1p([[2500, 7500], [0, 0]]))


@pytest.mark.parametrize("name", list(baselines.baseline_classifiers()))
def test_every_rival_learns_what_is_plain_and_the_majority_nothing(name):
    rng = np.random.default_rng(0)
    y = np.resize(["a", "b", "b"], 120)
    x = sparse.csr_matrix(np.where((y == "a")[:, None], [5, 0, 1], [0, 5, 1]) + rng.random((120, 3)))
    model = clone(baselines.baseline_classifiers()[name][1]).fit(x[:90], y[:90])
    right = (model.predict(x[90:]) == y[90:]).mean()
    assert right == pytest.approx(2 / 3) if name == "majority" else right > 0.95
