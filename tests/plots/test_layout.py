from epigen_utils.plots import layout


def test_panels():
    _, axes = layout.panels(3, columns=2, width=2, height=1)
    assert len(axes) == 3
