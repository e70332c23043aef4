import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from valueflow import artifacts
from valueflow.errors import ArtifactError, InvalidInput

TENSORS = {
    "a": torch.tensor([[1.5, -0.0], [float("nan"), float("inf")]]),
    "b": torch.arange(5, dtype=torch.int64),
    "c": torch.tensor([1.0, 3e-5], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3, dtype=torch.float64),
}
METADATA = {"name": "Wärme", "numbers": [1, 2.5, 1e-300], "nested": {"none": None, "yes": True}}


@pytest.fixture
def folder(tmp_path):
    artifacts.save(tmp_path / "made", "card", TENSORS, METADATA)
    return tmp_path / "made"


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_round_trip_to_the_bit(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "card.safetensors"]
    tensors, metadata = artifacts.load(folder, "card")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(same_bits(tensors[name], TENSORS[name]) for name in TENSORS)
    document = json.loads((folder / "card.json").read_text())
    assert document["kind"] == "card"
    assert document["schema_version"] == 1
    assert document["library_version"]


def test_views_that_share_memory_are_saved(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    given = {"whole": whole, "row": whole[1], "column": whole[:, 2], "turned": whole.T}
    artifacts.save(tmp_path / "x", "card", given, {})
    tensors, _ = artifacts.load(tmp_path / "x", "card")
    assert all(torch.equal(tensors[name], given[name]) for name in given)


def test_without_tensors_it_is_json_alone_and_needs_no_torch(tmp_path):
    code = (
        "import sys; from valueflow import artifacts\n"
        f"artifacts.save({str(tmp_path / 'x')!r}, 'card', {{}}, {{'limit': 0.35}})\n"
        f"assert artifacts.load({str(tmp_path / 'x')!r}, 'card') == ({{}}, {{'limit': 0.35}})\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    root = str(Path(artifacts.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["card.json"]


@pytest.mark.parametrize("place", [0, 8, 200, -1])
def test_a_changed_byte_among_the_tensors_is_seen(folder, place):
    path = folder / "card.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"card\.safetensors: not the tensors"):
        artifacts.load(folder, "card")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["metadata"].update(name="Kälte"),
        lambda d: d["metadata"]["numbers"].append(3),
        lambda d: d["metadata"]["nested"].update(yes=1.5),
        lambda d: d.update(library_version="9.9"),
        lambda d: d.update(tensors_sha256="0" * 64),
        lambda d: d.update(tensors_sha256=None),
        lambda d: d.update(extra=1),
        lambda d: d.update(sha256="0" * 64),
        lambda d: d.pop("sha256"),
        lambda d: d.pop("metadata"),
    ],
)
def test_an_edited_document_is_seen(folder, change):
    path = folder / "card.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="does not fit its hash"):
        artifacts.load(folder, "card")


def test_layout_of_the_document_does_not_matter(folder):
    path = folder / "card.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(document.items()))))
    assert artifacts.load(folder, "card")[1] == METADATA


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"kind": NaN}', b"[" * 100_000],
)
def test_what_is_no_document(folder, content):
    (folder / "card.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"card\.json"):
        artifacts.load(folder, "card")


def test_another_schema_or_kind_says_so(folder):
    path = folder / "card.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"schema_version": 2, "library_version": "3.0"}))
    with pytest.raises(ArtifactError, match=r"schema 2, .*reads schema 1; .*'3\.0'"):
        artifacts.load(folder, "card")
    with pytest.raises(ArtifactError, match=r"no vector there .*holds card\.json"):
        artifacts.load(folder, "vector")
    path.rename(folder / "vector.json")
    with pytest.raises(ArtifactError, match="expected a vector, it is a 'card'"):
        artifacts.load(folder, "vector")


def test_missing_pieces(folder, tmp_path):
    with pytest.raises(ArtifactError, match="no card there"):
        artifacts.load(tmp_path / "nowhere", "card")
    (folder / "card.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"card\.safetensors: .*incomplete"):
        artifacts.load(folder, "card")


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": float("nan")},
        {"x": torch.ones(1)},
        {"x": {1: "key"}},
        {"x": (1, 2)},
        {"x": {2.5: 1}},
        {"x": b"bytes"},
        {"x": Path("p")},
    ],
)
def test_metadata_that_would_come_back_changed_is_refused(tmp_path, metadata):
    with pytest.raises(InvalidInput, match="no plain JSON"):
        artifacts.save(tmp_path / "x", "card", {}, metadata)
    assert list(tmp_path.iterdir()) == []


def failing(monkeypatch, name):
    real = Path.write_bytes

    def write(path, content):
        if path.name == name:
            real(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("name", ["card.json", "card.safetensors"])
def test_a_crash_while_writing_leaves_nothing(tmp_path, monkeypatch, name):
    failing(monkeypatch, name)
    with pytest.raises(OSError, match="No space"):
        artifacts.save(tmp_path / "x", "card", TENSORS, METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["card.json", "card.safetensors"])
def test_a_crash_while_replacing_leaves_the_old(folder, monkeypatch, name):
    failing(monkeypatch, name)
    with pytest.raises(OSError, match="No space"):
        artifacts.save(folder, "card", TENSORS, {"new": True}, overwrite=True)
    assert artifacts.load(folder, "card")[1] == METADATA
    assert list(folder.parent.iterdir()) == [folder]


def test_a_rename_that_fails_puts_the_old_back(folder, monkeypatch):
    real = os.replace

    def replace(source, target):
        if Path(target) == folder and not str(source).endswith("-old"):
            raise OSError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(artifacts.os, "replace", replace)
    with pytest.raises(OSError, match="Permission"):
        artifacts.save(folder, "card", {}, {"new": True}, overwrite=True)
    assert artifacts.load(folder, "card")[1] == METADATA
    assert list(folder.parent.iterdir()) == [folder]


def test_the_folder_shows_up_complete(tmp_path, monkeypatch):
    """At every write, the target either does not exist or loads."""
    target, real, writes = tmp_path / "x", Path.write_bytes, []

    def write(path, content):
        writes.append(path.name)
        if target.exists():
            artifacts.load(target, "card")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    artifacts.save(target, "card", TENSORS, METADATA)
    artifacts.save(target, "card", {}, {"second": 2}, overwrite=True)
    assert len(writes) == 3
    assert artifacts.load(target, "card") == ({}, {"second": 2})
    assert [path.name for path in target.iterdir()] == ["card.json"]


def test_nothing_is_replaced_by_accident(folder, tmp_path):
    with pytest.raises(ArtifactError, match="overwrite=True"):
        artifacts.save(folder, "card", {}, {})
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="choose another folder"):
        artifacts.save(folder, "card", {}, {}, overwrite=True)
    with pytest.raises(ArtifactError, match="choose another folder"):
        artifacts.save(folder, "vector", {}, {}, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        artifacts.save(tmp_path / "file", "card", {}, {})
    (tmp_path / "empty").mkdir()
    artifacts.save(tmp_path / "empty", "card", {}, {"x": 1})
    assert artifacts.load(tmp_path / "empty", "card") == ({}, {"x": 1})
    artifacts.save(tmp_path / "deep" / "er", "card", {}, {})
    assert artifacts.load(tmp_path / "deep" / "er", "card") == ({}, {})


def test_others_may_read_it(tmp_path):
    before = os.umask(0o022)
    try:
        artifacts.save(tmp_path / "x", "card", {}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o755
