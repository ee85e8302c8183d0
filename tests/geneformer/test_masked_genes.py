import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.models import batching, presets
from epigen_utils.stats import intervals

WITH_SPECIAL = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(500)}, name="v", special=True)


def rows(n, length, seed=0):
    rng = np.random.default_rng(seed)
    return [{"input_ids": np.r_[2, rng.permutation(500)[:length] + 4, 3], "row": i} for i in range(n)]


def test_fixed_masks_follow_the_cell_not_the_batch():
    cells = rows(6, 40)
    collate = masked_genes.MaskedGenes(WITH_SPECIAL, seed=5)
    together, alone = collate(cells), collate([cells[4]])
    for name in ("input_ids", "labels"):
        torch.testing.assert_close(together[name][4], alone[name][0])
    assert (collate(cells)["labels"] == together["labels"]).all()
    assert (masked_genes.MaskedGenes(WITH_SPECIAL, seed=6)(cells)["labels"] != together["labels"]).any()
    later = [cell | {"epoch": 1} for cell in cells]
    assert (collate(later)["labels"] != together["labels"]).any()


def test_a_single_gene_of_each_cell_is_hidden():
    cells = rows(200, 40) + [{"input_ids": np.array([2, 7, 3]), "row": 200}]
    batch = masked_genes.MaskedGenes(WITH_SPECIAL, seed=5, single=True)(cells)
    selected = batch["labels"] != batching.IGNORED
    assert (selected.sum(dim=1) == 1).all()
    assert (batch["input_ids"][selected] == WITH_SPECIAL.tokens["<mask>"]).all()
    places = torch.where(selected)[1]
    assert places.min() == 1
    assert places.max() == 40, "no special token"
    assert len(set(places.tolist())) > 35
    assert places[200] == 1


def test_padded_to_a_length():
    assert masked_genes.MaskedGenes(WITH_SPECIAL, pad_to=64)(rows(2, 10))["input_ids"].shape == (2, 64)


VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(60)}, name="v")


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return {"input_ids": [rng.permutation(60)[: rng.integers(8, 50)] + 2 for _ in range(80)]}


def test_predictions_do_not_depend_on_the_batch(cells):
    model = presets.build(presets.preset("bert-tiny", vocab_size=62), "masked-lm")
    one, many = (
        masked_genes.predict_masked_genes(model, cells, VOCABULARY, seed=1, batch_size=size) for size in (1, 16)
    )
    pd.testing.assert_frame_equal(one, many, rtol=1e-3)
    asked = masked_genes.MaskedGenes(VOCABULARY, seed=1)([{"input_ids": cells["input_ids"][7], "row": 7}])["labels"][0]
    expected = torch.where(asked != batching.IGNORED)[0].tolist()
    assert one.loc[one["cell"] == 7, "rank"].tolist() == expected


def test_kinds_are_what_a_position_shows(cells):
    """Eighty in a hundred selected genes are hidden, ten replaced, ten left; the kind follows from what is shown."""
    model = presets.build(presets.preset("bert-tiny", vocab_size=62), "masked-lm")
    many = {"input_ids": cells["input_ids"] * 20}
    found = masked_genes.predict_masked_genes(model, many, VOCABULARY, seed=1)
    share = found["kind"].value_counts(normalize=True)
    assert share["hidden"] == pytest.approx(0.8, abs=0.02)
    # Of the random genes, one in sixty is the gene itself.
    assert share["unchanged"] == pytest.approx(0.1 + 0.1 / 60, abs=0.02)
    mask = VOCABULARY.tokens[vocabularies.MASK]
    assert ((found["kind"] == "hidden") == (found["shown"] == mask)).all()
    assert ((found["kind"] == "unchanged") == (found["shown"] == found["token"])).all()


def test_a_model_that_copies_is_right_where_genes_stay_and_nowhere_else(cells):
    """The gene that stands there is no prediction: the copy rule has a tenth of all, and nothing of the hidden ones."""
    model = presets.build(presets.preset("bert-tiny", vocab_size=62), "masked-lm")
    found = masked_genes.predict_masked_genes(model, cells, VOCABULARY, seed=1)
    copied = found.assign(correct=found["shown"] == found["token"])
    table = masked_genes.accuracy_by_kind({"copy": copied}, n_bootstrap=20).set_index("kind")
    assert table["accuracy"].to_dict() == {
        "hidden": 0,
        "replaced": 0,
        "unchanged": 1,
        "all": pytest.approx((found["kind"] == "unchanged").mean()),
    }
    assert table["n"].sum() == 2 * table.loc["all", "n"] == 2 * len(found)


def test_a_model_that_is_worse_than_a_baseline_has_not_learned():
    sure = {"difference": 1.0, "low": 0.5, "high": 1.5, "units": 9, "unit": "donors"}
    unsure = sure | {"difference": 0.5, "low": -0.5}
    by_kind = pd.DataFrame({"model": ["m", "copy rule"], "kind": "all", "accuracy": [0.02, 0.1]})
    options = {"by_kind": by_kind, "model": "m", "copy": "copy rule"}
    for gains in ((sure, unsure), (unsure, sure)):
        assert "has not learned" in masked_genes.describe_learning(*gains, **options)[-1]
    assert "not to copy" in masked_genes.describe_learning(sure, sure, **options)[-1]
    better = options | {"by_kind": by_kind.assign(accuracy=[0.3, 0.1])}
    assert len(masked_genes.describe_learning(sure, sure, **better)) == 2


