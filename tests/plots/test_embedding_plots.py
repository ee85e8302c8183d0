import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from epigen_utils.plots import embedding_plots

LABELS = pd.Series(pd.Categorical(list("aaabbb"), ["b", "a"]), index=[f"s{i}" for i in range(6)])


POINTS = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 2)), LABELS.index, ["PC1", "PC2"])


def test_embedding_shows_every_sample_once_and_names_its_axes():
    ax = embedding_plots.projection(plt.figure().subplots(), POINTS, LABELS, shares=np.array([0.5, 0.25]), title="t")
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 6
    assert ax.get_xlabel() == "PC1 (50.0% of variance)"
    assert [text.get_text() for text in ax.legend().get_texts()] == ["b (n = 3)", "a (n = 3)"]
