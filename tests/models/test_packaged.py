import re
from pathlib import Path

import pytest

from valueflow.errors import UnknownName
from valueflow.models import fetch, find_packaged, home, is_fetched, list_packaged


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VALUEFLOW_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.setenv("VALUEFLOW_HOME", "~/somewhere")
    assert home() == Path.home() / "somewhere"
    monkeypatch.delenv("VALUEFLOW_HOME")
    assert home().name == "valueflow"


def test_unknown_names_come_with_near_misses():
    with pytest.raises(UnknownName, match="did you mean smollm2-135m-instruct"):
        fetch("smollm-135m-instruct")
    with pytest.raises(UnknownName):
        is_fetched("nothing")


@pytest.mark.parametrize("name", [p.name for p in list_packaged()])
def test_every_entry_of_the_table_pins_what_it_names(name):
    entry = find_packaged(name)
    assert entry.name == name == name.lower()
    assert entry.hub_id.count("/") == 1
    assert entry.stored_bytes > 0
    assert len({a.sha256 for a in entry.archives}) == len(entry.archives)
    for archive in entry.archives:
        package, version = re.fullmatch(r"([a-z0-9-]+)==([\d.]+)", archive.requirement).groups()
        assert archive.filename.startswith(f"{package.replace('-', '_')}-{version}-py3-none-any")
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert ".." not in archive.member
    assert (entry.sha256 is None) == (entry.content == "folder")
    assert (entry.content == "gguf") == (entry.kind == "causal-lm")
    # Parts are joined in the order of the table.
    numbers = [[int(n) for n in re.findall(r"\d+", a.member)] for a in entry.archives]
    assert numbers == sorted(numbers)


def test_the_terms_of_gemma_are_named():
    assert "Gemma Terms of Use" in find_packaged("gemma-3-270m").note