def test_three_donors_are_values_and_have_no_interval():
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"cell": np.repeat(np.arange(40), 20), "nll": rng.gamma(2, 1, 800)})
    found["correct"] = found["cell"] % 4 == 0
    found["kind"] = pd.Categorical(np.where(found.index % 10 == 0, "unchanged", "hidden"), masked_genes.KINDS)
    for n_donors, known in ((3, False), (4, True)):
        donors = np.arange(40) % n_donors
        options = {"donors": donors, "n_bootstrap": 50}
        by_kind = masked_genes.accuracy_by_kind({"a": found}, **options)
        summary = masked_genes.summarise_predictions(found, **options)
        assert (by_kind.filter(regex="low|high").notna() == known).all(axis=None)
        assert (summary.filter(regex="low|high").notna() == known).all(axis=None)
        gap = masked_genes.metric_differences(found, found.assign(nll=found["nll"] + 1), **options)
        assert all(np.isfinite(end) == known for end in intervals.ends(gap, "perplexity").values())
        gain = masked_genes.loss_reduction(found, found.assign(nll=found["nll"] + 1), **options)
        assert all(np.isfinite(end) == known for end in intervals.ends(gain).values())
        assert gain["values"] == pytest.approx(dict.fromkeys(range(n_donors), 1.0))
        sentence = masked_genes.describe_gain(gain, "a", "b", "hidden")
        assert "nats per hidden gene below that of b" in sentence
        assert ("over 4 donors" in sentence) == known
        assert ("each of 3 donors: +1.00, +1.00, +1.00" in sentence) != known
        assert masked_genes.is_sure(gain)
        assert not masked_genes.is_sure(gain | {"low": -0.1, "values": {0: 1.0, 1: -0.1}})
    table = masked_genes.metrics_by_donor({"a": found}, np.arange(40) % 4).set_index("donor")
    assert table["accuracy"].tolist() == table["hidden accuracy"].tolist() == [1, 0, 0, 0]
    assert table["cells"].tolist() == [10] * 4
    assert table["perplexity"].iloc[1] == pytest.approx(np.exp(found.loc[found["cell"] % 4 == 1, "nll"].mean()))


def test_three_ways_to_average_by_hand():
    found = pd.DataFrame({"cell": [0, 0, 0, 1], "nll": [1.0, 1.0, 1.0, 3.0], "correct": [True, True, False, False]})
    table = masked_genes.summarise_predictions(found, batch_size=1).set_index("over")
    assert table.loc["token", "accuracy"] == pytest.approx(0.5)
    assert table.loc["token", "perplexity"] == pytest.approx(np.exp(1.5))
    assert table.loc["cell", "accuracy"] == pytest.approx(1 / 3)
    assert table.loc["cell", "perplexity"] == pytest.approx((np.e + np.e**3) / 2)
    assert table.loc["batch", "accuracy"] == pytest.approx(1 / 3)
    assert table["n"].tolist() == [4, 2, 2]


def test_intervals_hold_the_value_and_donors_are_drawn_whole():
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"cell": np.repeat(np.arange(60), 20), "nll": rng.gamma(2, 1, 1200)})
    found["correct"] = rng.random(1200) < 0.3
    donors = np.arange(60) // 10
    found.loc[found["cell"] < 10, "correct"] = True
    by_cell, by_donor = (
        masked_genes.summarise_predictions(found),
        masked_genes.summarise_predictions(found, donors=donors),
    )
    for table in (by_cell, by_donor):
        for name in ("accuracy", "perplexity"):
            assert ((table[f"{name} low"] < table[name]) & (table[name] < table[f"{name} high"])).all()
    width = by_donor["accuracy high"] - by_donor["accuracy low"]
    assert (width > 1.5 * (by_cell["accuracy high"] - by_cell["accuracy low"])).all()


def test_difference_is_paired_by_mask():
    one = pd.DataFrame({"cell": [0, 0, 1, 2, 3], "nll": [1.0, 2.0, 3.0, 1.0, 1.0]})
    found = masked_genes.loss_reduction(one, one.assign(nll=one["nll"] + [1, 1, 3, 2, 2]))
    assert found["difference"] == pytest.approx(2)
    assert 1 <= found["low"] < 2 < found["high"] <= 3
    assert (found["units"], found["values"]) == (4, {0: 1, 1: 3, 2: 2, 3: 2})
    sentence = masked_genes.describe_gain(found, "a", "b", "hidden")
    assert sentence.startswith("The loss of a lies 2.00 nats per hidden gene below that of b (mean over cells; 95%")
    assert "over 4 cells" in sentence
    whole = masked_genes.loss_reduction(one, one.assign(nll=one["nll"] + 1), donors=np.array(["a", "a", "b", "b"]))
    assert (whole["difference"], whole["units"], whole["values"]) == (1, 2, {"a": 1, "b": 1})


def test_a_gap_is_paired():
    """Two models that differ by the same in every donor have a gap without spread, however much donors differ."""
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(40), 25)
    hard = rng.normal(4, 1, 40)[cell]
    one = pd.DataFrame({"cell": cell, "nll": hard, "correct": np.arange(1000) % 25 < 10})
    other = one.assign(correct=np.arange(1000) % 25 < 15)
    found = masked_genes.metric_differences(one, other, donors=np.arange(40) % 8, n_bootstrap=100)
    assert (found["accuracy low"], found["accuracy"], found["accuracy high"]) == pytest.approx((-0.2, -0.2, -0.2))
    assert found["perplexity"] == 0
    assert found["units"] == 8
    worse = masked_genes.metric_differences(one.assign(nll=hard + 0.1), one, donors=np.arange(40) % 8, n_bootstrap=100)
    assert 0 < worse["perplexity low"] < worse["perplexity"] < worse["perplexity high"]
    assert worse["perplexity"] == pytest.approx(np.exp(hard.mean()) * (np.exp(0.1) - 1))
