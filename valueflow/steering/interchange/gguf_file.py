"""The GGUF container, as far as control vectors need it.

Reading is our own: files come from anywhere, and a length in them must not be believed before it
is compared with the bytes that are there. (The reader of the `gguf` package loops over as many
elements of an array as the file claims.)
"""

import mmap
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.artifacts import write_file
from valueflow.errors import ArtifactError

MAGIC = b"GGUF"
ARCHITECTURE = "controlvector"
Field = str | int | float | bool

_VERSIONS = (2, 3)
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_FORMATS[12] = "d"
_STRING, _ARRAY = 8, 9
_F32 = 0


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Field]]:
    """The fp32 tensors and the fields of a control vector; fields that are arrays are left out.

    Raises:
        ArtifactError: it cannot be read, is damaged, is no control vector, or holds tensors that
            are not F32 of one dimension.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: no GGUF file: {error}") from None


def write(path: Path, tensors: Mapping[str, np.ndarray], fields: Mapping[str, Field]) -> None:
    """Write a control vector; the file appears whole or not at all.

    Raises OSError as writing does.
    """
    from gguf import GGUFWriter

    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "vector.gguf"
        writer = GGUFWriter(partial, ARCHITECTURE)
        for name, value in fields.items():
            if isinstance(value, str):
                writer.add_string(name, value)
            elif isinstance(value, float):
                writer.add_float64(name, value)
            else:
                writer.add_uint32(name, value)
        for name, tensor in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_file(path, partial.read_bytes())


class _Reader:
    """Goes through a file from its start; every step is checked against its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Field]]:
        if self.take(4) != MAGIC:
            raise ArtifactError(f"{self.path}: no GGUF file, it begins otherwise")
        version = self.number("I")
        if version not in _VERSIONS:
            raise ArtifactError(
                f"{self.path}: GGUF version {version}, expected one of {_VERSIONS} (little-endian)"
            )
        n_tensors, n_fields = self.number("Q"), self.number("Q")
        fields: dict[str, Field] = {}
        for _ in range(n_fields):
            name, value = self.text(), self.value(self.number("I"))
            if name in fields:
                raise ArtifactError(f"{self.path}: the field {name!r:.80} is there twice")
            if value is not None:
                fields[name] = value
        self._check_architecture(fields)
        places: dict[str, tuple[int, int]] = {}
        for _ in range(n_tensors):
            name, length, offset = self.tensor()
            if name in places:
                raise ArtifactError(f"{self.path}: the tensor {name!r:.80} is there twice")
            places[name] = length, offset
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ArtifactError(f"{self.path}: alignment {alignment!r}, expected a power of 2")
        start = -(-self.at // alignment) * alignment
        return {name: self.floats(name, start + o, n) for name, (n, o) in places.items()}, fields

    def _check_architecture(self, fields: Mapping[str, Field]) -> None:
        found = fields.get("general.architecture")
        if found != ARCHITECTURE:
            raise ArtifactError(
                f"{self.path}: general.architecture is {found!r:.80}, expected {ARCHITECTURE!r}; "
                "a model is no control vector"
            )

    def tensor(self) -> tuple[str, int, int]:
        name, n_dims = self.text(), self.number("I")
        if n_dims != 1:
            raise ArtifactError(f"{self.path}: {name!r:.80} has {n_dims} dimensions, expected 1")
        length, kind, offset = self.number("Q"), self.number("I"), self.number("Q")
        if kind != _F32:
            raise ArtifactError(
                f"{self.path}: {name!r:.80} is of GGML type {kind}, expected F32; convert it"
            )
        return name, length, offset

    def floats(self, name: str, start: int, length: int) -> np.ndarray:
        end = start + 4 * length
        if end > len(self.data):
            raise ArtifactError(
                f"{self.path}: cut short: {name!r:.80} ends at byte {end}, "
                f"the file at {len(self.data)}; copy it again"
            )
        return np.frombuffer(self.data[start:end], dtype="<f4").astype(np.float32)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ArtifactError(
                f"{self.path}: cut short: {size} bytes expected at byte {self.at}, "
                f"{len(self.data) - self.at} are there; copy it again"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError:
            raise ArtifactError(f"{self.path}: a name or text in it is not UTF-8") from None

    def value(self, kind: int) -> Field | None:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._skip_array()
        if kind not in _FORMATS:
            raise ArtifactError(f"{self.path}: a field has the unknown type {kind}")
        return self.number(_FORMATS[kind])

    def _skip_array(self) -> None:
        kind, length = self.number("I"), self.number("Q")
        if kind in _FORMATS:
            self.take(length * struct.calcsize(f"<{_FORMATS[kind]}"))
            return
        if kind != _STRING:
            raise ArtifactError(f"{self.path}: an array of type {kind}; a control vector has none")
        for _ in range(length):
            self.take(self.number("Q"))
