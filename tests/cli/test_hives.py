import json
import zlib

import numpy as np
import pandas as pd
import pytest

from valueflow.hives.encoder import SHIPPED, Encoder
from valueflow.theories import get_value
from valueflow.vidb.importers.valueeval import CATEGORIES
from valueflow.vidb.store import Vidb

VALUES = ("mft/care-harm", "mft/fairness-cheating", "svt/power", "svt/security")
SPLITS = ("steer", "judge", "validation", "test")
GRADES = (-8.0, -4.0, 0.0, 4.0, 8.0)
WIDTH = 2 * len(VALUES) + 1


class Fake(Encoder):
    """Knows "value grade ..." by heart, or (blind) nothing at all."""

    def __init__(self, name, *, blind=False):
        super().__init__(None, name=name)
        self.blind, self.calls = blind, []
        self.sides = {}
        for value in map(get_value, VALUES):
            self.sides |= {value.supports: f"{value.id} 10 x", value.opposes: f"{value.id} -10 x"}

    def fingerprint(self):
        return f"print of {self.name}"

    def embed(self, texts):
        self.calls += list(texts)
        return np.stack([self.row(self.sides.get(text, text)) for text in texts])

    def row(self, text):
        value, _, rest = text.rpartition(" A: ")[2].partition(" ")
        if self.blind or value not in VALUES:
            return np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH)
        place = 2 * VALUES.index(value)
        return np.eye(WIDTH)[place] * 5 + np.eye(WIDTH)[place + 1] * float(rest.split()[0])


def database():
    rows = [
        (f"{v}/post-{i}/{r}", v, f"{v}/post-{i}", r, f"{v} {x} scene {i}", None, x, SPLITS[i % 4])
        for v in VALUES
        for i in range(12)
        for r, x in enumerate(GRADES, start=1)
    ]
    names = ["id", "value", "ladder", "rung", "text", "context", "intensity", "split"]
    return Vidb(pd.DataFrame(rows, columns=names))


@pytest.fixture
def loaded(monkeypatch):
    """A small database, and fake encoders; the dictionary tells which were loaded, and how."""
    found = {}

    def loader(kind):
        def load(name):
            found[name] = kind, Fake(name, blind="mpnet" in name)
            return found[name][1]

        return load

    vidb = database()
    monkeypatch.setattr("valueflow.vidb.store.load_starter", lambda: vidb)
    monkeypatch.setattr("valueflow.hives.encoder.load_frozen_encoder", loader("base"))
    monkeypatch.setattr("valueflow.hives.encoder.load_value_encoder", loader("trained"))
    return found


@pytest.fixture
def files(tmp_path):
    sample = tmp_path / "sample.json"
    graded = {"power": [{"text": f"svt/power {x} s", "intensity": x} for x in GRADES]}
    sample.write_text(json.dumps(graded))
    folder = tmp_path / "valueeval"
    folder.mkdir()
    arguments, labels = [], []
    for i in range(12):
        marked = ("Power: dominance", "Security: personal")[i % 2]
        value = ("svt/power", "svt/security")[i % 2]
        arguments.append((f"A{i}", "Do it", "against", f"{value} {(-1) ** (i // 2) * 6} p{i}"))
        labels.append((f"A{i}", *(str(int(c == marked)) for c in CATEGORIES)))
    table(folder / "arguments-v.tsv", ("Argument ID", "Conclusion", "Stance", "Premise"), arguments)
    table(folder / "labels-v.tsv", ("Argument ID", *CATEGORIES), labels)
    mfrc = tmp_path / "mfrc"
    mfrc.mkdir()
    names = ("Equality", "Care", "Authority", "Loyalty", "Proportionality", "Purity",
             "Thin Morality", "Non-Moral")  # fmt: skip
    rows = []
    for i in range(12):
        care, fair = (i // 2 % 3 + 1, 0) if i % 2 else (0, i // 2 % 3 + 1)
        value = VALUES[1 - i % 2]
        text = f"{value} {2.0 * (care + fair)} r{i}"
        counts = {"Care": care, "Equality": fair}
        rows.append((str(i), text, *(str(counts.get(name, 0)) for name in names)))
    table(mfrc / "mfrc_train.tsv", ("ID", "text", *names), rows)
    return {
        "--vidb-sample": sample,
        "--valueeval": folder / "arguments-v.tsv",
        "--mfrc": mfrc,
    }


def table(path, header, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)))


OPTIONAL = {
    "--vidb-sample": "graded sample, pairs",
    "--valueeval": "ValueEval, touch AUC",
    "--mfrc": "MFRC, touch Spearman",
}


def test_the_shipped_space_stands_beside_its_base(run, loaded, tmp_path):
    told = tmp_path / "told.json"
    done = run("hives", "eval", "--json", told)
    assert done.code == 0, done.err
    assert {name: kind for name, (kind, _) in loaded.items()} == {
        "hives": "trained",
        "all-mpnet-base-v2": "base",
    }
    assert "hives" in done.out and "all-mpnet-base-v2" in done.out
    for label in ("tree order, pairs", "orthogonality, svt", "neighbours, direction"):
        assert label in done.out
    assert not any(label in done.out for label in OPTIONAL.values())
    results = json.loads(told.read_text())
    clear, blind = (results["encoders"][name] for name in ("hives", "all-mpnet-base-v2"))
    assert results["vidb"] == database().fingerprint() and results["seed"] == 0
    assert clear["fingerprint"] == "print of hives"
    assert clear["ladders_within"]["mean"] == {"estimate": 1, "low": 1, "high": 1, "n": 240}
    assert 0.3 < blind["ladders_all"]["mean"]["estimate"] < 0.7
    assert clear["profiles"]["first"]["estimate"] == 1
    assert set(clear["profiles"]["ranks"]) == set(VALUES)
    assert clear["geometry"]["orthogonality"]["estimate"] > 0.99
    assert "1.000 [1.000, 1.000]" in done.out
    assert "read with hives 304/304" in done.err  # with the kept answers of four values


