import csv
import io
import time
import tracemalloc

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from planted_vidb import POWER, ladders_of, planted, read

from valueflow.errors import InvalidInput, UnknownName
from valueflow.evaluate.panel import panel_from_vidb
from valueflow.vidb.build import COLUMNS, build
from valueflow.vidb.exchange import HUB_DATASET, export_csv, import_csv, load_hub
from valueflow.vidb.planning import connected_windows
from valueflow.vidb.schema import SPLITS, split_of
from valueflow.vidb.store import Vidb, load_vidb, save

ODD = (
    'say "no", never',
    "two\nlines",
    "mac\rline",
    "dos\r\nlines",
    "  caf\u00e9\u2028 \U0001f600\t",
)


@pytest.fixture(scope="module")
def vidb():
    ladders = ladders_of(n=6)
    planned = connected_windows(ladders, per_text=2, rng=np.random.default_rng(0))
    frame = build(ladders, read(planned, planted(ladders, seed=0), seed=0))
    frame.loc[: len(ODD) - 1, "text"] = list(ODD)
    return Vidb(frame)


def written(tmp_path, content, name="power.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_texts_and_intensities_survive_the_round_trip(vidb, tmp_path):
    again = import_csv(written(tmp_path, export_csv(vidb, "power")), "power")
    before = dict(zip(vidb.frame["text"], vidb.frame["intensity"], strict=True))
    after = dict(zip(again.frame["text"], again.frame["intensity"], strict=True))
    assert set(ODD) <= set(after) == set(before)
    assert after == pytest.approx(before, abs=5e-5)
    assert export_csv(again, "svt/power") == export_csv(vidb, POWER)


def test_the_table_is_the_papers(vidb):
    rows = list(csv.reader(io.StringIO(export_csv(vidb, "power"), newline="")))
    assert rows[0] == ["text", "final_rating"] and len(rows) == 31
    ratings = [float(rating) for _, rating in rows[1:]]
    assert ratings == sorted(ratings, reverse=True)
    with pytest.raises(UnknownName, match="unknown value of the database"):
        export_csv(vidb, "hedonism")


def test_ties_are_ordered_by_id(vidb):
    tied = Vidb(vidb.frame.assign(intensity=1.0))
    shuffled = Vidb(tied.frame.sample(frac=1, random_state=0))
    assert export_csv(tied, "power") == export_csv(shuffled, "power")


def many(n=40):
    return "text,final_rating\n" + "".join(f"text {i},{i / 2 - 10}\n" for i in range(n))


def test_what_is_imported_is_a_database(tmp_path):
    vidb = import_csv(written(tmp_path, many()), "pvq/power", source="mine", licence="CC0")
    frame = vidb.frame
    assert tuple(frame.columns) == COLUMNS and vidb.values == (POWER,)
    assert frame["id"].is_unique and set(frame["rung"]) == {0}
    assert frame["split"].tolist() == [split_of(ladder) for ladder in frame["ladder"]]
    assert {s: len(vidb.of("power", s)) for s in SPLITS} == {
        "steer": 12,
        "judge": 12,
        "validation": 8,
        "test": 8,
    }
    assert set(frame["source"]) == {"mine"} and set(frame["licence"]) == {"CC0"}
    assert frame["stderr"].isna().all() and frame["context"].tolist() == [None] * 40
    panel = panel_from_vidb(vidb, "power", "test")
    assert len(panel) == 8
    save(vidb, tmp_path / "own.parquet")
    pd.testing.assert_frame_equal(load_vidb(tmp_path / "own.parquet").frame, frame)


def test_more_rows_move_no_text_to_another_split(tmp_path):
    few = import_csv(written(tmp_path, many(17)), "power").frame
    more = import_csv(written(tmp_path, many(40)), "power").frame
    pd.testing.assert_frame_equal(more[:17][["text", "split"]], few[["text", "split"]])
    assert set(few["source"]) == {"power.csv"}


@pytest.mark.parametrize(
    "content",
    [
        "\ufefftext,final_rating\na,1\nb,-2.5\n",
        "text,final_rating\r\na,1\r\n\r\nb,-2.5",
        'model,final_rating,text\nm,1.0,a\n"m,n", -2.5 ,"b"\n',
    ],
)
def test_tables_as_they_come(tmp_path, content):
    frame = import_csv(written(tmp_path, content), "power").frame
    assert dict(zip(frame["text"], frame["intensity"], strict=True)) == {"a": 1.0, "b": -2.5}


HEAD = "text,final_rating\n"
HOSTILE = {
    "not UTF-8": (HEAD.encode() + b"caf\xe9,1\n", 2, "not UTF-8"),
    "UTF-16": (HEAD.encode("utf-16"), 1, "not UTF-8"),
    "NaN": (HEAD + "a,NaN\n", 2, "final_rating must be a number in [-10, 10], got 'NaN'"),
    "infinite": (HEAD + "a,1\nb,inf\n", 3, "final_rating must be a number in [-10, 10]"),
    "too large": (HEAD + "a,1\nb,11\n", 3, "got '11'"),
    "too small": (HEAD + "a,-10.001\n", 2, "got '-10.001'"),
    "no number": (HEAD + "a,strong\n", 2, "got 'strong'"),
    "no rating": (HEAD + "a,\n", 2, "got ''"),
    "long rating": (HEAD + f"a,{'9' * 9000}\n", 2, "must be a number"),
    "empty text": (HEAD + "a,1\n,2\n", 3, "the text is empty; write it or remove the line"),
    "blank text": (HEAD + '" \n ",2\n', 2, "the text is empty"),
    "duplicate": (HEAD + '"a\nb",1\nc,1\n"a\nb",2\n', 5, "power.csv:2 again; remove one"),
    "no rating column": ("text,rating\na,1\n", 1, "column 'final_rating' is missing"),
    "no text column": ("Text,final_rating\na,1\n", 1, "column 'text' is missing"),
    "column twice": ("text,text,final_rating\na,b,1\n", 1, "column 'text' is there twice"),
    "empty": ("", 1, "column 'text' is missing"),
    "no rows": (HEAD, 2, "no record below the header"),
    "comma in a text": (HEAD + "I lead, you follow,1\n", 2, "expected 2 cells"),
    "cell missing": (HEAD + "a\n", 2, "expected 2 cells"),
    "unclosed quote": (HEAD + 'a,1\n"b,2\nc,3\n', 3, "is a quote not closed?"),
    "unclosed quote in the header": ('text,"final_rating\na,1\n', 1, "is a quote not closed?"),
    "text after a quote": (HEAD + '"a"b,1\n', 2, "cannot be split into cells"),
    "parquet": (b"PAR1\x15\x04\x15\x80\xff" + bytes(200), 1, "not UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_refused_by_file_and_line(tmp_path, name):
    content, line, complaint = HOSTILE[name]
    path = written(tmp_path, content)
    with pytest.raises(InvalidInput) as caught:
        import_csv(path, "power")
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ") and complaint in message
    assert "\n" not in message and len(message) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("head", "line"), [(b"", 1), (HEAD.encode(), 2), (HEAD.encode() + b'a,1\n"', 3)]
)
def test_a_line_without_end_is_refused_before_it_is_read(tmp_path, head, line):
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write(head)
        for _ in range(100):
            file.write(b"x" * 1_000_000)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(InvalidInput, match=f"long.csv:{line}: line longer than"):
            import_csv(path, "power")
        seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 5 and peak < 40e6


def test_a_quote_never_closed_is_refused_long_before_the_end(tmp_path):
    path = written(tmp_path, HEAD + '"' + "a line of text\n" * 2_000_000)
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match="power.csv:2: .* is a quote not closed?"):
        import_csv(path, "power")
    assert time.perf_counter() - began < 2


def test_files_and_values_that_are_not_there_are_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read") as caught:
            import_csv(path, "power")
        assert str(path) in str(caught.value)
    with pytest.raises(UnknownName, match="svt/power"):
        import_csv(written(tmp_path, many()), "powr")


class Hub:
    """Stands for the hub: files by name, and what was asked of it."""

    def __init__(self, monkeypatch, tmp_path, files=(), error=None):
        self.files, self.error, self.asked, self.folder = list(files), error, [], tmp_path
        monkeypatch.setattr(huggingface_hub, "list_repo_files", self.list_repo_files)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.hf_hub_download)

    def list_repo_files(self, repo_id, *, repo_type):
        self.asked.append((repo_id, repo_type))
        if self.error is not None:
            raise self.error
        return self.files

    def hf_hub_download(self, repo_id, filename, *, repo_type):
        assert filename in self.files
        self.asked.append((repo_id, repo_type, filename))
        content = f"text,final_rating\nfrom {filename},3\nother,4\n"
        return str(written(self.folder, content, "downloaded"))


