import numpy as np
import pytest

from valueflow.errors import ArtifactError, InvalidInput, UnknownName
from valueflow.evaluate import Panel, load_panel, panel_from_vidb, save_panel
from valueflow.typing import Item
from valueflow.vidb import load_starter

INTENSITIES = np.linspace(-9, 9, 19)
PANEL = Panel("svt/power", tuple(Item(f"anchor {x:g}") for x in INTENSITIES), INTENSITIES)


def draws(sampling, *, n=200, size=6, seed=0):
    return PANEL.draw(n, size, sampling=sampling, rng=np.random.default_rng(seed))


def test_bucket_windows_hold_one_anchor_of_each_sixth_of_the_scale():
    for anchors in draws("bucket"):
        buckets = np.minimum((INTENSITIES[anchors] + 9) // 3, 5)
        assert sorted(buckets) == [0, 1, 2, 3, 4, 5]


def test_random_windows_hold_any_distinct_anchors_all_alike_often():
    windows = draws("random", n=2000)
    assert all(len(set(anchors)) == 6 for anchors in windows)
    counts = np.bincount(np.concatenate(windows), minlength=19)
    assert counts / 2000 == pytest.approx(np.full(19, 6 / 19), abs=0.05)


@pytest.mark.parametrize("sampling", ["bucket", "random"])
def test_same_generator_same_windows(sampling):
    first, again, other = (draws(sampling, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("sampling", ["bucket", "random"])
def test_a_panel_smaller_than_a_window_is_refused(sampling):
    with pytest.raises(InvalidInput, match="need 20 anchors, panel has 19"):
        draws(sampling, size=20)


def test_the_fingerprint_is_of_the_content_not_the_order():
    backwards = Panel(PANEL.value, PANEL.items[::-1], INTENSITIES[::-1])
    assert backwards.fingerprint() == PANEL.fingerprint()
    nudged = INTENSITIES.copy()
    nudged[3] += 0.01
    changed = [
        Panel("svt/hedonism", PANEL.items, INTENSITIES),
        Panel(PANEL.value, PANEL.items, nudged),
        Panel(PANEL.value, PANEL.items, INTENSITIES[::-1]),
        Panel(PANEL.value, (Item("other"), *PANEL.items[1:]), INTENSITIES),
        Panel(PANEL.value, (Item("anchor -9", "asked"), *PANEL.items[1:]), INTENSITIES),
        Panel(PANEL.value, PANEL.items[1:], INTENSITIES[1:]),
    ]
    assert len({panel.fingerprint() for panel in [PANEL, *changed]}) == 7


def test_one_text_may_be_there_with_and_without_a_context():
    items = (Item("same", None), Item("same", "asked"))
    prints = {
        Panel("svt/power", i, np.array(x)).fingerprint()
        for i, x in ((items, [1.0, 2.0]), (items[::-1], [2.0, 1.0]), (items, [2.0, 1.0]))
    }
    assert len(prints) == 2


def test_a_panel_of_the_database_holds_its_texts_with_contexts_and_intensities():
    vidb = load_starter()
    panel = panel_from_vidb(vidb, "Power", "test")
    assert panel.value == "svt/power" and len(panel) == len(vidb.of("power", "test"))
    rows = vidb.frame.set_index("text")
    for item, intensity in zip(panel.items, panel.intensities, strict=True):
        row = rows.loc[item.text]
        assert (row["value"], row["split"]) == ("svt/power", "test")
        assert row["context"] == item.context and row["intensity"] == intensity


def test_splits_of_the_database_share_no_text_and_add_up():
    vidb = load_starter()
    validation, test = (panel_from_vidb(vidb, "power", s) for s in ("validation", "test"))
    assert not {i.text for i in validation.items} & {i.text for i in test.items}
    both = panel_from_vidb(vidb, "power", "validation", "test")
    assert set(both.items) == {*validation.items, *test.items}


def test_what_the_database_does_not_have_is_refused():
    with pytest.raises(UnknownName):
        panel_from_vidb(load_starter(), "powr", "test")
    with pytest.raises(UnknownName, match="split"):
        panel_from_vidb(load_starter(), "power", "tset")
    vidb = load_starter().of("power", "test")
    with pytest.raises(InvalidInput, match="no texts of power in splits"):
        panel_from_vidb(vidb, "power", "validation")


def test_fixed_windows_hold_the_same_anchors_evenly_spaced_whatever_the_seed():
    (first, *others) = draws("fixed", n=5) + draws("fixed", n=5, seed=9)
    assert all(np.array_equal(first, window) for window in others)
    assert np.allclose(np.abs(INTENSITIES[first] - np.arange(-7.5, 9, 3)), 0.5)
    crowded = Panel("svt/power", PANEL.items[:7], np.array([-9, 8.1, 8.2, 8.3, 8.4, 8.5, 9.0]))
    (anchors,) = crowded.draw(1, 6, sampling="fixed", rng=np.random.default_rng(0))
    assert len(set(anchors.tolist())) == 6 and 0 in anchors


def test_coverage_counts_each_fifth_and_a_hole_is_named():
    assert PANEL.coverage() == (3, 4, 4, 4, 4)
    PANEL.check_coverage(at_least=3)
    with pytest.raises(InvalidInput, match=r"3 anchors between -10 and -6, need 4 or more"):
        PANEL.check_coverage(at_least=4)
    upper = Panel("svt/power", PANEL.items[10:], INTENSITIES[10:])
    with pytest.raises(InvalidInput, match=r"svt/power: 0 anchors between -10 and -6"):
        upper.check_coverage()


def test_the_shipped_panels_cover_the_scale():
    vidb = load_starter()
    for value in vidb.values:
        panel_from_vidb(vidb, value, "test", registers=("answer", "brief")).check_coverage(
            at_least=2
        )


def test_a_frozen_panel_comes_back_and_a_changed_one_is_refused(tmp_path):
    items = (Item("Obey.", "What now?"), Item("Ünïcode “quotes”\u2028."), Item("No."))
    panel = Panel("svt/power", items, np.array([7.25, 0.1 + 0.2, -8.0]))
    path = tmp_path / "panel.json"
    save_panel(panel, path)
    back = load_panel(path)
    assert back.fingerprint() == panel.fingerprint()
    assert back.items == panel.items and np.array_equal(back.intensities, panel.intensities)
    assert [p.name for p in tmp_path.iterdir()] == ["panel.json"]
    path.write_text(path.read_text().replace("7.25", "7.35"))
    with pytest.raises(ArtifactError, match="changed since it was frozen"):
        load_panel(path)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="no frozen panel"):
        load_panel(path)
    with pytest.raises(ArtifactError, match="no frozen panel"):
        load_panel(tmp_path / "none.json")
