import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives.encoder import ValueEncoder
from valueflow.hives.profile import ValueProfile, _trained, compare
from valueflow.hives.similarity import unrelated_cosine
from valueflow.vidb import Vidb

VALUES = ("mft/care-harm", "svt/face", "svt/power", "svt/security")
GRADES = np.linspace(-9.0, 9.0, 19)


def embed(texts):
    """`value grade ...` at the value's own axis, tilted by the grade along another; else off all.

    Words after the grade add a little noise, so that no two texts are quite the same.
    """
    rows = np.zeros((len(texts), 2 * len(VALUES) + 6))
    for row, text in zip(rows, texts, strict=True):
        value, _, rest = text.partition(" ")
        row[-5:] = 0.02 * np.random.default_rng(sum(text.encode())).normal(size=5)
        if value not in VALUES:
            row[2 * len(VALUES)] = 1
            continue
        place = 2 * VALUES.index(value)
        row[place : place + 2] = 1, float(rest.split()[0]) / 5
    return rows


def database(values=VALUES, copies=2):
    rows = [
        (f"{v}/post-{i + 1:02}/{c}", v, f"{v} {grade} vidb {c}", None, float(grade))
        for v in values
        for c in range(copies)
        for i, grade in enumerate(GRADES)
    ]
    return Vidb(pd.DataFrame(rows, columns=["id", "value", "text", "context", "intensity"]))


VIDB = database()
MIXED = ["svt/power 6 a", "svt/power 8 b", "svt/security -5 c", "svt/security -7 d", "weather"]


def profile(texts, **changed):
    return ValueProfile.from_texts(
        texts, **{"embed": embed, "vidb": VIDB, "k": 4, "min_similarity": 0.2, "seed": 0, **changed}
    )


def test_the_planted_profile_is_recovered():
    found = profile(MIXED)
    assert found["power"].intensity == pytest.approx(7, abs=0.7)
    assert found["security"].intensity == pytest.approx(-6, abs=0.7)
    assert [s.value for s in found.top(5)] == ["svt/power", "svt/security"]
    assert found.silent == ("mft/care-harm", "svt/face")
    for value in found.silent:
        assert found[value].status == "silent"
        assert math.isnan(found[value].intensity)
        assert math.isnan(found[value].stderr)
        assert (found[value].n_texts, found[value].share, found[value].evidence) == (0, 0.0, ())
    assert (found["power"].status, found["power"].n_texts, found.n_texts) == ("ok", 2, 5)
    assert sum(s.share for s in found.scores.values()) == pytest.approx(1)


def test_intensities_are_the_weighted_means_of_a_slow_loop():
    texts = ["svt/power 3 x", "svt/power -2 y", "svt/face 1 z", "svt/face 9 w", "svt/power 0 v"]
    blend = embed(texts) + 0.6 * embed(["svt/security 4 q"])
    known = embed(VIDB.frame["text"].tolist())
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit(blend) @ unit(known).T
    k = 30
    sums = {v: [0.0, 0.0, {}] for v in VALUES}
    for t, row in enumerate(cosine):
        for j in sorted(range(len(row)), key=lambda j: -row[j])[:k]:
            value, intensity = VIDB.frame.loc[j, ["value", "intensity"]]
            if row[j] > 0.5:
                sums[value][0] += row[j] * intensity
                sums[value][1] += row[j]
                sums[value][2][t] = sums[value][2].get(t, 0) + row[j]
    tables = {tuple(texts): blend, tuple(VIDB.frame["text"]): known}
    found = profile(texts, embed=lambda given: tables[tuple(given)], k=k, min_similarity=0.5)
    everything = sum(mass for _, mass, _ in sums.values())
    assert {v for v, (_, mass, _) in sums.items() if mass == 0} == set(found.silent)
    for value, (total, mass, by_text) in sums.items():
        if mass:
            score = found[value]
            assert score.intensity == pytest.approx(total / mass)
            assert score.share == pytest.approx(mass / everything)
            assert score.n_texts == len(by_text)
            heaviest = max(by_text, key=by_text.get)
            assert score.evidence[0].text == texts[heaviest]
            assert score.evidence[0].weight == pytest.approx(by_text[heaviest] / mass)


def test_evidence_is_the_texts_that_weigh_most():
    texts = [f"svt/power {g} t{g}" for g in (-4, 5, 6, 7, 8)]
    score = profile(texts)["power"]
    weights = [e.weight for e in score.evidence]
    assert len(weights) == 3
    assert weights == sorted(weights, reverse=True)
    said = {e.text: e.intensity for e in profile(texts[:2])["power"].evidence}
    assert said == pytest.approx({texts[0]: -4, texts[1]: 5}, abs=1)