def test_every_corpus_that_is_given_has_a_row(run, loaded, files, tmp_path):
    told = tmp_path / "told.json"
    options = [part for pair in files.items() for part in pair]
    done = run("hives", "eval", "hives", *options, "--no-profiles", "--seed", 3, "--json", told)
    assert done.code == 0, done.err
    assert all(label in done.out for label in OPTIONAL.values())
    assert "profiles" not in done.out
    found = json.loads(told.read_text())["encoders"]["hives"]
    assert "profiles" not in found
    assert found["sample"]["values"]["svt/power"]["estimate"] == 1
    assert found["sample"]["mean"]["n"] == 10
    assert set(found["touch_auc"]["values"]) == {"svt/power", "svt/security"}
    assert found["touch_auc"]["mean"]["estimate"] == 1
    assert set(found["touch_correlation"]["values"]) == {"mft/care-harm", "mft/fairness-cheating"}
    assert found["touch_correlation"]["mean"]["estimate"] > 0.95
    learned = [t for t, s in zip(database().frame["text"], database().frame["split"], strict=True)
               if s in ("steer", "judge")]  # fmt: skip
    assert not set(learned) & set(loaded["hives"][1].calls)


def test_names_folders_and_what_is_given_twice(run, loaded, tmp_path):
    trained = tmp_path / "trained [x]"
    trained.mkdir()
    (trained / "hives-encoder.json").write_text("{}")
    base = tmp_path / "base"
    base.mkdir()
    done = run("hives", "eval", "hives", trained, base, base, "--no-profiles")
    assert done.code == 0, done.err
    kinds = {name: kind for name, (kind, _) in loaded.items()}
    assert kinds == {"hives": "trained", str(trained): "trained", str(base): "base"}
    assert "[x]" in "".join(done.out.split("\n")).replace(" ", "")


def test_what_cannot_be_read_is_refused_before_any_encoder(run, loaded, files, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    assert run("hives", "eval", "--vidb-sample", bad).refused("bad.json", "not JSON")
    bad.write_text(json.dumps({"duty/fidelity": []}))
    assert run("hives", "eval", "--vidb-sample", bad).refused("value of the database")
    assert run("hives", "eval", "--valueeval", tmp_path / "arguments-x.tsv").code == 2
    assert run("hives", "eval", "--mfrc", tmp_path / "valueeval").refused("mfrc*.tsv")
    assert run("hives", "eval", "--json", bad / "x.json").refused("no folder")
    assert loaded == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [("all-mpnet-base-v3", "did you mean all-mpnet-base-v2?"), ("./nothing", "neither a model")],
)
def test_an_encoder_that_there_is_not_is_refused(run, name, words):
    done = run("hives", "eval", name)
    assert done.code == 2 and done.out == ""
    assert done.err.splitlines()[-1].startswith("valueflow: ") and words in done.err


def test_help_has_an_example(run):
    assert "Example: valueflow hives eval" in run("hives", "eval", "--help").out
    assert " eval " in run("hives", "--help").out


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.skipif(not (SHIPPED["hives"] / "hives-encoder.json").is_file(), reason="not shipped")
def test_the_shipped_space_orders_held_out_ladders_better_than_its_base(run, tmp_path):
    told = tmp_path / "told.json"
    done = run("hives", "eval", "--no-profiles", "--json", told)
    assert done.code == 0, done.err
    found = json.loads(told.read_text())["encoders"]
    for name in ("ladders_all", "ladders_within"):
        ours, base = (found[e][name]["mean"] for e in ("hives", "all-mpnet-base-v2"))
        assert ours["low"] > base["high"]


def test_draw_writes_both_pictures_and_the_cosines(run, loaded, tmp_path):
    """Two basic values are too few to tell their circle; the pictures are drawn all the same."""
    from matplotlib.image import imread

    place, told = tmp_path / "map.png", tmp_path / "told.json"
    done = run("hives", "draw", "hives", "--map", place, "--heat-map", tmp_path / "heat.png",
               "--json", told)  # fmt: skip
    assert done.code == 0, done.err
    assert imread(place).std() > 0.05 and imread(tmp_path / "heat.png").std() > 0.05
    result = json.loads(told.read_text())
    assert result["circle"] is None and "too few basic values" in done.out
    assert set(result["cosines"]) == set(VALUES)
    assert result["cosines"]["svt/power"]["svt/power"] == pytest.approx(1)
    assert abs(result["cosines"]["svt/power"]["mft/care-harm"]) < 0.1


def test_draw_refuses_to_draw_nothing_or_to_elsewhere(run, loaded, tmp_path):
    assert run("hives", "draw").refused("--map", "--heat-map")
    assert run("hives", "draw", "--map", tmp_path / "map.txt").refused("map.txt", ".png")
    assert loaded == {}
