import math
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from valueflow.errors import InvalidInput
from valueflow.hives import metrics
from valueflow.hives.encoder import Encoder, ValueEncoder
from valueflow.hives.evaluation import (
    geometry,
    held_out,
    ladder_agreement,
    profile_recovery,
    sample_agreement,
    touch_auc,
    touch_correlation,
)
from valueflow.hives.space import vidb_space
from valueflow.theories import get_value
from valueflow.vidb import Vidb

VALUES = ("mft/care-harm", "mft/fairness-cheating", "svt/face", "svt/power", "svt/security")
POWER, CARE = "svt/power", "mft/care-harm"
RUNGS = (-8.0, -4.0, 0.0, 4.0, 8.0)
SPLITS = ("steer", "judge", "validation", "test")
WIDTH = 2 * len(VALUES) + 1
ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0]
SIDES = {get_value(v).supports: f"{v} 10" for v in VALUES}
SIDES |= {get_value(v).opposes: f"{v} -10" for v in VALUES}
FEW = {"n_resamples": 20, "seed": 0}


class Planted(Encoder):
    """Reads "value intensity ...": one coordinate for the value, one for sign * intensity + noise.

    It has no axes, and knows what supports a value as intensity 10. Other texts are off all values.
    """

    def __init__(self, *, sign=1.0, noise=0.0, turn=None, seed=0):
        super().__init__(None, name="planted")
        self.sign, self.noise, self.seed = sign, noise, seed
        self.turn = np.eye(WIDTH) if turn is None else turn

    def embed(self, texts):
        return np.array([self.row(text) for text in texts]).reshape(len(texts), WIDTH) @ self.turn

    def row(self, text):
        row = np.zeros(WIDTH)
        value, _, rest = SIDES.get(text, text).partition(" ")
        if value not in VALUES:
            row[-1] = 1
            return row
        place = 2 * VALUES.index(value)
        own = np.random.default_rng([self.seed, zlib.crc32(text.encode())])
        noise = 0.0 if text in SIDES else self.noise * own.normal()
        row[place : place + 2] = 5, self.sign * float(rest.split()[0]) + noise
        return row


class Space(Planted, ValueEncoder):
    """The same, with axes."""

    def score(self, value, texts):
        return self.embed(texts) @ (np.eye(WIDTH)[2 * VALUES.index(value.id) + 1] @ self.turn)


KINDS = pytest.mark.parametrize("kind", [Planted, Space])


def database(values=VALUES, n=12, rungs=RUNGS):
    rows = [
        (
            f"{v}/post-{i:02}/{r}",
            v,
            f"{v}/post-{i:02}",
            r,
            f"{v} {x} scene {i}",
            None,
            x,
            SPLITS[i % 4],
        )
        for v in values
        for i in range(n)
        for r, x in enumerate(rungs, start=1)
    ]
    names = ["id", "value", "ladder", "rung", "text", "context", "intensity", "split"]
    return Vidb(pd.DataFrame(rows, columns=names))


def corpus(*rows):
    return pd.DataFrame(rows, columns=["text", "value", "agreeing"], dtype=object).assign(
        context=None
    )


def plain(by_value):
    rows = {"mean": by_value.mean, **by_value.values}
    return {k: (f.estimate, f.low, f.high, f.n) for k, f in rows.items()}