def test_the_middle_of_the_scale_is_not_silence():
    score = profile(["svt/face 0 a", "svt/face 0 b"])["face"]
    assert score.status == "ok"
    assert score.intensity == pytest.approx(0, abs=0.5)


def test_one_text_has_no_standard_error():
    score = profile(["svt/face 5 a", "svt/power 3 a", "svt/power 4 b"])["face"]
    assert (score.status, score.n_texts) == ("single", 1)
    assert score.intensity == pytest.approx(5, abs=0.7)
    assert math.isnan(score.stderr)


def test_what_somebody_dwells_on_comes_before_a_stronger_passing_remark():
    dwelt = [f"svt/power 5 p{i}" for i in range(8)]
    found = profile([*dwelt, "svt/security 9 a", "svt/security 9 b"])
    power, security = found["power"], found["security"]
    assert security.intensity > power.intensity + 2
    assert [s.value for s in found.top(2)] == ["svt/power", "svt/security"]
    assert power.emphasis == pytest.approx(5 * 0.8, abs=0.4)
    assert security.emphasis == pytest.approx(9 * 0.2, abs=0.4)
    assert math.isnan(found["face"].emphasis)


def test_values_of_several_texts_come_before_those_of_one():
    found = profile(["svt/face 9 a", "svt/power 3 a", "svt/power 4 b", "svt/security 8 c"])
    assert [s.value for s in found.top(9)] == ["svt/power", "svt/face", "svt/security"]
    assert [s.value for s in found.top(1)] == ["svt/power"]
    assert found.top(0) == []
    with pytest.raises(InvalidInput, match="0 or more, got -1"):
        found.top(-1)


def test_a_threshold_silences_what_is_only_a_little_alike():
    blend = embed(["svt/power 5 a", "svt/power 6 b"]) + 0.4 * embed(["svt/face 5 q"])

    def blended(texts):
        return blend if len(texts) == 2 else embed(texts)

    k = len(VIDB)
    loose = profile(["a", "b"], embed=blended, k=k, min_similarity=0.0)
    strict = profile(["a", "b"], embed=blended, k=k, min_similarity=0.6)
    assert "svt/face" not in loose.silent
    assert set(strict.silent) == set(VALUES) - {"svt/power"}


@pytest.mark.parametrize("sign", [-1, 0], ids=["opposite", "orthogonal"])
def test_texts_that_are_like_nothing_leave_all_silent(sign):
    apart = np.eye(14)[[2 * len(VALUES)]]

    def away(texts):
        if len(texts) > 1:
            return embed(texts)
        return -sum(embed([f"{value} 0"]) for value in VALUES) if sign else apart

    found = profile(["anything"], embed=away, min_similarity=0.0)
    assert found.silent == VALUES
    assert found.top(3) == []


def test_rotations_and_the_order_of_rows_and_texts_do_not_matter():
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(14, 14)))[0]
    shuffled = Vidb(VIDB.frame.sample(frac=1, random_state=np.random.default_rng(1)))
    base = profile(MIXED)
    for other in (
        profile(MIXED, embed=lambda texts: 3.0 * embed(texts) @ rotation),
        profile(MIXED, vidb=Vidb(shuffled.frame.reset_index(drop=True))),
        profile(MIXED[::-1]),
    ):
        assert other.vidb == base.vidb
        for value in VALUES:
            for name in ("intensity", "share", "n_texts"):
                expected = getattr(base[value], name)
                assert getattr(other[value], name) == pytest.approx(expected, nan_ok=True)


def person(rng, n, mean=2.0):
    grades = np.clip(rng.normal(mean, 3, size=n), -9, 9)
    return [f"svt/power {grade:.3f} {i}" for i, grade in enumerate(grades)]


def test_intervals_cover_the_profile_of_very_many_texts():
    rng = np.random.default_rng(5)
    truth = profile(person(rng, 4000))["power"].intensity
    scores = [profile(person(rng, 12), seed=s)["power"] for s in range(200)]
    z = np.array([(s.intensity - truth) / s.stderr for s in scores])
    assert 0.87 <= (np.abs(z) < 1.96).mean() <= 0.98
    spread = np.std([s.intensity for s in scores])
    assert np.mean([s.stderr for s in scores]) == pytest.approx(spread, rel=0.15)


