"""The published files, where somebody has them: VALUEFLOW_DATA or a folder shared/data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from valueflow.theories import steered_values
from valueflow.vidb.importers import IMPORT_COLUMNS, IMPORTERS, valueeval

# About nine tenths of the rows that the published files gave; moral_stories names no value.
FLOORS = {
    "valueeval23": 18_500,
    "mfrc": 9_900,
    "social_chem_subset": 12_600,
    "moral_stories": 0,
    "ethics": 20_600,
    "moralchoice": 2_300,
    "valuebench": 860,
    "valuelens_synth": 460,
    "fulcra": 3_800,
    "anthropic_persona": 3_500,
}
WITHOUT_DIRECTION = {"valueeval23", "mfrc"}


def folder_of(name):
    """Where the corpus is, or the test is skipped."""
    roots = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents[3:5]]
    if os.environ.get("VALUEFLOW_DATA"):
        roots = [Path(os.environ["VALUEFLOW_DATA"])]
    for root in roots:
        if (root / name).is_dir():
            return root / name
    return pytest.skip(f"no copy of {name}; set VALUEFLOW_DATA")


def test_every_importer_has_a_floor():
    assert set(FLOORS) == set(IMPORTERS)


# The test run checks the types of every call, which takes a hundred times longer than the calls of
# a reader: the files are read in a process of its own, as a user reads them.
READ = """
import json, sys, time
from valueflow.vidb.importers import import_corpus
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    start = time.process_time()
    frame = import_corpus(name, folder)
    seconds = time.process_time() - start
    print(json.dumps([frame.values.tolist(), frame.attrs["left_out"], seconds]))
"""


def read_apart(*names_and_folders):
    """(rows as dicts, left out, seconds) of each corpus."""
    command = [sys.executable, "-c", READ, *map(str, names_and_folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [([dict(zip(IMPORT_COLUMNS, r, strict=True)) for r in rows], *o) for rows, *o in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOORS)
def test_published_files(name):
    folder = folder_of(name)
    before = sorted(folder.iterdir())
    ((rows, left_out, seconds),) = read_apart(name, folder)
    assert seconds < 6.0
    assert sorted(folder.iterdir()) == before
    assert len(rows) >= FLOORS[name]
    assert left_out
    assert {row["value"] for row in rows} <= {value.id for value in steered_values()}
    assert {row["licence"] for row in rows} <= {IMPORTERS[name].licence}
    assert len({(row["id"], row["value"]) for row in rows}) == len(rows)
    assert len({(row["context"], row["text"], row["value"]) for row in rows}) == len(rows)
    assert all(row["text"] and row["text"] == row["text"].strip() for row in rows)
    assert all(row["context"] is None or row["context"].strip() for row in rows)
    expected = {None} if name in WITHOUT_DIRECTION else {-1, 0, 1}
    assert {row["direction"] for row in rows} <= expected
    graded = [row for row in rows if row["grade"] is not None]
    assert all(-1 <= row["grade"] <= 1 for row in graded)
    assert all((r["grade"] > 0) - (r["grade"] < 0) == r["direction"] for r in graded)


@pytest.mark.slow
def test_valueeval_levels_agree(tmp_path):
    folder = folder_of("valueeval23")
    for stem in ("arguments", "level1-labels"):
        file = f"{stem}-validation.tsv"
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    one_file = folder / "arguments-validation.tsv"
    coarse, fine = read_apart("valueeval23", one_file, "valueeval23", tmp_path)
    assert fine[:2] == coarse[:2]
    assert len(fine[0]) > 4_000
    assert set(valueeval.FINE) == set(valueeval.CATEGORIES)