@pytest.mark.parametrize(
    "name",
    [
        "power.csv",
        "data/Power.csv",
        "svt_power.csv",
        "svt-power.csv",
        "pvq/pvq_power.csv",
    ],
)
def test_a_value_is_read_from_its_file_on_the_hub(monkeypatch, tmp_path, name):
    others = ["README.md", "power.parquet", "mft_care_harm.csv", "hedonism.csv", "all.csv"]
    hub = Hub(monkeypatch, tmp_path, [*others, name])
    frame = load_hub("power").frame
    assert frame["text"].tolist() == [f"from {name}", "other"]
    assert set(frame["value"]) == {POWER} and set(frame["source"]) == {HUB_DATASET}
    assert hub.asked == [(HUB_DATASET, "dataset"), (HUB_DATASET, "dataset", name)]


def test_values_of_several_words_and_other_data_sets(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, tmp_path, ["mft_care_harm.csv", "self_direction.csv"])
    assert load_hub("care/harm", dataset="a/b").values == ("mft/care-harm",)
    assert load_hub("svt/self-direction", dataset="a/b").values == ("svt/self-direction",)
    assert {asked[0] for asked in hub.asked} == {"a/b"}


def test_a_value_the_data_set_lacks_is_refused_with_what_it_has(monkeypatch, tmp_path):
    Hub(monkeypatch, tmp_path, ["README.md", "hedonism.csv", "security.csv"])
    with pytest.raises(InvalidInput, match="no file of svt/power; it has hedonism.csv, security"):
        load_hub("power")
    Hub(monkeypatch, tmp_path, ["README.md"])
    with pytest.raises(InvalidInput, match="no file of svt/power; it has no CSV"):
        load_hub("power")


class TransportError(Exception):
    """As an HTTP library raises that does not build on OSError."""


@pytest.mark.parametrize(
    "error",
    [
        TransportError("name resolution failed"),
        ConnectionError("no network"),
        OfflineModeIsEnabled("offline"),
        HFValidationError("bad name"),
    ],
)
def test_no_network_is_told_in_a_line(monkeypatch, tmp_path, error):
    hub = Hub(monkeypatch, tmp_path, ["power.csv"], error)
    with pytest.raises(InvalidInput) as caught:
        load_hub("power")
    message = str(caught.value)
    assert HUB_DATASET in message and type(error).__name__ in message
    assert "import_csv" in message and "\n" not in message
    assert len(hub.asked) == 1


def test_a_misspelt_value_asks_nothing_of_the_hub(monkeypatch, tmp_path):
    hub = Hub(monkeypatch, tmp_path)
    with pytest.raises(UnknownName, match="svt/power"):
        load_hub("powr")
    assert hub.asked == []
