"""Embeddings kept on disk by content, so that no text is read twice by one encoder.

One file per encoder under the cache folder, named by its fingerprint. Deleting it costs time only.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from valueflow.artifacts import write_file
from valueflow.errors import ArtifactError

_DIGEST = 16


class EmbeddingStore:
    """The embeddings that one encoder has given so far.

    Args:
        path: its file; made when the first rows are added.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: dict[bytes, np.ndarray] | None = None

    def known(self, texts: Sequence[str]) -> dict[str, Float[np.ndarray, " width"]]:
        """The embeddings of those texts that are stored.

        Raises ArtifactError for a file that is damaged.
        """
        rows = self._load() if self._rows is None else self._rows
        found = ((text, rows.get(_key(text))) for text in texts)
        return {text: row for text, row in found if row is not None}

    def add(self, embeddings: Mapping[str, Float[np.ndarray, " width"]]) -> None:
        """Store more; what another process has stored meanwhile stays."""
        from filelock import FileLock
        from safetensors.numpy import save

        if not embeddings:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            rows = self._load()
            rows.update({_key(text): row for text, row in embeddings.items()})
            keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, _DIGEST)
            table = np.stack(list(rows.values())).astype(np.float32)
            write_file(self.path, save({"keys": keys, "rows": table}))
            self._rows = rows

    def _load(self) -> dict[bytes, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        found: dict[bytes, np.ndarray] = {}
        if self.path.is_file():
            try:
                stored = load(self.path.read_bytes())
                found = {bytes(k): r for k, r in zip(stored["keys"], stored["rows"], strict=True)}
            except (SafetensorError, KeyError, ValueError) as error:
                raise ArtifactError(f"{self.path}: damaged ({error}); delete it") from None
        self._rows = found
        return found


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()
