"""Files that are damaged, hostile or of another kind are refused by file and line."""

import os
import time
import tracemalloc

import pytest

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.reading import (
    LINE_LIMIT,
    delimited,
    find_file,
    find_files,
    json_lines,
    known_label,
    records,
    seen_once,
    text_in,
)


@pytest.fixture
def write(tmp_path):
    def _write(content, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def refused(path, pattern, columns=("id", "text"), **options):
    with pytest.raises(InvalidInput, match=pattern) as caught:
        list(delimited(path, columns, **options))
    assert str(path) in str(caught.value)


def test_a_record_is_named_by_its_first_line(write):
    path = write('id,text\n1,"two\nlines"\n\n2,one\n')
    found = list(delimited(path, ("text",)))
    assert found == [(f"{path}:2", {"text": "two\nlines"}), (f"{path}:5", {"text": "one"})]


def test_byte_order_mark_and_windows_line_ends_are_read(write):
    path = write(b"\xef\xbb\xbfid,text\r\n1,one\r\n")
    assert [row for _, row in delimited(path, ("id", "text"))] == [{"id": "1", "text": "one"}]


def test_quotes_are_characters_where_nothing_is_quoted(write):
    path = write('id\ttext\n1\t"open\n2\tshut"\n', "file.tsv")
    rows = delimited(path, ("text",), delimiter="\t", quoted=False)
    assert [row["text"] for _, row in rows] == ['"open', 'shut"']


def test_missing_column_names_the_near_miss(write):
    refused(write("id,Text\n1,one\n"), r":1: column 'text' is missing.*did you mean Text\?")


def test_column_there_twice_is_refused(write):
    refused(write("id,text,text\n1,a,b\n"), "'text' is there twice")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file_is_refused(write, content):
    refused(write(content), "'id' is missing, the header has nothing")


def test_header_alone_is_refused(write):
    refused(write("id,text\n"), ":2: no record below the header")


def test_record_of_another_length_is_refused(write):
    refused(write("id,text\n1,one\n2,two,three\n"), ":3: expected 2 cells .* got 3")


def test_quote_that_is_never_closed_is_refused(write):
    refused(write('id,text\n1,"one\n2,two\n'), ":2: cannot be split into cells .*is a quote")


def test_quote_open_over_many_lines_stops_before_the_end(write):
    path = write('id,text\n1,"' + "a line\n" * 3_000_000)
    start = time.process_time()
    refused(path, ":2: cannot be split")
    assert time.process_time() - start < 1.0


def test_carriage_returns_alone_are_refused(write):
    refused(write("id,text\r1,one\r2,two\r"), ":1: cannot be split")


def test_bytes_that_are_not_utf8_are_named_by_their_place_in_the_file(write):
    # 8 bytes of header, then "1,caf" are bytes 8 to 12.
    refused(write(b"id,text\n1,caf\xe9\n"), ":2: not UTF-8 at byte 5 of the line")


def test_utf16_is_refused_at_byte_0(write):
    refused(write("id,text\n".encode("utf-16")), ":1: not UTF-8 at byte 0 ")


@pytest.mark.parametrize("reader", [lambda p: records(p), json_lines])
def test_a_line_of_100_mb_is_refused_without_reading_it_whole(write, reader):
    path = write('{"id": "1"}\n')
    with path.open("ab") as file:
        file.truncate(100_000_000)
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(InvalidInput, match=":2: line longer than 10 MB"):
        list(reader(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * LINE_LIMIT
    assert time.process_time() - start < 3.0


def test_header_of_a_million_cells_is_refused_quickly(write):
    start = time.process_time()
    refused(write(",".join(f"textt{i}" for i in range(800_000)) + "\n"), "'id' is missing")
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("{", ":2: not JSON"),
        ("[1]", ":2: expected a JSON object, got list"),
        ('{"a": NaN}', ":2: not JSON .NaN"),
        ('{"a": -Infinity}', ":2: not JSON .-Infinity"),
        ("[" * 200_000, ":2: not JSON"),
    ],
)
def test_lines_that_are_no_json_object_are_refused(write, line, pattern):
    with pytest.raises(InvalidInput, match=pattern):
        list(json_lines(write('{"a": 1}\n' + line + "\n")))


def test_only_a_newline_ends_a_json_line(write):
    path = write('{"a": "x\u2028y"}\n\n{"a": "z"}')
    assert list(json_lines(path)) == [(f"{path}:1", {"a": "x\u2028y"}), (f"{path}:3", {"a": "z"})]


def test_empty_json_lines_are_refused(write):
    with pytest.raises(InvalidInput, match=":1: the file is empty"):
        list(json_lines(write("\n \n")))


@pytest.mark.parametrize("cell", ["", " \t", "nan", "NaN", "<NA>", None, 3, float("nan"), ["a"]])
def test_text_that_is_none_is_refused(cell):
    with pytest.raises(InvalidInput, match="f:3: 'text' must be text that is not empty"):
        text_in("f:3", {"text": cell}, "text")


def test_text_loses_only_the_white_space_at_its_ends():
    assert text_in("f:3", {"text": " Nan said  so\n"}, "text") == "Nan said  so"


def test_unknown_label_names_near_misses_or_what_is_known():
    with pytest.raises(InvalidInput, match="f:3: 'x' is 'favour', expected 'favor'; mend"):
        known_label("f:3", "x", "favour", ("favor", "against"))
    with pytest.raises(InvalidInput, match="'x' is 1, expected '0', '1'"):
        known_label("f:3", "x", 1, ("1", "0"))


def test_an_id_there_twice_names_both_places():
    once = seen_once("ID")
    assert once("f:2", "a") == "a"
    with pytest.raises(InvalidInput, match="f:9: ID 'a' is in f:2 already"):
        once("f:9", "a")


def test_files_are_found_by_pattern(tmp_path):
    for name in ("b.csv", "a.csv", "c.tsv"):
        (tmp_path / name).touch()
    assert [file.name for file in find_files(tmp_path, "*.csv")] == ["a.csv", "b.csv"]
    assert find_file(tmp_path, "*.tsv") == find_file(tmp_path / "c.tsv", "*.csv")
    with pytest.raises(InvalidInput, match="expected one .*found a.csv, b.csv"):
        find_file(tmp_path, "*.csv")
    with pytest.raises(InvalidInput, match="no file \\*.json in it"):
        find_file(tmp_path, "*.json")
    with pytest.raises(InvalidInput, match="nowhere: does not exist; give a folder with"):
        find_file(tmp_path / "nowhere", "*.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="is no file or folder"):
        find_file(tmp_path / "pipe", "*.csv")
