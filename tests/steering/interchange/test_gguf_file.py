"""The container: read and written as the reference package does, and nothing believed unchecked."""

import struct
import time

import gguf
import numpy as np
import pytest
from interchange_cases import ARCHITECTURE, ARRAY, STRING, U32, container, tensor, text

from valueflow.errors import ArtifactError
from valueflow.steering.interchange import gguf_file

FIELDS = {
    "controlvector.model_hint": "llama",
    "controlvector.layer_count": 2,
    "valueflow.coefficient": 1 / 3,
    "valueflow.text": "naïve\n",
}


def arrays(seed=0, hidden=37):
    drawn = np.random.default_rng(seed).normal(size=(2, hidden)).astype(np.float32)
    drawn[0, :3] = [np.float32(1e-40), -0.0, np.finfo(np.float32).max]
    return {"direction.3": drawn[0], "direction.11": drawn[1]}


def test_what_is_written_is_read_by_the_reference_package(tmp_path):
    gguf_file.write(tmp_path / "a" / "v.gguf", arrays(), FIELDS)
    reader = gguf.GGUFReader(tmp_path / "a" / "v.gguf")
    assert {t.name: t.data.tobytes() for t in reader.tensors} == {
        name: array.tobytes() for name, array in arrays().items()
    }
    assert {t.tensor_type for t in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    assert {len(t.shape) for t in reader.tensors} == {1}
    found = {name: reader.get_field(name).contents() for name in FIELDS}
    assert found == FIELDS
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["v.gguf"]


def test_what_the_reference_package_writes_is_read(tmp_path):
    path = tmp_path / "v.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{kind}")(f"x.{kind}", 7)
    writer.add_float32("x.float32", 0.5)
    writer.add_float64("x.float64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_array("x.texts", ["a", "bc"])
    writer.add_array("x.numbers", [1, 2, 3])
    writer.add_custom_alignment(64)
    writer.add_string("x.last", "end")
    for name, array in arrays().items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors, fields = gguf_file.read(path)
    assert {name: array.tobytes() for name, array in tensors.items()} == {
        name: array.tobytes() for name, array in arrays().items()
    }
    assert fields["x.last"] == "end"
    assert fields["x.float64"] == 0.1
    assert fields["x.int64"] == 7
    assert fields["x.bool"] is True
    assert "x.texts" not in fields


def test_every_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "v.gguf"
    whole = container(fields=(ARCHITECTURE, ("x", ARRAY, struct.pack("<IQ", 8, 1) + text("abc"))))
    path.write_bytes(whole)
    assert gguf_file.read(path)[0]["direction.1"].tolist() == [1, 2, 3, 4]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            gguf_file.read(path)


def test_damaged_bytes_never_do_worse_than_be_refused(tmp_path):
    path, rng = tmp_path / "v.gguf", np.random.default_rng(0)
    whole = container(fields=(ARCHITECTURE, ("x", ARRAY, struct.pack("<IQ", 5, 2) + bytes(8))))
    refused, start = 0, time.process_time()
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            gguf_file.read(path)
        except ArtifactError:
            refused += 1
    assert refused > 60
    assert time.process_time() - start < 5


HUGE = 2**62


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (container(version=1), "GGUF version 1, expected"),
        (b"\0\0\0\3" + container()[4:], "begins otherwise"),
        (container(fields=(("general.architecture", STRING, "llama"),)), "is 'llama', expected"),
        (container(fields=()), "architecture is None"),
        (container(n_fields=HUGE), "cut short|unknown type|there twice|not UTF-8"),
        (container(n_tensors=HUGE), "cut short|dimensions"),
        (container(tensors=[("direction.1", HUGE, 0)]), "cut short: 'direction.1' ends"),
        (container(tensors=[("direction.1", 4, HUGE)]), "cut short: 'direction.1' ends"),
        (
            container(fields=(ARCHITECTURE, ("x", ARRAY, struct.pack("<IQ", U32, HUGE)))),
            "cut short",
        ),
        (
            container(fields=(ARCHITECTURE, ("x", ARRAY, struct.pack("<IQ", STRING, HUGE)))),
            "cut short",
        ),
        (
            container(fields=(ARCHITECTURE, ("x", ARRAY, struct.pack("<IQ", ARRAY, 1)))),
            "an array of type 9",
        ),
        (container(fields=(ARCHITECTURE, ("x", 77, b""))), "unknown type 77"),
        (container(fields=(ARCHITECTURE, ARCHITECTURE)), "architecture' is there twice"),
        (container(fields=(ARCHITECTURE, (b"\xff", U32, 1))), "not UTF-8"),
        (container(fields=(ARCHITECTURE, ("general.alignment", U32, 0))), "alignment 0, expected"),
        (container(fields=(ARCHITECTURE, ("general.alignment", U32, 24))), "alignment 24"),
        (container(tensors=[("direction.1", 2, 0)] * 2), "direction.1' is there twice"),
        (container(tensors=[tensor("direction.1", 2, 0, dims=2)]), "has 2 dimensions, expected 1"),
        (container(tensors=[tensor("direction.1", 4, 0, kind=1)]), "GGML type 1, expected F32"),
        (b"", "no GGUF file"),
    ],
)
def test_hostile_files_are_refused_at_once(content, message, tmp_path):
    path = tmp_path / "v.gguf"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ArtifactError, match=message):
        gguf_file.read(path)
    assert time.process_time() - start < 1
    with pytest.raises(ArtifactError, match="cannot be read"):
        gguf_file.read(tmp_path / "nowhere.gguf")
