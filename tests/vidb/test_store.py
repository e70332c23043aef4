import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_vidb import CARE, POWER, ladders_of, planted, read, write_folder

from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import steered_values
from valueflow.vidb.planning import connected_windows
from valueflow.vidb.schema import SPLITS, read_rankings, split_of
from valueflow.vidb.store import (
    STARTER,
    Vidb,
    build_folder,
    load_starter,
    load_vidb,
    read_folder,
    save,
)

FOLDER = Path(str(STARTER))
STARTER_VALUES = tuple(sorted(value.id for value in steered_values()))
MORE_LADDERS = {
    "svt/benevolence": 120,
    "svt/power": 120,
    "svt/hedonism": 80,
    "svt/security": 80,
    "svt/tradition": 80,
    "svt/universalism": 80,
}


@pytest.fixture(scope="module")
def starter():
    return load_starter()


def by_rung(frame):
    """Intensities, shape (ladders, 5), in the order the rungs were written."""
    return frame.pivot(index="ladder", columns="rung", values="intensity").to_numpy()


def test_starter_is_every_steered_value_in_whole_ladders(starter):
    assert starter.values == STARTER_VALUES and len(STARTER_VALUES) == 32
    for value in STARTER_VALUES:
        frame = starter.of(value).frame
        assert frame["ladder"].nunique() == MORE_LADDERS.get(value, 40)
        rungs = frame.groupby("ladder")["rung"].agg(list).map(sorted)
        assert all(own == [1, 2, 3, 4, 5] for own in rungs)
        answers = frame["register"].eq("answer").mean()
        assert answers >= (1 / 6 if value in MORE_LADDERS else 1 / 3)
    assert starter.frame["id"].is_unique and starter.frame["text"].is_unique


def test_every_starter_text_is_in_five_cross_windows_and_met_fifteen_others(starter):
    _, records = read_folder()
    met = {text_id: set() for text_id in starter.frame["id"]}
    for record in records:
        for text_id in record.shown:
            ladder = text_id.rpartition("/")[0]
            others = [i for i in record.shown if i.rpartition("/")[0] != ladder]
            met[text_id].update(others)
    assert min(map(len, met.values())) >= 15
    in_cross = Counter(i for r in records if r.kind == "cross" for i in r.shown)
    assert min(in_cross[i] for i in met) >= 5


def test_starter_is_what_its_ladders_and_rankings_give(starter):
    rebuilt = build_folder(FOLDER)
    exact = starter.frame.drop(columns=["intensity", "stderr"])
    pd.testing.assert_frame_equal(rebuilt.frame[exact.columns], exact)
    assert rebuilt.frame["intensity"].to_numpy() == pytest.approx(
        starter.frame["intensity"].to_numpy(), abs=1e-6
    )
    assert rebuilt.frame["stderr"].to_numpy() == pytest.approx(
        starter.frame["stderr"].to_numpy(), rel=1e-6
    )
    assert rebuilt.fingerprint() == starter.fingerprint()


@pytest.mark.parametrize("value", STARTER_VALUES)
def test_starter_intensities_follow_the_rungs_and_fill_the_scale(starter, value):
    frame = starter.of(value).frame
    rungs = by_rung(frame)
    lower, higher = np.triu_indices(5, k=1)
    assert (rungs[:, lower] < rungs[:, higher]).mean() >= 0.95
    fifths = np.histogram(frame["intensity"], bins=np.linspace(-10, 10, 6))[0] / len(frame)
    assert fifths.sum() == pytest.approx(1.0) and fifths.min() >= 0.12
    assert np.isfinite(frame["stderr"]).all() and (frame["stderr"] > 0).all()


@pytest.mark.parametrize("value", STARTER_VALUES)
def test_starter_middle_rungs_are_neutral_within_their_errors(starter, value):
    middle = starter.of(value).frame.query("rung == 3")
    assert abs(middle["intensity"].median()) <= 0.5
    assert middle["intensity"].abs().median() <= 1.5
    # Half of all normal errors are below 0.674 standard errors; their median over n texts has a
    # standard error of 0.786 / sqrt(n).
    limit = 0.674 + 2 * 0.786 / math.sqrt(len(middle))
    assert (middle["intensity"] / middle["stderr"]).abs().median() <= limit
    # A middle rung is rarely as far out as a mild one.
    assert (middle["intensity"].abs() < 4.4).mean() >= 0.95