def test_differences_of_profiles_and_their_errors():
    rng = np.random.default_rng(6)
    a, b = profile(person(rng, 20, 4.0)), profile([*person(rng, 20, -1.0), "svt/face 3 x"])
    found = compare(a, b)
    assert list(found) == list(a.scores)
    assert found["svt/power"].difference == pytest.approx(5, abs=2.5)
    both = math.hypot(a["power"].stderr, b["power"].stderr)
    assert found["svt/power"].stderr == pytest.approx(both)
    assert compare(b, a)["svt/power"].difference == -found["svt/power"].difference
    for silent in ("svt/face", "svt/security"):
        assert math.isnan(found[silent].difference)
        assert math.isnan(found[silent].stderr)


def test_two_samples_of_one_person_differ_as_often_as_chance_allows():
    rng = np.random.default_rng(8)
    made = [profile(person(rng, 12), seed=s) for s in range(160)]
    pairs = [compare(a, b)["svt/power"] for a, b in zip(made[::2], made[1::2], strict=True)]
    far = np.mean([abs(d.difference) > 1.96 * d.stderr for d in pairs])
    assert 0.0 < far < 0.16


@pytest.mark.parametrize(
    "changed", [{"k": 5}, {"min_similarity": 0.1}, {"encoder": "x"}, {"vidb": database(copies=3)}]
)
def test_profiles_made_otherwise_do_not_compare(changed):
    (name,) = changed
    with pytest.raises(InvalidInput, match=f"only if made alike: {name} is"):
        compare(profile(MIXED), profile(MIXED, **changed))


def test_a_profile_comes_back_from_json():
    found = profile([*MIXED, "svt/face 5 ä"], encoder="planted")
    back = ValueProfile.from_json(found.to_json())
    assert back.to_json() == found.to_json()
    assert repr(back) == repr(found)
    assert "NaN" not in found.to_json()
    assert "ä" in found.to_json()


def changed_json(path, new):
    document = json.loads(profile([*MIXED, "svt/face 5 x"]).to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return json.dumps(document)


SILENT, FACE, POWER = range(3)


@pytest.mark.parametrize(
    ("path", "new", "says"),
    [
        (("kind",), "profile", "kind 'value-profile'"),
        (("schema_version",), 2, "schema 2, expected 1"),
        (("k",), 0, "'k' must be a whole number >= 1, got 0"),
        (("k",), True, "'k' must be a whole number"),
        (("n_texts",), 1, "2 texts of a profile made from 1"),
        (("min_similarity",), None, "'min_similarity' must be in"),
        (("vidb",), "", "'vidb' must be text"),
        (("scores",), [], "each value once, and one or more"),
        (("scores",), {}, "'scores' must be a list of objects"),
        (("scores", POWER, "intensity"), 11, r"svt/power: 'intensity' must be in \[-10, 10\]"),
        (("scores", POWER, "intensity"), None, "got None"),
        (("scores", POWER, "stderr"), -1, "svt/power: 'stderr' must be in"),
        (("scores", POWER, "status"), "silent", "with 2 texts it is ok"),
        (("scores", POWER, "value"), "svt/face", "each value once"),
        (("scores", POWER, "value"), "pvq/power", "write 'svt/power'"),
        (("scores", POWER, "evidence"), [1], "'evidence' must be a list of objects"),
        (("scores", POWER, "evidence", 0, "weight"), 1.5, "'weight' must be in"),
        (("scores", SILENT, "intensity"), 0, "mft/care-harm: 'intensity' must be null, got 0"),
        (("scores", FACE, "stderr"), 0.5, "svt/face: 'stderr' must be null"),
    ],
)
def test_a_damaged_profile_is_refused(path, new, says):
    with pytest.raises(InvalidInput, match=says):
        ValueProfile.from_json(changed_json(path, new))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kind": NaN}', "[" * 100_000])
def test_what_is_no_profile_at_all_is_refused(text):
    with pytest.raises(InvalidInput):
        ValueProfile.from_json(text)


def test_a_value_that_no_theory_has_is_refused():
    with pytest.raises(UnknownName):
        ValueProfile.from_json(changed_json(("scores", POWER, "value"), "svt/greed"))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"texts": []}, "one or more texts"),
        ({"texts": "one text"}, "one or more texts"),
        ({"texts": ["svt/power 1", "  "]}, "text 1 is empty"),
        ({"k": 0}, "k from 1 to the 152 texts"),
        ({"k": 153}, "k from 1 to the 152 texts"),
        ({"vidb": Vidb(VIDB.frame.iloc[:0])}, "the 0 texts of the database"),
        ({"embed": lambda texts: np.full((len(texts), 3), np.nan)}, "zero or not finite"),
        ({"embed": lambda texts: np.zeros((len(texts), 3))}, "zero or not finite"),
        ({"embed": lambda texts: np.ones(3)}, "one row each"),
        ({"embed": lambda texts: np.ones((2, 3))}, "gave shape"),
        ({"embed": lambda texts: np.ones((len(texts), len(texts)))}, "width 1 and 152"),
    ],
)
def test_hostile_input_is_refused(changed, says):
    given = {"texts": ["svt/power 1"], "embed": embed, "vidb": VIDB, "k": 4, "seed": 0, **changed}
    texts = given.pop("texts")
    with pytest.raises(InvalidInput, match=says):
        ValueProfile.from_texts(texts, **given)


