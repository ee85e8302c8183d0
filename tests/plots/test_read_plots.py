import numpy as np
import pandas as pd
import pytest

from epigen_utils.plots import read_plots
from epigen_utils.reads import rule_graph, tool_reports

EDGES = pd.DataFrame(
    [("checked", "fastp"), ("fastp", "align"), ("index", "align"), ("align", "merge")], columns=["first", "then"]
)


def test_places_follow_what_comes_before():
    at = rule_graph.rule_positions(EDGES)
    assert [at[name][0] for name in ("checked", "index", "fastp", "align", "merge")] == [0, 0, 1, 2, 3]
    assert at["checked"][1] != at["index"][1]


def test_every_rule_and_chapter_is_drawn(ax):
    chapters = pd.DataFrame({"title": ["Cohorts", "Heat maps: what varies"]})
    drawn = read_plots.pipeline_graph(ax, EDGES, chapters)
    assert {text.get_text() for text in drawn.texts} >= {"checked", "align", "Cohorts", "Heat maps"}


def test_every_stage_is_drawn_with_what_it_passes_on_and_its_chapters(ax):
    table = rule_graph.stage_chapters()
    drawn = read_plots.pipeline_stages(ax, table.assign(title=table["chapter"]))
    texts = [" ".join(text.get_text().split()) for text in drawn.texts]
    for row in table.itertuples():
        assert f"{row.number} {row.stage}" in texts
        assert row.chapter in texts
    assert set(table["passes on"]) <= set(texts)
    arrows = [text for text in drawn.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == len(rule_graph.STAGES) - 1
    middles = [text.get_position()[1] for text in drawn.texts if text.get_bbox_patch()]
    assert middles == sorted(middles, reverse=True)
    low, high = drawn.get_ylim()
    assert all(low < text.get_position()[1] < high for text in drawn.texts)


def test_quality_before_and_after(ax):
    rows = [("a", mate, when, place, 30 - place) for mate in (1, 2) for when in ("before", "after") for place in (1, 2)]
    table = pd.DataFrame(rows, columns=["sample", "mate", "when", "position", "quality"])
    drawn = read_plots.quality_by_position(ax, table)
    assert [line.get_linestyle() for line in drawn.get_lines()[:4]] == ["-", "--", "-", "--"]
    assert "Phred" in drawn.get_ylabel()


def test_verdicts(ax):
    table = pd.DataFrame({"Basic": ["pass", "fail"], "GC": ["warn", "pass"]}, index=["a_1", "a_2"])
    assert [text.get_text() for text in read_plots.fastqc_verdicts(ax, table).texts] == ["✓", "!", "×", "✓"]


def test_shares_sum_to_the_whole_bar(ax):
    table = pd.DataFrame({"sample": ["a", "b"], "unique": [0.9, 0.5], "multiple": [0.1, 0.5]})
    drawn = read_plots.stacked_shares(ax, table, ["unique", "multiple"], xlabel="reads")
    ends = [patch.get_x() + patch.get_width() for patch in drawn.patches]
    assert ends == pytest.approx([0.9, 0.5, 1, 1])


def test_levels(ax):
    table = pd.DataFrame({"sample": ["a", "b"], "with adapter": [0.03, 0.02], "duplicates": [0.2, 0.4]})
    drawn = read_plots.separate_shares(ax, table, ["with adapter", "duplicates"])
    assert [line.get_label() for line in drawn.get_lines()] == ["with adapter", "duplicates"]
    assert drawn.get_xlim()[1] == pytest.approx(0.44)


def test_strands(ax):
    table = pd.DataFrame({"sample": ["a", "b"], "on the strand": [0.02, 0.97]})
    drawn = read_plots.strand_shares(ax, table)
    assert drawn.get_lines()[0].get_xdata().tolist() == [0.02, 0.97]
    assert [text.get_text() for text in drawn.texts] == ["reverse", "unstranded", "forward"]


def test_counts_beside_truth(ax):
    table = pd.DataFrame({"sample": ["a", "a"], "gene": ["x", "y"], "planted": [0, 100], "counted": [0, 90]})
    drawn = read_plots.counts_against_truth(ax, table)
    np.testing.assert_allclose(drawn.get_lines()[1].get_ydata(), [0.8, 90])
    assert drawn.get_xscale() == "log"


def test_seconds_and_the_whole(ax):
    table = pd.DataFrame({"step": ["fastp", "align"], "seconds": [10.0, 30.0], "share": [0.25, 0.75]})
    assert [text.get_text().strip() for text in read_plots.step_seconds(ax, table).texts] == ["25%", "75%"]
    ax.clear()
    drawn = read_plots.amdahl_curve(ax, table, step="align", claimed=18)
    assert drawn.texts[0].get_text() == f"18 times: {tool_reports.overall_speedup(table, step='align', speedup=18):.1f}"