@KINDS
@pytest.mark.parametrize(("sign", "share"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
def test_perfect_reversed_and_blind_scores(kind, sign, share):
    vidb = held_out(database())
    graded = {v: (vidb.of(v).frame["text"].tolist(), vidb.of(v).frame["intensity"].tolist())
              for v in VALUES}  # fmt: skip
    encoder = kind(sign=1.0)
    # The axis stays where it is: only what is said of the texts changes.
    encoder.row = lambda text, row=encoder.row: (
        row(text) * (sign if text[:3] in ("svt", "mft") else 1)
    )
    found = ladder_agreement(encoder, vidb, **FEW)
    sample = sample_agreement(encoder, graded, **FEW)
    for by_value, n in ((found["all"], 6 * 6 * 10), (found["within"], 6 * 10), (sample, 360)):
        for figure in by_value.values.values():
            assert (figure.estimate, figure.low, figure.high, figure.n) == (share, share, share, n)
        assert (by_value.mean.estimate, by_value.mean.n) == (share, n * len(VALUES))


def slow_share(rows, scores, gap, within):
    credit = [
        1.0 if scores[a] > scores[b] else 0.5 if scores[a] == scores[b] else 0.0
        for a in range(len(rows))
        for b in range(len(rows))
        if rows["intensity"][a] - rows["intensity"][b] > gap
        and (not within or rows["ladder"][a] == rows["ladder"][b])
    ]
    return np.mean(credit), len(credit)


@KINDS
@pytest.mark.parametrize("gap", [3.0, 0, 9])
def test_shares_are_those_of_a_slow_loop(kind, gap):
    vidb = database(n=6, rungs=(-9.0, -1.0, 0.5, 0.5, 3.5))
    encoder = kind(noise=6.0)
    encoder.row = lambda text, row=encoder.row: np.round(row(text) / 3)
    found = ladder_agreement(encoder, vidb, gap=gap, **FEW)
    for value in VALUES:
        rows = vidb.of(value).frame
        texts = rows["text"].tolist()
        scores = encoder.score(get_value(value), texts)
        assert len(set(scores)) < len(scores), "no ties"
        for name, within in (("all", False), ("within", True)):
            share, n = slow_share(rows, scores, gap, within)
            assert found[name].values[value].estimate == pytest.approx(share)
            assert found[name].values[value].n == n
        sample = sample_agreement(
            encoder, {value: (texts, rows["intensity"].tolist())}, gap=gap, **FEW
        )
        assert sample.mean.estimate == pytest.approx(found["all"].values[value].estimate)
    mean = np.mean([f.estimate for f in found["all"].values.values()])
    assert found["all"].mean.estimate == pytest.approx(mean)


def test_ladders_that_answer_are_read_with_their_questions():
    frame = database().frame
    asked = Vidb(frame.assign(context=[f"{i} and so on?" for i in frame["intensity"]]))

    class Reader(Planted):
        """Tells nothing from the text and everything from the question."""

        def score(self, value, texts):
            heads = [text.removeprefix("Q: ").partition(" and so on? A: ") for text in texts]
            return np.array([float(head) if found else 0.0 for head, found, _ in heads])

    for vidb, share in ((asked, 1.0), (database(), 0.5)):
        found = ladder_agreement(Reader(), vidb, **FEW)
        assert found["all"].mean.estimate == found["within"].mean.estimate == share


def test_intervals_cover_the_share_that_the_noise_allows():
    noise = 8.0
    gaps = [b - a for a in RUNGS for b in RUNGS if b - a > 3]
    truth = np.mean(norm.cdf(np.array(gaps) / (noise * math.sqrt(2))))
    vidb, inside, width = database(n=12), {"all": 0, "within": 0}, []
    for seed in range(20):
        found = ladder_agreement(Space(noise=noise, seed=seed), vidb, n_resamples=40, seed=seed)
        for name in inside:
            mean = found[name].mean
            inside[name] += mean.low <= truth <= mean.high
            width.append(mean.high - mean.low)
    assert all(count >= 16 for count in inside.values()), inside
    assert 0.02 < np.mean(width) < 0.15


def test_what_has_no_pairs_is_absent_and_not_zero():
    flat = database([CARE], n=3, rungs=(-1.0, 0.0, 1.0, 0.5, 0.2))
    vidb = Vidb(pd.concat([flat.frame, database([POWER], n=3).frame], ignore_index=True))
    found = ladder_agreement(Space(), vidb, **FEW)
    for by_value in found.values():
        assert list(by_value.values) == [POWER]
        assert by_value.mean == by_value.values[POWER]
    nothing = ladder_agreement(Space(), flat, **FEW)["all"]
    assert nothing.values == {} and nothing.mean.n == 0
    assert math.isnan(nothing.mean.estimate) and math.isnan(nothing.mean.low)
    spread = database([POWER], n=5).frame.groupby("ladder").nth(0)  # a text a ladder
    spread = spread.assign(intensity=np.arange(5) * 4.0).reset_index(drop=True)
    found = ladder_agreement(Space(), Vidb(spread), **FEW)
    assert list(found["all"].values) == [POWER] and found["within"].values == {}
    assert sample_agreement(Space(), {"power": ([], [])}, **FEW).values == {}


def touching(n=60):
    """Power and care at random strengths; some texts touch neither, some are said to touch both."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        value = (POWER, CARE)[i % 2]
        text = f"{value} {rng.normal() * 6:.1f} post {i}" if i % 3 else f"weather {i}"
        rows.append((text, value, int(rng.integers(1, 4))))
        if rng.random() < 0.2:
            rows.append((text, (CARE, POWER)[i % 2], int(rng.integers(1, 4))))
    return corpus(*rows)


@KINDS
def test_touch_is_the_area_and_the_rank_correlation_of_the_standard_functions(kind):
    rows, vidb, encoder = touching(), held_out(database()), kind(noise=2.0)
    texts = sorted(set(rows["text"]))
    auc, rho = (f(encoder, rows, vidb, **FEW) for f in (touch_auc, touch_correlation))
    assert set(auc.values) == set(rho.values) == {POWER, CARE}
    for value in (POWER, CARE):
        middle = vidb.of(value).frame.query("rung == 3")["text"].tolist()
        centre = np.median(encoder.score(get_value(value), middle))
        size = np.abs(encoder.score(get_value(value), texts) - centre)
        own = rows[rows["value"] == value].set_index("text")["agreeing"]
        counts = [own.get(text, 0) for text in texts]
        touched = [count > 0 for count in counts]
        assert auc.values[value].estimate == pytest.approx(roc_auc_score(touched, size))
        assert rho.values[value].estimate == pytest.approx(spearmanr(size, counts).statistic)
        assert auc.values[value].n == rho.values[value].n == sum(touched)
        for figure in (auc.values[value], rho.values[value]):
            assert figure.low < figure.estimate < figure.high
    assert auc.mean.n == rho.mean.n == len(texts)
    assert auc.mean.estimate == pytest.approx(np.mean([f.estimate for f in auc.values.values()]))


@KINDS
def test_support_and_opposition_both_touch_and_the_score_is_centred(kind):
    vidb = held_out(database(rungs=(2.0, 6.0, 10.0, 14.0, 18.0)))
    rows = corpus(*[(f"{POWER} {10 + x} far {x}", POWER, abs(x)) for x in (-3, 3, -2, 2)],
                  *[(f"{POWER} {10 + x} near", CARE, 1) for x in (-1, 0, 1)])  # fmt: skip
    assert touch_auc(kind(), rows, vidb, **FEW).values[POWER].estimate == 1
    assert touch_correlation(kind(), rows, vidb, **FEW).values[POWER].estimate > 0.85
    assert touch_auc(kind(sign=-1.0), rows, vidb, **FEW).values[POWER].estimate == 1


def test_what_touches_is_read_with_what_it_answers():
    """The same text touches power or does not, as its question says."""
    rows = pd.DataFrame(
        [
            ("so be it", f"{POWER} {i if i > 5 else 0.1 * i}", POWER if i > 5 else CARE, 1)
            for i in range(1, 11)
        ],
        columns=["text", "context", "value", "agreeing"],
    )

    class Reader(Planted):
        def score(self, value, texts):
            return super().score(value, [t.removeprefix("Q: ").partition(" A: ")[0] for t in texts])

    found = touch_auc(Reader(), rows, held_out(database()), **FEW)
    assert found.mean.n == 10 and found.values[POWER].estimate == 1


def test_touch_is_absent_where_all_texts_touch_or_nothing_is_known_of_the_value():
    vidb = held_out(database([POWER]))
    rows = corpus(*[(f"{POWER} {x} a", POWER, 1) for x in (1, 2, 3)], (f"{POWER} 1 a", CARE, 1))
    for measure in (touch_auc, touch_correlation):
        found = measure(Space(), rows, vidb, **FEW)
        assert found.values == {} and math.isnan(found.mean.estimate) and found.mean.n == 3
    rows = corpus((f"{POWER} 1 a", POWER, None), ("weather", CARE, None))
    assert touch_auc(Space(), rows, vidb, **FEW).values[POWER].estimate == 1
    blind = corpus(("weather 1", POWER, 2), ("weather 2", CARE, 1))
    assert touch_auc(Space(), blind, vidb, **FEW).values[POWER].estimate == 0.5
    assert touch_correlation(Space(), blind, vidb, **FEW).values == {}


def test_geometry_is_the_report_of_the_texts_that_lean_one_way():
    vidb = held_out(database())
    found = geometry(Space(), vidb, **FEW)
    space = vidb_space(vidb, Space().embed)
    assert found["orthogonality svt"].estimate == pytest.approx(
        metrics.orthogonality(space.of("svt"))
    )
    assert found["orthogonality"].estimate == pytest.approx(1)
    assert found["orthogonality svt"].n == 3 * 6 * 4 and found["orthogonality mft"].n == 2 * 6 * 4
    assert found["knn_direction"].estimate == 1 and found["knn_direction"].n == 5 * 6 * 4
    assert geometry(Space(noise=100.0), vidb, **FEW)["knn_direction"].estimate < 0.75
    alone = geometry(Space(), held_out(database([POWER, CARE])), **FEW)
    assert not any(name.startswith("orthogonality") for name in alone)


@pytest.mark.parametrize("n_texts", [20, 2])
def test_profiles_of_a_clear_space_name_their_value(n_texts):
    found = profile_recovery(Space(), database(), n_texts=n_texts, seed=0)
    assert found.ranks == dict.fromkeys(VALUES, 1)
    assert found.n_texts == dict.fromkeys(VALUES, min(n_texts, 6))
    assert (found.first.estimate, found.first.n) == (1, 5)
    assert 0.5 < found.first.low < 0.6 and found.first.high == pytest.approx(1)


def test_values_that_their_own_texts_do_not_speak_of_are_not_found():
    encoder = Space()
    encoder.row = lambda text: (
        np.eye(WIDTH)[0] * (1 if "scene 2" in text or "scene 3" in text else -1)
    )
    vidb = database(n=4)
    found = profile_recovery(encoder, vidb, seed=0)
    assert set(found.ranks.values()) == {None} and found.first.estimate == 0


def test_a_profile_never_finds_its_own_texts_again():
    """Every text is like no other: only a text itself could tell its value."""
    encoder = Space()
    encoder.embed = lambda texts: np.stack(
        [np.random.default_rng(zlib.crc32(t.encode())).normal(size=300) for t in texts]
    )
    vidb = database(n=24)
    assert profile_recovery(encoder, vidb, seed=0).first.estimate <= 0.6


@KINDS
def test_rotations_change_nothing_and_seeds_repeat(kind):
    vidb, rows = database(), touching()
    graded = {POWER: ([f"{POWER} {x} s" for x in RUNGS], list(RUNGS))}

    def everything(encoder):
        ladders = ladder_agreement(encoder, held_out(vidb), **FEW)
        return {
            **{name: plain(by_value) for name, by_value in ladders.items()},
            "sample": plain(sample_agreement(encoder, graded, **FEW)),
            "auc": plain(touch_auc(encoder, rows, held_out(vidb), **FEW)),
            "rho": plain(touch_correlation(encoder, rows, held_out(vidb), **FEW)),
            "geometry": {
                k: f.estimate for k, f in geometry(encoder, held_out(vidb), **FEW).items()
            },
            "profiles": profile_recovery(encoder, vidb, seed=0).ranks,
        }

    def blurred(**options):
        """No two scores are equal, so rounding parts no ties."""
        encoder = kind(noise=3.0, **options)
        encoder.row = lambda text, row=encoder.row: (
            row(text) + 0.3 * np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH)
        )
        return encoder

    straight, turned = everything(blurred()), everything(blurred(turn=ROTATION))
    assert straight == everything(blurred())
    for name, figures in straight.items():
        for key, figure in figures.items():
            assert turned[name][key] == pytest.approx(figure, abs=1e-6), (name, key)


def test_held_out_texts_are_those_of_validation_and_test():
    assert sorted(set(held_out(database()).frame["split"])) == ["test", "validation"]
    assert len(held_out(database())) == len(database()) // 2
    assert len(held_out(database(), ["judge"])) == len(database()) // 4


def test_hostile_input():
    vidb = database(n=4)
    for call in (
        lambda: ladder_agreement(Space(), vidb, n_resamples=5, seed=0),
        lambda: geometry(Space(), vidb, n_resamples=5, seed=0),
        lambda: touch_auc(Space(), touching(), vidb, n_resamples=5, seed=0),
    ):
        with pytest.raises(InvalidInput, match="20 or more resamples, got 5"):
            call()
    with pytest.raises(InvalidInput, match="power: 2 texts but 1 intensities"):
        sample_agreement(Space(), {"power": (["a", "b"], [1.0])}, **FEW)
    with pytest.raises(InvalidInput, match="svt/openness-to-change has no 'supports'"):
        sample_agreement(Planted(), {"openness-to-change": (["a", "b"], [1.0, 9.0])}, **FEW)
    with pytest.raises(InvalidInput, match="rows of a corpus, got none"):
        touch_auc(Space(), corpus(), vidb, **FEW)
    for options in ({"n_texts": 0}, {"splits": SPLITS}, {"splits": ()}):
        with pytest.raises(InvalidInput, match="texts in other splits"):
            profile_recovery(Space(), vidb, seed=0, **options)