def test_starter_splits_share_no_ladder_and_are_those_of_the_ids(starter):
    frame = starter.frame
    assert (frame.groupby("ladder")["split"].nunique() == 1).all()
    assert frame["split"].tolist() == [split_of(ladder) for ladder in frame["ladder"]]
    counts = frame.groupby("value")["split"].value_counts().unstack()
    # Two hands of five ladders hold 3 steer, 3 judge, 2 validation and 2 test.
    shares = counts.div(counts.sum(axis=1), axis=0)
    whole = shares.loc[list(MORE_LADDERS)]  # whole hands in every register
    assert np.allclose(whole[["validation", "test"]].sum(axis=1), 0.4)
    assert (counts.loc[list(MORE_LADDERS), ["steer", "judge"]] >= 55).all(axis=None)
    assert shares[["validation", "test"]].sum(axis=1).between(0.35, 0.45).all()
    assert (shares[["steer", "judge"]] >= 0.2).all(axis=None)


def test_place_in_the_starters_windows_told_its_readers_nothing():
    paths = sorted((FOLDER / "rankings").glob("*.jsonl"))
    assert len(paths) == 32
    records = [r for path in paths for r in read_rankings(path) if r.kind == "cross"]
    n = len(records)
    assert n > 700
    for place in (0, 4):
        first = sum(record.order[0] == record.shown[place] for record in records)
        assert abs(first - n / 5) < 3 * math.sqrt(n * 0.2 * 0.8)
    # Rank by place over all five: mean 2 each, variance 2 of a uniform rank.
    ranks = np.array([[r.order.index(i) for i in r.shown] for r in records])
    assert np.abs(ranks.mean(axis=0) - 2).max() < 3.5 * math.sqrt(2 / n)


def test_contexts_are_texts_or_none(starter):
    frame = starter.frame
    answers = frame["register"].isin(["answer", "brief"])
    assert all(isinstance(c, str) and c for c in frame.loc[answers, "context"])
    assert all(c is None for c in frame.loc[~answers, "context"])


def test_round_trip_through_parquet(starter, tmp_path):
    part = starter.of("power", "test")
    save(part, tmp_path / "part.parquet")
    again = load_vidb(tmp_path / "part.parquet")
    pd.testing.assert_frame_equal(again.frame, part.frame)
    assert again.fingerprint() == part.fingerprint()
    assert all(c is None or isinstance(c, str) for c in again.frame["context"])
    assert [p.name for p in tmp_path.iterdir()] == ["part.parquet"]


def test_a_crash_while_saving_keeps_what_was_there(starter, tmp_path, monkeypatch):
    path = tmp_path / "vidb.parquet"
    save(starter.of("power"), path)

    whole = Path.write_bytes

    def crash(self, content):
        whole(self, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", crash)
        with pytest.raises(KeyboardInterrupt):
            save(starter, path)
    assert len(load_vidb(path)) == len(starter.of("power"))
    assert [file.name for file in tmp_path.iterdir()] == ["vidb.parquet"]


def test_fingerprint_sees_content_and_nothing_else(starter):
    frame = starter.of("hedonism").frame
    before = Vidb(frame).fingerprint()
    assert Vidb(frame.sample(frac=1, random_state=1)).fingerprint() == before
    seen = {before}
    for column in ("id", "text", "context"):
        changed = frame.copy()
        row = changed["context"].first_valid_index()
        changed.loc[row, column] = changed.loc[row, column][:-1] + "#"
        seen.add(Vidb(changed).fingerprint())
    changed = frame.copy()
    changed.loc[0, "intensity"] += 0.001
    seen.add(Vidb(changed).fingerprint())
    seen.add(Vidb(frame.iloc[1:]).fingerprint())
    assert len(seen) == 6


def test_fingerprint_takes_a_missing_context_for_an_empty_one(starter):
    frame = starter.of("hedonism").frame
    blank = frame.assign(context=[context or "" for context in frame["context"]])
    assert Vidb(blank).fingerprint() == Vidb(frame).fingerprint()


def test_of_selects_values_by_any_name_and_splits(starter):
    whole = starter.of("pvq/power")
    assert whole.values == ("svt/power",)
    parts = [starter.of("power", split) for split in SPLITS]
    assert sum(map(len, parts)) == len(whole) == 5 * MORE_LADDERS["svt/power"]
    assert all(set(p.frame["split"]) == {s} for p, s in zip(parts, SPLITS, strict=True))
    both = starter.of("svt/power", "steer", "test")
    assert set(both.frame["split"]) == {"steer", "test"}
    assert both.frame.index.tolist() == list(range(len(both)))


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (("powr",), "did you mean svt/power"),
        (("openness-to-change",), "unknown value of the database 'svt/openness-to-change'"),
        (("power", "tset"), "unknown split 'tset': did you mean test"),
        (("power", "steer", "train"), "unknown split 'train'"),
    ],
)
def test_unknown_values_and_splits_get_near_misses(starter, asked, hint):
    with pytest.raises(UnknownName) as caught:
        starter.of(*asked)
    assert hint in str(caught.value)


