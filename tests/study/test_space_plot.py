import itertools
import re

import numpy as np
import pytest
from scipy.stats import spearmanr

from valueflow.errors import InvalidInput, UnknownName
from valueflow.study.space_plot import (
    CircularOrder,
    circular_order,
    draw_heat_map,
    draw_map,
    heat_map_figure,
    map_figure,
)
from valueflow.theories import get_theory, get_value, steered_values

CIRCLE = get_theory("svt").circle
IDS = [value.id for value in steered_values()]
OTHERS = [value for value in IDS if value not in CIRCLE]


def on_circle(values=CIRCLE, *, sign=1, start=0.0, step=1):
    angles = start + sign * step * 2 * np.pi * np.arange(len(values)) / len(values)
    return {v: np.array([np.cos(a), np.sin(a)]) for v, a in zip(values, angles, strict=True)}


def scattered(seed, values=IDS, width=8):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(values), width))
    return dict(zip(values, rows / np.linalg.norm(rows, axis=1, keepdims=True), strict=True))


def turned(vectors, seed=3, width=20):
    """The same vectors in a wider space, turned at random."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    return {value: turn[:, : len(row)] @ row for value, row in vectors.items()}


def slow_statistic(vectors):
    theory, pairs = get_theory("svt"), list(itertools.combinations(vectors, 2))
    steps = [theory.circle_distance(a, b) for a, b in pairs]
    angles = [np.arccos(np.clip(vectors[a] @ vectors[b], -1, 1)).round(9) for a, b in pairs]
    return spearmanr(steps, angles).statistic


def drawn(figure):
    """Points by value id, as the markers have them; theories stand in the order of the ids."""
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    return np.vstack([lines[f"_{theory}"] for theory in ("svt", "mft", "duty", "right")])


def boxes(texts):
    return np.array([text.get_window_extent().extents for text in texts])


def overlapping(texts):
    found = boxes(texts)
    return [
        (texts[i].get_text(), texts[j].get_text())
        for i, j in itertools.combinations(range(len(texts)), 2)
        if (found[i, :2] < found[j, 2:]).all() and (found[j, :2] < found[i, 2:]).all()
    ]


def cut(figure, texts):
    frame, found = figure.bbox.extents, boxes(texts)
    out = (found[:, :2] < frame[:2]).any(axis=1) | (found[:, 2:] > frame[2:]).any(axis=1)
    return [text.get_text() for text, is_out in zip(texts, out, strict=True) if is_out]


# The circular order


@pytest.mark.parametrize(("sign", "start"), [(1, 0.0), (-1, 1.3)])
def test_a_perfect_circle_is_found_either_way_round(sign, start):
    found = circular_order(on_circle(sign=sign, start=start), n_permutations=999, seed=0)
    assert found.statistic == pytest.approx(1, abs=1e-12)
    assert (found.p, found.n) == (pytest.approx(0.001), 12)


def test_another_circle_is_not_taken_for_this_one():
    found = circular_order(on_circle(step=5), n_permutations=499, seed=0)
    assert found.statistic < 0.35
    assert found.statistic == pytest.approx(slow_statistic(on_circle(step=5)))


def test_noise_lowers_the_statistic_step_by_step():
    rng = np.random.default_rng(0)
    noise = {value: rng.normal(size=2) for value in CIRCLE}
    found = [
        circular_order(
            {v: row + much * noise[v] for v, row in on_circle().items()},
            n_permutations=199,
            seed=0,
        )
        for much in (0.1, 0.5, 3.0)
    ]
    assert found[0].statistic > 0.95
    assert found[0].statistic > found[1].statistic + 0.1 > found[2].statistic + 0.2
    assert found[0].p < 0.01 < 0.1 < found[2].p


def test_chance_has_even_p_values():
    found = [
        circular_order(scattered(seed, CIRCLE), n_permutations=199, seed=seed) for seed in range(40)
    ]
    p = np.array([each.p for each in found])
    assert 0.35 < p.mean() < 0.65
    assert p.std() > 0.2
    assert abs(np.mean([each.statistic for each in found])) < 0.1


def test_statistic_and_p_are_those_of_a_full_enumeration():
    values = [CIRCLE[i] for i in (0, 1, 4, 6, 9)]
    vectors = scattered(1, values, width=3)
    every = [
        slow_statistic(dict(zip(values, rows, strict=True)))
        for rows in itertools.permutations(vectors.values())
    ]
    found = circular_order(vectors, n_permutations=20_000, seed=0)
    assert found.statistic == pytest.approx(every[0])
    exact = np.mean(np.array(every) >= every[0] - 1e-9)
    assert 0.1 < exact < 0.9
    assert found.p == pytest.approx(exact, abs=0.015)


def test_missing_values_leave_a_gap():
    kept = [value for i, value in enumerate(CIRCLE) if i not in (1, 2, 3)]
    vectors = {value: row for value, row in on_circle().items() if value in kept}
    found = circular_order(vectors, n_permutations=99, seed=0)
    assert (found.statistic, found.n) == (pytest.approx(1), 9)
    closed_up = circular_order(on_circle(kept), n_permutations=99, seed=0)
    assert closed_up.statistic < 0.97


def test_four_evenly_spaced_values_prove_nothing():
    found = circular_order(on_circle(CIRCLE[::3]), n_permutations=5000, seed=0)
    assert (found.statistic, found.n) == (pytest.approx(1), 4)
    assert found.p == pytest.approx(1 / 3, abs=0.03)


def test_other_theories_and_lengths_do_not_count():
    own = scattered(5)
    alone = {value: 7.0 * own[value] for value in reversed(CIRCLE)}
    args = {"n_permutations": 199, "seed": 2}
    assert circular_order(own, **args) == circular_order(alone, **args)


@pytest.mark.parametrize("vectors", [on_circle(), scattered(6, CIRCLE)], ids=["circle", "chance"])
def test_turning_the_space_changes_no_digit(vectors):
    found = circular_order(vectors, n_permutations=499, seed=1)
    again = circular_order(turned(vectors), n_permutations=499, seed=1)
    assert again.p == found.p
    assert again.statistic == pytest.approx(found.statistic, abs=1e-12)


def test_right_angles_throughout_have_no_order():
    vectors = turned(dict(zip(CIRCLE, np.eye(12), strict=True)))
    found = circular_order(vectors, n_permutations=99, seed=0)
    assert np.isnan(found.statistic)
    assert found.p == 1


# The map


def test_a_plane_is_drawn_as_it_is_and_stands_like_the_circle():
    vectors = turned(on_circle(sign=1, start=2.0))
    figure = map_figure(vectors, title="")
    angle = 2 * np.pi * np.arange(12) / 12
    np.testing.assert_allclose(
        drawn(figure), np.column_stack([np.sin(angle), np.cos(angle)]), atol=1e-9
    )
    assert "keeps 100% of those" in figure.texts[-1].get_text()
    line = figure.axes[0].get_lines()[0].get_xydata()
    np.testing.assert_allclose(line, drawn(figure)[[*range(12), 0]])


def test_the_caption_tells_what_is_kept():
    vectors = scattered(2)
    rows = np.stack(list(vectors.values())) + 0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = dict(zip(vectors, rows, strict=True))
    cosines = rows @ rows.T
    centring = np.eye(32) - 1 / 32
    spectrum = np.linalg.eigvalsh(centring @ cosines @ centring)[::-1]
    remains = (spectrum**2).sum() / (cosines**2).sum()
    kept = (spectrum[:2] ** 2).sum() / (spectrum**2).sum()
    order = CircularOrder(-0.25, 0.034, 12)
    figure = map_figure(vectors, title="", order=order)
    said = figure.texts[-1].get_text()
    assert [int(x) for x in re.findall(r"(\d+)%", said)] == [
        round(100 * remains),
        round(100 * kept),
    ]
    assert "−0.25" in said
    assert "p = 0.034" in said
    points = drawn(figure)
    np.testing.assert_allclose(
        np.sort(np.linalg.eigvalsh(points.T @ points)), spectrum[:2][::-1], rtol=1e-9
    )
    assert cut(figure, figure.texts) == []


def test_turning_the_space_leaves_the_map_as_it_is():
    vectors = scattered(7, width=4)
    shuffled = {v: turned(vectors)[v] for v in reversed(IDS)}
    first, second = map_figure(vectors, title=""), map_figure(shuffled, title="")
    np.testing.assert_allclose(drawn(first), drawn(second), atol=1e-9)
    without = [value for value in IDS if value not in CIRCLE[2:]]
    few = {v: vectors[v] for v in without}
    np.testing.assert_allclose(
        drawn(map_figure(few, title="")), drawn(map_figure(turned(few), title="")), atol=1e-9
    )


@pytest.mark.parametrize("spread", [1.0, 0.02], ids=["wide", "cluster"])
def test_names_of_the_map_keep_apart_and_whole(spread):
    rows = {value: spread * row for value, row in scattered(8, width=3).items()}
    # Far off, and alone: all others are crowded where it is not.
    vectors = {v: row + (1 - spread) * np.array([1.0, 0, 0]) for v, row in rows.items()}
    vectors["svt/power"] = np.array([-1.0, 0.2, 0])
    figure = map_figure(vectors, title="")
    names = list(figure.axes[0].texts)
    assert [t.get_text() for t in names] == [get_value(v).name.removesuffix(" rights") for v in IDS]
    assert overlapping(names) == []
    assert cut(figure, names) == []
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == [get_theory(t).name for t in ("svt", "mft", "duty", "right")]


# The heat map


def test_cells_are_cosines_in_the_order_of_the_theories():
    vectors = {value: 3.0 * row for value, row in reversed(scattered(9).items())}
    figure = heat_map_figure(vectors, title="")
    axes = figure.axes[0]
    image = axes.get_images()[0]
    rows = np.stack([vectors[value] / 3 for value in IDS])
    np.testing.assert_allclose(image.get_array(), rows @ rows.T, atol=1e-12)
    assert image.get_clim() == (-1, 1)
    middle, plus, minus = (np.array(image.cmap(x)[:3]) for x in (0.5, 0.95, 0.05))
    assert middle.min() > 0.95
    assert plus[2] > plus[0]
    assert minus[0] > minus[2]
    names = [get_value(v).name.removesuffix(" rights") for v in IDS]
    assert [t.get_text() for t in axes.get_xticklabels()] == names
    assert [t.get_text() for t in axes.get_yticklabels()] == names
    edges = {float(line.get_ydata()[0]) for line in axes.get_lines() if line.get_xdata()[0] == 0}
    assert edges == {11.5, 17.5, 24.5}


def test_names_of_the_heat_map_keep_apart_and_whole():
    figure = heat_map_figure(scattered(9), title="")
    axes, bar = figure.axes
    across, down = list(axes.get_xticklabels()), list(axes.get_yticklabels())
    figure.draw_without_rendering()
    assert overlapping(across) == []
    assert overlapping(down) == []
    assert cut(figure, [*across, *down, *bar.get_yticklabels(), bar.title]) == []


# Both


DRAW = [draw_map, draw_heat_map]


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    ("name", "starts"), [("a.png", b"\x89PNG"), ("new/b.SVG", b"<?xml")], ids=["png", "svg"]
)
def test_files_are_whole_alike_and_alone(tmp_path, draw, name, starts):
    vectors, path = scattered(0), tmp_path / name
    draw(vectors, path, title="a $ and a % of $x_1")
    first = path.read_bytes()
    assert first.startswith(starts)
    path.write_bytes(b"old")
    draw(vectors, str(path), title="a $ and a % of $x_1")
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("figure", [map_figure, heat_map_figure])
def test_a_long_title_is_cut_to_two_lines_above_the_legend(figure):
    made = figure(on_circle(), title="a title of many words " * 20)
    (title,) = [t for t in made.texts if "many words" in t.get_text()]
    assert title.get_text().count("\n") == 1
    assert title.get_text().endswith("…")
    assert cut(made, [title]) == []
    assert overlapping([title, *made.legends[0].get_texts()]) == []


def hostile():
    good = scattered(0)
    return [
        ({**good, "svt/power": np.full(8, np.nan)}, InvalidInput, "svt/power is zero or not"),
        ({**good, "svt/power": np.full(8, np.inf)}, InvalidInput, "svt/power is zero or not"),
        ({**good, "svt/power": np.zeros(8)}, InvalidInput, "svt/power is zero or not"),
        ({**good, "svt/power": np.ones(7)}, InvalidInput, r"one width.*\(7,\) of svt/power"),
        ({"svt/power": np.ones(8)}, InvalidInput, "got 1"),
        ({}, InvalidInput, "got 0"),
        ({**good, "svt/powr": np.ones(8)}, UnknownName, "svt/power"),
        ({**good, "power": np.ones(8)}, InvalidInput, "'power' .it is svt/power"),
        ({**good, "svt/growth": np.ones(8)}, InvalidInput, "steered values, got 'svt/growth'"),
    ]


@pytest.mark.parametrize(
    "case",
    range(len(hostile())),
    ids=["nan", "inf", "zero", "width", "one", "none", "unknown", "alias", "unsteered"],
)
def test_what_is_no_space_is_refused(tmp_path, case):
    vectors, error, says = hostile()[case]
    path = tmp_path / "kept.png"
    path.write_bytes(b"old")
    for draw in DRAW:
        with pytest.raises(error, match=says):
            draw(vectors, path, title="")
    with pytest.raises(error, match=says):
        circular_order(vectors, n_permutations=9, seed=0)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.png"]


@pytest.mark.parametrize("draw", DRAW)
def test_other_endings_are_refused(tmp_path, draw):
    with pytest.raises(InvalidInput, match=r"ends in \.png or \.svg"):
        draw(on_circle(), tmp_path / "a.jpg", title="")
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_all_are_one_have_no_map():
    with pytest.raises(InvalidInput, match="all point the same way"):
        map_figure({value: np.array([0.6, 0.8]) for value in IDS}, title="")


def test_too_few_on_the_circle_and_no_permutations_are_refused():
    few = {**on_circle(CIRCLE[:3]), OTHERS[0]: np.ones(2)}
    with pytest.raises(InvalidInput, match="got 3 and 9"):
        circular_order(few, n_permutations=9, seed=0)
    with pytest.raises(InvalidInput, match="got 12 and 0"):
        circular_order(on_circle(), n_permutations=0, seed=0)
