import matplotlib.pyplot as plt
import pandas as pd

from epigen_utils.plots import score_plots


def test_shares_give_the_running_sum():
    ax = score_plots.cumulative_shares(
        plt.figure().subplots(), pd.Series([0.2, 0.5, 0.3], ["x", "y", "z"]), label="share"
    )
    assert [text.get_text() for text in ax.texts] == ["50%", "80%", "100%"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["y", "z", "x"]
