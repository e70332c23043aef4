"""Control vectors built byte by byte, and what llama.cpp and repeng do with a file."""

import struct

import numpy as np
import torch
from gguf import GGUFReader

STRING, ARRAY, U32 = 8, 9, 4
ARCHITECTURE = ("general.architecture", STRING, "controlvector")


def text(value):
    encoded = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def field(name, kind, value):
    packed = text(value) if kind == STRING else value
    packed = struct.pack("<I", packed) if isinstance(packed, int) else packed
    return text(name) + struct.pack("<I", kind) + packed


def tensor(name, length, offset, *, dims=1, kind=0):
    return (
        text(name)
        + struct.pack("<I", dims)
        + struct.pack(f"<{dims}Q", *[length] * dims)
        + (struct.pack("<IQ", kind, offset))
    )


def container(fields=(ARCHITECTURE,), tensors=None, data=None, **claims):
    """A GGUF file; `claims` are what the header says instead of what is there."""
    tensors = [("direction.1", 4, 0)] if tensors is None else tensors
    data = np.arange(1, 5, dtype="<f4").tobytes() if data is None else data
    body = b"".join(field(*f) for f in fields)
    body += b"".join(t if isinstance(t, bytes) else tensor(*t) for t in tensors)
    header = b"GGUF" + struct.pack(
        "<IQQ",
        claims.get("version", 3),
        claims.get("n_tensors", len(tensors)),
        claims.get("n_fields", len(fields)),
    )
    padding = -(len(header) + len(body)) % 32
    return header + body + bytes(padding) + data


def added_by_llama_cpp(path, n_layers, hidden, scale=1.0):
    """Per block from 0, what `--control-vector-scaled path:scale` adds to its output.

    Its two steps, in its own indices: common_control_vector_load_one fills a buffer that has no
    place for block 0, and llama_adapter_cvec::apply deals it to the blocks.
    """
    buffer = np.zeros(hidden * (n_layers - 1), dtype=np.float32)
    for found in GGUFReader(path).tensors:
        layer_idx = int(found.name.split(".")[1])
        assert layer_idx > 0
        assert found.data.ndim == 1
        buffer[hidden * (layer_idx - 1) : hidden * layer_idx] += found.data * np.float32(scale)
    tensors = {}
    for il in range(1, n_layers):
        off = hidden * (il - 1)
        tensors[il] = torch.from_numpy(buffer[off : off + hidden])
    return tensors


def read_by_repeng(path):
    """Layer to direction, as its `import_gguf` does it."""
    reader = GGUFReader(path)
    architecture = reader.get_field("general.architecture")
    assert bytes(architecture.parts[-1]).decode() == "controlvector"
    assert reader.get_field("controlvector.model_hint") is not None
    return {int(t.name.split(".")[1]): t.data for t in reader.tensors}
