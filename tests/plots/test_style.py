import matplotlib.pyplot as plt

from epigen_utils.plots import style


def test_groups_differ_by_colour_and_marker():
    levels = [f"g{i}" for i in range(8)]
    assert len(set(style.colours(levels).values())) == 8
    assert len(set(style.markers(levels).values())) == 8


def test_the_ninth_group_repeats_the_first():
    levels = list(range(9))
    assert style.colours(levels)[8] == style.colours(levels)[0] == style.PALETTE[0]
    assert style.markers(levels)[8] == style.MARKERS[0]


def test_the_house_style_is_set():
    with plt.rc_context():
        plt.rcdefaults()
        style.set_house_style()
        assert not plt.rcParams["axes.spines.top"]


def test_series_take_the_palette_in_order():
    series = list(style.series({"a": 1, "b": 2}.items()))
    assert series == [("a", 1, style.PALETTE[1], "o"), ("b", 2, style.PALETTE[2], "s")]
