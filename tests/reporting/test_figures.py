import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lurm.reporting import figures
from lurm.reporting.figures import Panel, Series


def drawn(svg):
    return ElementTree.fromstring(str(svg))


def titles(svg):
    return [title.text for title in drawn(svg).iter("title")]


def test_bars_are_as_high_as_their_figures_and_say_them():
    svg = figures.bars(["a", "b"], [Series("rows", "ink", [100, 50])], ["a", "b"], label="rows")
    heights = [float(bar.get("height")) for bar in drawn(svg).iter("rect")]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert titles(svg) == ["a: 100 rows", "b: 50 rows"]


def test_layers_stand_on_each_other():
    layers = [Series("x", "own", [3]), Series("y", "shared", [1])]
    low, high = drawn(figures.bars(["a"], layers, [""], label="")).iter("rect")
    assert float(high.get("y")) + float(high.get("height")) == pytest.approx(float(low.get("y")))
    assert float(low.get("height")) == pytest.approx(3 * float(high.get("height")), abs=0.2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 7, 8], ["0", "1", "2 to 3", "4 to 7", "8 to 15"]),
        ([5], ["4 to 7"]),
        ([0, 0], ["0"]),
    ],
)
def test_doublings_count_every_value_once(values, expected):
    found = [
        re.fullmatch(r"(.*) items: (\d+) interests", t)
        for t in titles(figures.doublings(values, "items", ""))
    ]
    assert [match[1] for match in found] == expected
    assert sum(int(match[2]) for match in found) == len(values)


@given(st.lists(st.floats(-1, 1), max_size=50))
def test_hundredths_count_every_value_once(values):
    counts = [int(re.search(r": (\d+) ", t)[1]) for t in titles(figures.hundredths(values, ""))]
    assert sum(counts) == len(values)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_lie_within_evenly_and_are_few(low, span, at_most):
    found = figures.ticks(low, low + span, at_most)
    assert len(found) <= at_most + 1
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_a_panel_maps_its_corners_to_its_corners():
    panel = Panel((0, 10), (0, 1), width=100, height=50, left=10, right=10, top=5, bottom=5)
    assert panel.path([(0, 0), (10, 1)]) == "10,45 90,5"


def test_roc_runs_through_its_points_in_the_colour_of_its_class():
    curves = {"yes": [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]}
    svg = figures.roc(curves, {"yes": "#123456"}, "")
    curve = next(line for line in drawn(svg).iter("polyline") if line.get("class") == "curve")
    assert curve.get("points") == "30,170 112,6 194,6"
    assert curve.get("style") == "stroke:#123456"


def test_scores_lie_where_they_should_between_the_ends_of_the_axis():
    axis = figures.score_axis([0.61, 0.789])
    assert axis == (0.5, 0.8)
    (mean,) = (
        c
        for c in drawn(figures.score_dots(0.65, 0.01, [0.6], axis)).iter("circle")
        if c.get("class") == "mean"
    )
    assert float(mean.get("cx")) == pytest.approx(125)
    assert figures.score_axis([0.31])[0] == 0.3


@pytest.mark.parametrize("n", [1, 2, 3, 60, 100_000])
def test_a_loss_curve_of_any_length_is_small(n):
    svg = figures.loss_curve([6 - k / n for k in range(n)], "step", 6.2, "", smooth=max(n // 50, 1))
    assert len(svg) < 60_000
    assert drawn(svg).get("viewBox")


def test_every_class_has_its_own_colour():
    for n in (1, 2, 3, 4, 12):
        colours = figures.class_colours([str(k) for k in range(n)])
        assert len(set(colours.values())) == n
        assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours.values())


@pytest.mark.parametrize("n", [0, 1, 24, 25, 600])
def test_month_labels_name_each_year_once_and_stay_few(n):
    months = [f"{2000 + k // 12}-{k % 12 + 1:02d}" for k in range(n)]
    labels = figures.month_labels(months)
    years = [label.split("\n")[1] for label in labels if "\n" in label]
    assert len(labels) == n
    assert len(set(years)) == len(years) <= 9


def test_a_grid_has_a_square_for_every_figure_and_month_in_the_colour_of_its_level():
    cells = [[("calm", "0.1"), ("warn", "0.4")], [("", "nothing to compare"), ("note", "1")]]
    svg = figures.level_grid(["x", "y"], ["2017-01", "2017-02"], cells, ["J\n2017", "F"], label="")
    squares = list(drawn(svg).iter("rect"))
    looks = ["level calm", "level warn", "level ", "level note"]
    assert [square.get("class") for square in squares] == looks
    assert titles(svg)[1] == "2017-02: x: 0.4"
    places = [(float(square.get("x")), float(square.get("y"))) for square in squares]
    assert places[0][0] == places[2][0] < places[1][0]
    assert places[0][1] == places[1][1] < places[2][1]