def test_files_that_are_no_database_are_refused(tmp_path):
    whole = (FOLDER / "vidb.parquet").read_bytes()
    contents = {
        "text": b"id,text\n1,a\n",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "tail": whole[len(whole) // 2 :],
        "noise": b"PAR1" + bytes(200) + b"PAR1",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="cannot be read as parquet") as caught:
            load_vidb(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InvalidInput, match="cannot be read as parquet"):
        load_vidb(tmp_path / "none.parquet")


def test_missing_columns_are_named(starter, tmp_path):
    path = tmp_path / "short.parquet"
    starter.frame.drop(columns=["stderr", "split"]).to_parquet(path)
    with pytest.raises(InvalidInput, match="columns missing: stderr, split"):
        load_vidb(path)


def test_a_folder_without_ladders_or_rankings_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no ladders"):
        build_folder(tmp_path)
    (tmp_path / "ladders").mkdir()
    ladder = json.loads((FOLDER / "ladders" / "svt-power.jsonl").open().readline())
    (tmp_path / "ladders" / "a.jsonl").write_text(json.dumps(ladder))
    with pytest.raises(InvalidInput, match="svt/power: no rankings"):
        build_folder(tmp_path)
    (tmp_path / "ladders" / "b.jsonl").write_text(json.dumps(ladder))
    with pytest.raises(InvalidInput, match="there twice"):
        build_folder(tmp_path)


def test_starter_is_loaded_once():
    assert load_starter() is load_starter()


@pytest.fixture(scope="module")
def two_values(tmp_path_factory):
    ladders = [*ladders_of(CARE, 5), *ladders_of(POWER, 6)]
    planned = connected_windows(ladders, per_text=1, rng=np.random.default_rng(0))
    records = read(planned, planted(ladders, seed=0), seed=0)
    folder = write_folder(tmp_path_factory.mktemp("two") / "vidb", ladders, records)
    return folder, ladders, records


def test_a_folder_is_read_as_written(two_values):
    folder, ladders, records = two_values
    assert read_folder(folder) == (ladders, records)
    assert read_folder(str(folder), rankings=False) == (ladders, [])


@pytest.mark.parametrize(("name", "value"), [("power", POWER), ("Care/Harm", CARE)])
def test_a_value_of_a_folder_is_read_by_any_name(two_values, name, value):
    folder, ladders, records = two_values
    assert read_folder(folder, name) == (
        [ladder for ladder in ladders if ladder.value == value],
        [record for record in records if record.window.startswith(value)],
    )


def test_what_a_folder_lacks_is_named(two_values, tmp_path):
    folder, _, _ = two_values
    with pytest.raises(InvalidInput, match="no ladders of svt/hedonism in ladders") as caught:
        read_folder(folder, "hedonism")
    assert str(folder) in str(caught.value)
    with pytest.raises(UnknownName, match="svt/power"):
        read_folder(folder, "powr")
    with pytest.raises(InvalidInput, match="no ladders in ladders"):
        read_folder(tmp_path / "none")


def test_rankings_that_are_not_asked_for_are_not_read(two_values, tmp_path):
    _, ladders, records = two_values
    folder = write_folder(tmp_path / "vidb", ladders, records)
    (folder / "rankings" / "b.jsonl").write_text("half a li")
    assert read_folder(folder, rankings=False)[0] == ladders
    with pytest.raises(InvalidInput, match="b.jsonl:1: not JSON"):
        read_folder(folder)


@pytest.mark.slow
def test_the_starters_folder_is_the_default():
    ladders, records = read_folder(value="power")
    assert {ladder.value for ladder in ladders} == {POWER}
    assert (ladders, records) == read_folder(FOLDER, POWER)
    assert len(ladders) > 10 and {r.kind for r in records} >= {"ladder", "cross"}
