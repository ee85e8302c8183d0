import numpy as np
import pandas as pd
import pytest

from epigen_utils.downstream import screening_recall
from epigen_utils.geneformer import vocabularies
from epigen_utils.models import presets

GENES = [f"ENSG{i:03d}" for i in range(60)]


def made(special=False, **changes):
    vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small", special=special)
    changes = {"vocab_size": len(vocabulary.tokens), "max_position_embeddings": 64} | changes
    return presets.build(presets.preset("bert-tiny", **changes), "masked-lm").eval(), vocabulary


def cell(vocabulary, n=50, seed=0):
    ids = np.random.default_rng(seed).permutation(vocabulary.gene_tokens)[:n]
    sides = [[vocabulary.tokens[name]] if name in vocabulary.tokens else [] for name in ("<cls>", "<eos>")]
    return np.concatenate([sides[0], ids, sides[1]]).astype(np.int64)


def states(*names, seed=1):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=64).astype(np.float32) for name in names or ("a", "b")}


def table(shifts):
    return pd.DataFrame({"cell": 0, "gene": GENES[: len(shifts)], "rank": range(len(shifts)), "shift_a": shifts})


def test_recall_by_hand():
    exact, estimated = table([-9.0, 5, 4, 3, 0, 0, 0, 0]), table([1.0, 7, 0, 8, 0, 0, 0, 0])
    found = screening_recall.top_gene_recall(estimated, exact, column="shift_a", top=3, share=0.25)
    assert found.iloc[0].to_dict() == {"cell": 0, "genes": 8, "kept": 2, "top": 3, "found": 1, "recall": 1 / 3}
    signed = screening_recall.top_gene_recall(estimated, exact, column="shift_a", top=3, share=0.25, signed=True)
    assert signed.loc[0, "found"] == 2


def test_curve_compares_with_exact_runs_of_its_own():
    model, vocabulary = made()
    cells = {"input_ids": [cell(vocabulary), cell(vocabulary, 40, 1)]}
    found = screening_recall.cost_recall_curve(model, cells, vocabulary, states(), top=10)
    assert list(found["variant"]) == list(screening_recall.SCREEN_VARIANTS)
    assert (found["top 10 in 0.5"] >= found["top 10 in 0.1"]).all()
    assert found["spearman"].between(-1, 1).all()
    assert "seconds" not in found
    by_variant = found.set_index("variant")
    # Two states: a pass with its gradients counts 1 + 2 * 2.
    assert by_variant.at["secant, 1 pass", "passes"] == 5
    assert by_variant.at["secant, 2 passes, 8 exact", "passes"] == 18
    assert (found["exact passes"] == 45).all()
    assert (found["times fewer passes"] == 45 / found["passes"]).all()


def test_timings_come_after_a_run_that_is_not_timed(monkeypatch):
    model, vocabulary = made()
    cells = {"input_ids": [cell(vocabulary, 12)]}
    clock = iter(range(1000))
    monkeypatch.setattr(screening_recall.time, "perf_counter", lambda: next(clock))
    runs = []
    screen = screening_recall.screening.screen
    monkeypatch.setattr(
        screening_recall.screening, "screen", lambda *args, **options: runs.append(1) or screen(*args, **options)
    )
    variants = {"secant, 1 pass": {"steps": 1, "exact_runs": 0}}
    found = screening_recall.cost_recall_curve(
        model, cells, vocabulary, states("a"), top=5, variants=variants, repeats=2
    )
    assert len(runs) == 3
    assert (found["exact seconds"] / found["seconds"]).to_numpy() == pytest.approx(found["times faster"].to_numpy())
