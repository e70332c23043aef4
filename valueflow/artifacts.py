"""Saving what was computed: safetensors for numbers, JSON for the rest, and a hash over both.

An artifact is a folder with `<kind>.json` and, if it has tensors, `<kind>.safetensors`. Nothing in
it is ever executed on loading.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import valueflow
from valueflow.errors import ArtifactError, InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1


def save(
    folder: str | Path,
    kind: str,
    tensors: "Mapping[str, Tensor]",
    metadata: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write an artifact; the folder appears complete or not at all.

    Args:
        folder: where to; its parents are made.
        kind: what it is, also the stem of the files.
        tensors: by name; empty for an artifact of JSON alone.
        metadata: plain JSON: string keys, lists, no NaN.
        overwrite: replace an artifact of the same kind, if the folder holds nothing else.

    Raises:
        InvalidInput: metadata that JSON does not give back as it is.
        ArtifactError: the folder holds something that may not be replaced.
    """
    folder = Path(folder)
    _check_free(folder, kind, overwrite)
    files: dict[str, bytes] = {}
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "library_version": valueflow.__version__,
        "metadata": _plain(metadata),
        "tensors_sha256": None,
    }
    if tensors:
        from safetensors.torch import save as to_bytes

        # Cloned: safetensors refuses tensors that share memory.
        stored = {k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}
        files[f"{kind}.safetensors"] = to_bytes(stored)
        document["tensors_sha256"] = _sha256(files[f"{kind}.safetensors"])
    document["sha256"] = _document_hash(document)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    files[f"{kind}.json"] = f"{text}\n".encode()
    _write(folder, files)


def load(folder: str | Path, kind: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors (on the CPU) and metadata of an artifact, every byte of them checked.

    Raises:
        ArtifactError: no such folder, another kind, a schema this version does not know, a file
            missing or damaged.
    """
    folder = Path(folder)
    path = folder / f"{kind}.json"
    document = _document(path, kind)
    if document.get("kind") != kind:
        raise ArtifactError(f"{path}: expected a {kind}, it is a {document.get('kind')!r}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema {document.get('schema_version')!r}, this version of valueflow "
            f"({valueflow.__version__}) reads schema {SCHEMA_VERSION}; it was written by "
            f"{document.get('library_version')!r}"
        )
    if document.pop("sha256", None) != _document_hash(document):
        raise ArtifactError(f"{path}: its content does not fit its hash; it was damaged or edited")
    expected = document["tensors_sha256"]
    tensors = {} if expected is None else _tensors(folder / f"{kind}.safetensors", expected)
    return tensors, document["metadata"]


def _tensors(path: Path, expected: str) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        content = path.read_bytes()
        if _sha256(content) != expected:
            raise ArtifactError(f"{path}: not the tensors it was saved with; copy the folder again")
        return from_bytes(content)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}; the artifact is incomplete") from None
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not readable as safetensors: {error}") from None


def _document(path: Path, kind: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        others = sorted(p.name for p in path.parent.glob("*.json"))
        holds = f"; the folder holds {', '.join(others)}" if others else ""
        raise ArtifactError(f"{path}: no {kind} there ({error.strerror}){holds}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}); copy the folder again") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: expected an object, got {type(document).__name__}")
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        back = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"metadata is no plain JSON: {error}") from None
    if back != metadata:
        raise InvalidInput("metadata is no plain JSON: use lists and string keys throughout")
    return back


def _check_free(folder: Path, kind: str, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; expected a folder to write the {kind} to")
    found = {path.name for path in folder.iterdir()}
    own = {f"{kind}.json", f"{kind}.safetensors"}
    if found and not (overwrite and found <= own):
        hint = "choose another folder" if found - own else "use overwrite=True"
        raise ArtifactError(f"{folder} exists and holds {', '.join(sorted(found))}: {hint}")


def write_file(path: Path, content: bytes) -> None:
    """Write one file, making its folder; it appears whole or not at all, and leaves nothing else.

    Raises OSError as writing does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Fill a folder beside the target, then put it in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    old = folder.with_name(f"{partial.name}-old")
    try:
        partial.mkdir()
        for name, content in files.items():
            (partial / name).write_bytes(content)
        # A folder that is not empty cannot be renamed over.
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder, old)
        os.replace(partial, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _document_hash(document: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
