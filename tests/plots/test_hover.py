import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from epigen_utils.plots import hover


def drawn(table, **more):
    return ElementTree.fromstring(hover.scatter_svg(table, x="attention", y="occlusion", name="gene", **more))


def test_every_point_says_its_name_and_values():
    table = pd.DataFrame({"attention": [1.0, 2.5], "occlusion": [0.1, 0.3], "gene": ["A<1>", "B"]})
    points = drawn(table).findall("g[@class='point']")
    assert [point.find("text").text for point in points] == ["A<1>: 1, 0.1", "B: 2.5, 0.3"]
    left, right = (float(point.find("circle").get("cx")) for point in points)
    low, high = (float(point.find("circle").get("cy")) for point in points)
    assert left < right
    assert low > high


def test_groups_have_a_colour_each_and_stand_in_the_legend():
    table = pd.DataFrame({"attention": [1.0, 2.0], "occlusion": [1.0, 1.0], "gene": ["A", "B"], "kind": ["x", "y"]})
    found = drawn(table, group="kind")
    assert len({point.find("circle").get("fill") for point in found.findall("g")}) == 2
    assert [text.text for text in found.findall("text[@class='legend']")] == ["x", "y"]


def test_a_missing_coordinate_is_refused():
    with pytest.raises(ValueError, match="points without attention or occlusion"):
        drawn(pd.DataFrame({"attention": [None], "occlusion": [1.0], "gene": ["A"]}, dtype=object))
