import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.errors import DataError
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import collate_sentences
from epigen_utils.interpretation import attribution


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.uniform(1, 9, (40, 16)), [f"s{i}" for i in range(40)], [f"g{i}" for i in range(16)])
    y = np.repeat(["a", "b"], 20)
    values.iloc[20:, 2] += 6
    # Sentences of different lengths.
    values.iloc[::10, 5] = 0
    return GPT2Classifier(folder=tmp_path_factory.mktemp("m")).fit(values, y), values


def test_integrated_gradients_add_up_to_the_margin(made):
    """Sundararajan et al. 2017, proposition 1."""
    classifier, values = made
    given = attribution.integrated_gradients(classifier, values, "b", background=values, steps=64)
    whole = attribution.sample_margins(classifier, values, "b")
    assert given.isna().sum().sum() == 4
    start = attribution.mean_embeddings(classifier, values)
    for place, row in enumerate(classifier.encoder_.encode(values)):
        ids = torch.tensor(row["input_ids"])
        with torch.no_grad():
            logits = classifier.model_.classified(start[ids][None], (ids > 0)[None]).logits
        even = float(attribution.logit_margin(classifier, logits, "b"))
        assert given.iloc[place].sum() == pytest.approx(whole[place] - even, abs=0.02 * np.ptp(whole))


def test_attributions_start_from_each_genes_own_average(made):
    classifier, values = made
    start = attribution.mean_embeddings(classifier, values)
    sums = np.zeros(start.shape[1])
    encoded = classifier.encoder_.padded(values)
    for row in range(len(encoded)):
        batch = collate_sentences(encoded, [row], classifier.scale_)
        with torch.no_grad():
            embedded = classifier.model_.input_embeddings(**batch)
        sums += embedded[batch["input_ids"] == 3][0].numpy()
    np.testing.assert_allclose(start[3], sums / len(encoded), rtol=1e-4, atol=1e-5)


def test_where_a_position_shows_a_gene_alone_they_start_from_the_average_of_all(tmp_path):
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.uniform(1, 9, (6, 8)), columns=[f"g{i}" for i in range(8)])
    classifier = GPT2Classifier(position_input="rank", folder=tmp_path).untrained(values, np.repeat(["a", "b"], 3))
    start = attribution.mean_embeddings(classifier, values)
    np.testing.assert_allclose(start[1], start[2])


def test_gradient_times_input_is_the_slope_at_the_sentence(made):
    classifier, values = made
    whole = attribution.integrated_gradients(classifier, values, "b", background=values, steps=64)
    slope = attribution.gradient_times_input(classifier, values, "b", background=values)
    assert slope.shape == whole.shape
    assert slope.notna().equals(whole.notna())
    opposite = attribution.gradient_times_input(classifier, values, "a", background=values)
    np.testing.assert_allclose(slope, -opposite, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", attribution.OCCLUSIONS)
def test_occlusion_asks_the_model_again(made, how):
    classifier, values = made
    given = attribution.occlusion(classifier, values, "b", background=values, how=how)
    changed = values.copy()
    changed.iloc[27, 2] = values["g2"].mean() if how == "mean" else 0.0
    before, after = (attribution.sample_margins(classifier, table, "b")[27] for table in (values, changed))
    assert given.iloc[27, 2] == pytest.approx(before - after, abs=1e-5)
    assert np.isnan(given.iloc[0, 5])


def test_importance_is_the_mean_of_absolute_attributions():
    table = pd.DataFrame({"a": [1.0, -3.0], "b": [np.nan, 2.0]})
    assert attribution.gene_importance(table).to_dict() == {"a": 2.0, "b": 2.0}


def test_mistakes(made):
    classifier, values = made
    with pytest.raises(DataError, match="occlusion 'men': did you mean 'mean'"):
        attribution.occlusion(classifier, values, "b", background=values, how="men")
    with pytest.raises(DataError, match="class 'c': known: a, b"):
        attribution.sample_margins(classifier, values, "c")


def test_agreement_stability_and_recovery():
    scores = pd.DataFrame({"one": [1.0, 2, 3, 4], "other": [4.0, 3, 2, 1]}, list("wxyz"))
    assert attribution.score_correlations(scores).loc["one", "other"] == -1
    assert attribution.planted_auroc(scores, {"z"}).tolist() == [1.0, 0.0]
    stable = attribution.stability_over_runs([scores["one"], scores["one"], scores["other"]])
    assert stable == {"mean": pytest.approx(-1 / 3), "low": -1.0, "high": 1.0, "pairs": 3}
    assert attribution.stability_over_runs([scores["one"]])["pairs"] == 0
    pair = attribution.stability_over_runs([scores["one"], scores["other"]])
    assert pair["mean"] == -1
    assert np.isnan([pair["low"], pair["high"]]).all(), "one pair has no spread"


def test_what_runs_agree_on_beyond_a_test():
    rng = np.random.default_rng(0)
    test, learned = rng.normal(size=(2, 400))
    of_test = [pd.Series(test + 0.3 * rng.normal(size=400)) for _ in range(3)]
    of_both = [pd.Series(test + learned + 0.3 * rng.normal(size=400)) for _ in range(3)]
    given = pd.Series(test)
    assert attribution.stability_over_runs(of_test)["mean"] > 0.85
    assert abs(attribution.stability_over_runs(of_test, control=given)["mean"]) < 0.1
    assert attribution.stability_over_runs(of_both, control=given)["mean"] > 0.8
    assert np.isnan(attribution.stability_over_runs([given, of_test[0]], control=given)["mean"])


def test_what_seeds_agree_on_more_than_untrained_ones_has_an_interval_over_seeds():
    rng = np.random.default_rng(1)
    test, learned = rng.normal(size=(2, 300))

    def seeds(n, signal):
        return [pd.Series(test + signal * learned + rng.normal(size=300)) for _ in range(n)]

    gain, low, high = attribution.stability_gain(seeds(5, 1.0), seeds(5, 0.0), control=pd.Series(test))
    assert 0 < low < gain < high
    nothing, low, high = attribution.stability_gain(seeds(5, 0.0), seeds(5, 0.0), control=pd.Series(test))
    assert low < 0 < high
    two = attribution.stability_gain(seeds(2, 1.0), seeds(2, 0.0), control=pd.Series(test))
    assert np.isnan(two[1:]).all(), "one pair each"
