"""A model shop for tests: wheels made in memory, a table that lists them, a fake download."""

import hashlib
import io
import shutil
import zipfile
from pathlib import Path

from valueflow.models import packaged, sources
from valueflow.models.packaged import Archive, Packaged

FILES = {
    "config.json": b'{"a": 1}',
    "1_Pooling/config.json": b"{}",
    "model.safetensors": b"w" * 999,
}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def wheel(name: str, files: dict[str, bytes]) -> bytes:
    """A wheel that pip accepts; it wants a dependency that does not exist."""
    info = f"{name}-1.0.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-thing-x\n"
    )
    tag = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    extra = {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tag.encode()}
    return zipped(files | extra | {f"{info}/RECORD": b""})


class Shop:
    """Fake packages on a shelf, a table of them, and a download that takes from the shelf."""

    def __init__(self, tmp_path, monkeypatch):
        self.shelf = tmp_path / "shelf"
        self.shelf.mkdir()
        self.cache = tmp_path / "home"
        self.downloads = 0
        self.table = {}
        monkeypatch.setenv("VALUEFLOW_HOME", str(self.cache))
        monkeypatch.setattr(packaged, "table", lambda: self.table)
        monkeypatch.setattr(sources, "_download", self.download)

    def download(self, requirements, folder):
        self.downloads += 1
        for requirement in requirements:
            name = requirement.partition("==")[0]
            shutil.copy(self.shelf / f"{name}-1.0-py3-none-any.whl", folder)

    def stock(self, name, wheels, content, joined=None):
        """Put wheels {package: (bytes, member)} on the shelf and a model of them in the table."""
        rows = []
        for package, (data, member) in wheels.items():
            filename = f"{package}-1.0-py3-none-any.whl"
            (self.shelf / filename).write_bytes(data)
            rows.append(Archive(f"{package}==1.0", filename, sha(data), member))
        self.table[name] = Packaged(
            name=name,
            kind="encoder",
            hub_id=f"owner/{name}",
            licence="MIT",
            content=content,
            archives=tuple(rows),
            sha256=None if joined is None else sha(joined),
            dtype="float32",
            tied=False,
            download_bytes=2000,
            stored_bytes=2000,
            note="Made up.",
        )

    def folder_model(self, name="plain", **extra):
        files = {f"pkg/model/{k}": v for k, v in (FILES | extra).items()}
        data = wheel("pkg", files | {"pkg/__init__.py": b"raise SystemExit('code was run')"})
        self.stock(name, {"pkg": (data, "pkg/model")}, "folder")

    def split_model(self, name="split", files=None):
        inner = zipped({f"top/{k}": v for k, v in (files or FILES).items()})
        parts = {"p1": inner[:400], "p2": inner[400:900], "p3": inner[900:]}
        wheels = {p: (wheel(p, {f"{p}/x.zip": d}), f"{p}/x.zip") for p, d in parts.items()}
        self.stock(name, wheels, "zip", joined=inner)

    def untouched(self):
        """Nothing but lock files lies in the cache."""
        models = self.cache / "models"
        return not models.exists() or all(p.name.endswith(".lock") for p in models.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if name != "valueflow.json"}
