import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epigen_utils.downstream import gene_classes
from epigen_utils.errors import DataError
from epigen_utils.plots import class_plots

GENES = [f"ENSG{i:03d}" for i in range(90)]


Y = np.arange(90) < 30


TASK = {"a task": pd.DataFrame({"positive": Y, "pair": np.arange(90)}, GENES)}


def table(*columns):
    return pd.DataFrame(np.column_stack(columns), GENES)


@pytest.fixture
def noise():
    return np.random.default_rng(1).normal(size=(90, 8))


def compare(features, tasks=TASK, **options):
    return gene_classes.compare_features(features, tasks, **({"n_repeats": 2, "n_permutations": 3} | options))


def test_out_of_fold_scores_are_those_of_a_grid_search(noise):
    X = noise + 0.6 * Y[:, None]
    found = gene_classes.out_of_fold_scores(X, Y, np.arange(90), seed=4)
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
    grid = {"logisticregression__C": gene_classes.PENALTY_STRENGTHS}
    inner = StratifiedKFold(gene_classes.INNER_FOLDS, shuffle=True, random_state=4)
    search = GridSearchCV(model, grid, cv=inner, scoring="neg_log_loss")
    outer = StratifiedKFold(5, shuffle=True, random_state=4).split(X, Y)
    for fold, (train, test) in enumerate(outer, start=1):
        some = found[found["fold"] == fold]
        assert some["gene"].tolist() == test.tolist()
        expected = search.fit(X[train], Y[train]).decision_function(X[test])
        # The search scales in the inner training part, and so does ours.
        np.testing.assert_allclose(some["score"], expected, atol=1e-4)
    aucs = [roc_auc_score(Y[some["gene"]], some["score"]) for _, some in found.groupby("fold")]
    np.testing.assert_allclose(gene_classes.fold_aucs(found, Y), aucs)


def test_a_signal_is_found_and_none_is_not(noise):
    rows, scores = compare({"signal": table(noise, 3 * Y + noise[:, 0]), "none": table(noise)}, n_permutations=19)
    signal, none = rows.set_index("features").loc[["signal", "none"]].to_dict("records")
    assert signal["low"] > 0.8
    assert signal["p"] == 1 / 20
    assert none["low"] < 0.5 < none["high"]
    assert none["p"] > 0.05
    assert abs(signal["null"] - 0.5) < 0.1
    folds = gene_classes.aucs_by_fold(scores)
    np.testing.assert_allclose(folds[folds["features"] == "signal"]["auc"].mean(), signal["auc"])
    gain = gene_classes.auc_differences(folds, "signal").iloc[0]
    assert (gain["baseline"], gain["difference"]) == ("none", pytest.approx(signal["auc"] - none["auc"]))
    assert gain["folds"] == 10
    assert gain["low"] > 0


def test_what_is_expression_only_is_found_by_expression_too(noise):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.where(Y, 3.0, 0.5), (60, 90))
    alone = gene_classes.expression_features(np.log1p(counts), GENES)
    rows, _ = compare({"embedding": table(noise, alone["mean"]), "expression": alone})
    assert (rows["low"] > 0.9).all()


def test_coexpression_is_the_correlation_with_principal_components():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 90)) + rng.normal(size=(40, 90))
    values[:, 7] = 2.0
    found = gene_classes.coexpression_features(values, GENES, n_components=2)
    scaled = (values - values.mean(axis=0)) / np.where(values.std(axis=0) > 1e-9, values.std(axis=0), 1)
    scores = np.linalg.svd(scaled, full_matrices=False)[0][:, :2]
    for gene in (0, 50):
        expected = [np.corrcoef(values[:, gene], score)[0, 1] for score in scores.T]
        # A component of standardised genes has mean zero, so that this is a correlation; its sign is free.
        np.testing.assert_allclose(np.abs(found.iloc[gene]), np.abs(expected), atol=1e-6)
    assert np.abs(found.iloc[7]).max() < 1e-9


def test_expression_by_hand(small):
    small.var["ensembl_id"] = [f"ENSG{i:011d}" for i in range(4)]
    genes = [*small.var["ensembl_id"], "ENSG00000099999"]
    values = gene_classes.log_expression(small, genes)
    assert values[1, 2] == pytest.approx(np.log1p(8 / 105 * 1e4))
    assert (values[:, 4] == 0).all()
    assert gene_classes.expression_features(values, genes)["detection"].argmin() == 4


def test_pairs_stay_in_one_fold_and_are_shuffled_within(noise):
    """Pairs of like features: with pairs torn apart, their classes are told wrongly, below one half."""
    tasks = {
        "planted regulators": pd.DataFrame({"positive": np.arange(80) < 40, "pair": np.arange(80) % 40}, GENES[:80])
    }
    like = pd.DataFrame(np.vstack([noise[:40], noise[:40]]), GENES[:80])
    rows, scores = compare({"alike": like}, tasks)
    assert (
        scores.assign(pair=[GENES.index(g) % 40 for g in scores["gene"]])
        .groupby(["repeat", "pair"])["fold"]
        .nunique()
        .eq(1)
        .all()
    )
    assert rows["auc"][0] == 0.5
    apart = {"apart": tasks["planted regulators"].assign(pair=np.arange(80))}
    assert compare({"alike": like}, apart)[0]["auc"][0] < 0.45


def test_features_that_were_not_compared():
    folds = pd.DataFrame({"task": "t", "features": ["a", "b"], "repeat": 1, "fold": 1, "auc": 0.5})
    with pytest.raises(DataError, match="features 'pretrianed': known: a, b"):
        gene_classes.auc_differences(folds, "pretrianed")


def test_published_folds_stand_below_ours(noise):
    _, scores = compare({"none": table(noise)}, {"dosage sensitivity": TASK["a task"]})
    found = gene_classes.fold_table_with_published(gene_classes.aucs_by_fold(scores), "dosage sensitivity").set_index(
        "features"
    )
    assert found.loc["official Geneformer, fine-tuned"].tolist() == [
        0.9373,
        0.9411,
        0.9635,
        0.8904,
        0.8782,
        0.914,
        0.032,
    ]
    assert found.loc["none", "mean"] == pytest.approx(found.loc["none", "fold 1":"fold 5"].mean())


def test_plots_show_what_they_are_given(noise):
    features = {"fresh weights": table(noise), "of one's own": table(noise + Y[:, None])}
    rows, scores = compare(features, {"dosage sensitivity": TASK["a task"]})
    _, (left, right) = plt.subplots(1, 2)
    class_plots.gene_class_aucs(left, rows)
    assert [label.get_text() for label in left.get_yticklabels()] == ["dosage sensitivity\n30 v 60"]
    names = left.get_legend_handles_labels()[1]
    assert set(names) == {"published, fine-tuned", *features}
    assert left.get_xlim()[0] <= rows["low"].min()
    class_plots.gene_class_roc_curves(right, scores, title="t")
    for line, auc in zip(right.get_lines(), rows["auc"], strict=False):
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(auc, abs=0.03)
    plt.close("all")