def test_a_value_the_profile_lacks_is_named():
    with pytest.raises(UnknownName, match="unknown value of the profile 'duty/justice'"):
        profile(MIXED)["justice"]


def test_scores_are_values_that_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile(MIXED)["power"].intensity = 3.0


def crowded(texts):
    """As `embed`, with a little of the same in every text that speaks of a value."""
    rows = embed(texts)
    rows[rows[:, 2 * len(VALUES)] == 0] += 0.7 * np.eye(14)[-1]
    return rows


def test_what_is_unrelated_is_learned_from_database_and_encoder_alone():
    learned = unrelated_cosine(crowded(VIDB.frame["text"].tolist()), VIDB)
    assert 0.1 < learned < 0.5
    found = profile(MIXED, embed=crowded, k=len(VIDB), min_similarity=None)
    other = profile(["svt/face 3 q"], embed=crowded, k=len(VIDB), min_similarity=None, seed=4)
    assert found.min_similarity == other.min_similarity == learned
    given = profile(MIXED, embed=crowded, k=len(VIDB), min_similarity=learned)
    assert repr(found) == repr(given)
    assert ValueProfile.from_json(found.to_json()).min_similarity == learned


def test_the_learned_threshold_keeps_what_is_planted_and_silences_the_rest():
    found = profile(MIXED, embed=crowded, k=8, min_similarity=None)
    assert found["power"].intensity == pytest.approx(7, abs=1)
    assert found["security"].intensity == pytest.approx(-6, abs=1)
    assert found["power"].n_texts == found["security"].n_texts == 2
    loose = profile(MIXED, embed=crowded, k=len(VIDB), min_similarity=0.0)
    assert loose["power"].n_texts == 4
    nothing = profile(["weather", "traffic", "noon"], embed=crowded, min_similarity=None)
    assert nothing.silent == VALUES


def test_unrelated_texts_that_point_apart_leave_the_threshold_at_zero():
    def apart(texts):
        return embed(texts) - 0.25 * embed([f"{v} 0" for v in VALUES]).sum(axis=0)

    assert profile(MIXED, embed=apart, min_similarity=None).min_similarity == 0.0


def test_a_text_of_the_database_is_its_own_neighbour():
    row = VIDB.frame.iloc[25]
    score = profile([row["text"]], k=1)[row["value"]]
    assert score.intensity == pytest.approx(row["intensity"])
    ladder = VIDB.frame["id"] == row["id"]
    without = Vidb(VIDB.frame.loc[~ladder].reset_index(drop=True))
    assert profile([row["text"]], vidb=without, k=1).scores[row["value"]].status == "single"


class FakeEncoder(ValueEncoder):
    def __init__(self, name):
        super().__init__(None, name=name or "hives")

    def embed(self, texts):
        return embed(texts)


def test_the_trained_encoder_and_the_starter_database_are_the_defaults(monkeypatch):
    loaded = []

    def load(name):
        loaded.append(name)
        return FakeEncoder(name)

    _trained.cache_clear()
    monkeypatch.setattr("valueflow.hives.profile.load_value_encoder", load)
    monkeypatch.setattr("valueflow.hives.profile.load_starter", lambda: VIDB)
    try:
        found = [ValueProfile.from_texts(MIXED, seed=s) for s in (0, 1)]
        small = ValueProfile.from_texts(MIXED, encoder="hives-small", seed=0)
    finally:
        _trained.cache_clear()
    assert loaded == [None, "hives-small"]
    assert [p.encoder for p in (*found, small)] == ["hives", "hives", "hives-small"]
    assert found[0].vidb == VIDB.fingerprint()
    by_hand = ValueProfile.from_texts(MIXED, embed=embed, vidb=VIDB, encoder="hives", seed=0)
    assert repr(found[0]) == repr(by_hand)
    assert ValueProfile.from_texts(MIXED, embed=embed, seed=0).encoder == "unnamed"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.01, -2.0])
def test_a_threshold_that_is_no_cosine_is_refused(bad):
    with pytest.raises(InvalidInput, match="min_similarity is a cosine"):
        profile(MIXED, min_similarity=bad)
