import threading
import time
from pathlib import Path

import numpy as np
import pytest
from planted import planted_encoder
from safetensors.numpy import save

from valueflow import artifacts
from valueflow.errors import ArtifactError
from valueflow.hives import store as store_module
from valueflow.hives.store import EmbeddingStore

TEXTS = ["She gave it back.", "", " ", "\n", "é", "e\u0301", "世界 🌍", "a\0b", "x" * 5000]


def embeddings(texts, seed=0, width=4):
    rng = np.random.default_rng(seed)
    return {text: rng.normal(size=width).astype(np.float32) for text in texts}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for text, row in expected.items():
        assert found[text].dtype == np.float32
        np.testing.assert_array_equal(found[text], row)


def crash_while_writing(monkeypatch):
    """The disk is full after half of the bytes."""

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", write_half)


def crash_before_the_rename(monkeypatch):
    def refuse(*_):
        raise OSError("killed")

    monkeypatch.setattr(artifacts.os, "replace", refuse)


def test_what_is_added_is_known_to_this_and_to_the_next_instance(tmp_path):
    path, rows = tmp_path / "deep" / "rows.safetensors", embeddings(TEXTS)
    first = EmbeddingStore(path)
    assert first.known(TEXTS) == {}
    first.add(rows)
    for store in (first, EmbeddingStore(path), EmbeddingStore(str(path))):
        assert_same(store.known(TEXTS), rows)
        mixed = ["unknown", TEXTS[5], "", "  "]
        assert_same(store.known(mixed), {text: rows[text] for text in mixed[1:3]})
        assert store.known([]) == {}


def test_a_later_row_of_a_text_takes_the_place_of_the_first(tmp_path):
    store = EmbeddingStore(tmp_path / "rows.safetensors")
    store.add(embeddings("abc"))
    later = embeddings("b", seed=1)
    store.add(later)
    expected = embeddings("abc") | later
    assert_same(store.known("abc"), expected)
    assert_same(EmbeddingStore(store.path).known("abc"), expected)


def test_nothing_is_written_where_nothing_is_added(tmp_path):
    store = EmbeddingStore(tmp_path / "deep" / "rows.safetensors")
    store.add({})
    assert store.known(TEXTS) == {} and not list(tmp_path.iterdir())


def test_what_two_instances_add_survives_both(tmp_path):
    stores = [EmbeddingStore(tmp_path / "rows.safetensors") for _ in range(2)]
    for store in stores:
        assert store.known("ab") == {}
    rows = embeddings("abc")
    stores[0].add({"a": rows["a"]})
    stores[1].add({"b": rows["b"]})
    stores[0].add({"c": rows["c"]})
    assert_same(stores[0].known("abc"), rows)
    assert_same(EmbeddingStore(stores[0].path).known("abc"), rows)


def test_writers_at_the_same_time_lose_nothing(tmp_path, monkeypatch):
    def slow(path, content):
        time.sleep(0.01)
        artifacts.write_file(path, content)

    monkeypatch.setattr(store_module, "write_file", slow)
    rows, path = embeddings("abcdefghijkl"), tmp_path / "rows.safetensors"

    def add(texts):
        store = EmbeddingStore(path)
        for text in texts:
            store.add({text: rows[text]})

    writers = [threading.Thread(target=add, args=(texts,)) for texts in ("abcd", "efgh", "ijkl")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert_same(EmbeddingStore(path).known("abcdefghijkl"), rows)


KEYS, ROWS = np.zeros((2, 16), dtype=np.uint8), np.zeros((2, 4), dtype=np.float32)
DAMAGED = {
    "empty": b"",
    "not a store": b"half of something else",
    "cut": save({"keys": KEYS, "rows": ROWS})[:-9],
    "without keys": save({"rows": ROWS}),
    "a row too few": save({"keys": KEYS, "rows": ROWS[:1]}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_name_and_left_alone(tmp_path, case):
    path = tmp_path / "rows.safetensors"
    path.write_bytes(DAMAGED[case])
    store = EmbeddingStore(path)
    for attempt in (
        lambda: store.add(embeddings("a")),
        lambda: EmbeddingStore(path).known(["a"]),
    ):
        with pytest.raises(ArtifactError, match=r"rows\.safetensors: damaged.*delete it"):
            attempt()
    assert path.read_bytes() == DAMAGED[case]
    path.unlink()
    store.add(embeddings("a"))
    assert_same(EmbeddingStore(path).known("a"), embeddings("a"))


def test_a_damaged_file_is_refused_again_by_the_instance_that_refused_it(tmp_path):
    store = EmbeddingStore(tmp_path / "rows.safetensors")
    store.path.write_bytes(DAMAGED["cut"])
    for _ in range(2):
        with pytest.raises(ArtifactError, match="damaged"):
            store.known(["a"])


@pytest.mark.parametrize("crash", [crash_while_writing, crash_before_the_rename])
@pytest.mark.parametrize("before", ["", "ab"])
def test_a_crash_leaves_what_was_there_and_nothing_half_written(
    tmp_path, monkeypatch, crash, before
):
    path = tmp_path / "rows.safetensors"
    EmbeddingStore(path).add(embeddings(before))
    store = EmbeddingStore(path)
    with monkeypatch.context() as patch:
        crash(patch)
        with pytest.raises(OSError, match="no space left|killed"):
            store.add(embeddings("cd"))
    left = {file.name for file in tmp_path.iterdir() if file.suffix != ".lock"}
    assert left == ({path.name} if before else set())
    assert_same(EmbeddingStore(path).known("abcd"), embeddings(before))
    store.add(embeddings("cd"))
    expected = embeddings(before) | embeddings("cd")
    assert_same(EmbeddingStore(path).known("abcd"), expected)


def test_encoders_that_share_a_store_read_no_text_twice(tmp_path):
    path = tmp_path / "rows.safetensors"
    batches = [["a", "bb", "", "a"], ["世界", "bb"], ["ccc", "", "世界", "a"], ["ccc", "bb"]]
    read = []
    for texts in batches:
        encoder = planted_encoder()
        encoder.store = EmbeddingStore(path)
        expected = planted_encoder().embed(texts)
        for _ in range(2):
            np.testing.assert_array_equal(encoder.embed(texts), expected)
        read += [text for call in encoder.encoder.calls for text in call]
    assert sorted(read) == sorted(["a", "bb", ".", "世界", "ccc"])


def test_an_encoder_that_needs_nothing_new_writes_nothing(tmp_path):
    first, second = planted_encoder(), planted_encoder()
    first.store, second.store = (EmbeddingStore(tmp_path / "rows.safetensors") for _ in range(2))
    assert first.embed([]).shape[0] == 0 and not list(tmp_path.iterdir())
    first.embed(["a", "bb"])
    written = first.store.path.stat()
    second.embed(["bb", "a"])
    now = first.store.path.stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert second.encoder.calls == []
