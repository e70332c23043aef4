"""`write_report`: the files, and what a reader finds on the page."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from study_cases import made, shown

from valueflow.errors import InvalidInput
from valueflow.study import dose_figure, write_report

FILES = ["dose.png", "report.html", "results.json"]
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} & "quoted"'


class Page(HTMLParser):
    """Every tag with its attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_report_files(tmp_path, data, figure):
    write_report(tmp_path / "new" / "study", data, figure, shown())
    folder = tmp_path / "new" / "study"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == data
    assert (folder / "dose.png").read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "−4.0−4.3−5.0 to −3.6" in re.sub(r"\s*\n\s*", "", page.text)
    assert "unreachable, nearest" in page.text and "None" not in page.text


def table(text, heading):
    """Cells of the body rows below a heading."""
    part = text.split(f"<h2>{heading}</h2>")[1].split("</table>")[0].split("</thead>")[1]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in part.split("</tr>")]
    return [row for row in rows if row]


def page_of(folder, data, figure):
    write_report(folder, data, figure, shown())
    return (folder / "report.html").read_text(encoding="utf-8")


def plain(cells):
    return [float(cell.replace("−", "-")) for cell in cells]


def test_tables_hold_the_vector_and_every_draw(tmp_path, data, figure):
    text = page_of(tmp_path, data, figure)
    own = table(text, "The vector")
    assert plain(row[0] for row in own) == data["coefficients"]
    np.testing.assert_allclose(plain(row[1] for row in own), data["intensity"], atol=0.051)
    for row, (low, high) in zip(own, data["intensity_ci"], strict=True):
        np.testing.assert_allclose(plain(row[2].split(" to ")), [low, high], atol=0.051)
    np.testing.assert_allclose(plain(row[3] for row in own), data["damage_nll"], atol=0.0051)
    rows = table(text, "Placebos")
    assert [row[0] for row in rows[:4]] == ["random directions"] * 4
    assert [row[0] for row in rows[5:8]] == ["label-shuffled"] * 3 and len(rows) == 9
    for kind, part, mean in (("random", rows[:4], rows[4]), ("shuffled", rows[5:8], rows[8])):
        draws = zip(part, data["arms"][kind], data["changes"][kind], strict=True)
        for i, (row, arm, change) in enumerate(draws, start=1):
            assert int(row[1]) == i
            np.testing.assert_allclose(plain(row[2:6]), [*arm["intensity"], change], atol=0.051)
            ends = [arm["damage_nll"][0], arm["damage_nll"][2]]
            np.testing.assert_allclose(plain(row[6:]), ends, atol=0.0051)
        assert f"{data[f'span_ratio_{kind}']:.1f} times" in mean[0]
        assert mean[1] == f"{data['placebo_change'][kind]:.1f}"


def test_a_page_without_placebos_does_not_speak_of_them(tmp_path, calibration, verified, figure):
    text = page_of(tmp_path, made(replace(calibration, placebos={}), verified), figure)
    assert len(table(text, "The vector")) == 9
    assert not re.search("placebo|random|shuffled|None", re.sub('base64,[^"]*', "", text))


def test_a_range_that_ends_at_zero_has_placebos_at_two_points(
    tmp_path, calibration, verified, figure
):
    def upper(arm):
        return replace(
            arm,
            coefficients=arm.coefficients[1:],
            intensities=arm.intensities[1:],
            damage=arm.damage[1:],
        )

    halved = {kind: tuple(map(upper, draws)) for kind, draws in calibration.placebos.items()}
    data = made(replace(calibration, placebos=halved), verified)
    rows = table(page_of(tmp_path, data, figure), "Placebos")
    arm, change = data["arms"]["random"][0], data["changes"]["random"][0]
    expected = [1, *arm["intensity"], change, arm["damage_nll"][1]]
    np.testing.assert_allclose(plain(rows[0][1:]), expected, atol=0.051)


def test_page_needs_nothing_from_outside(tmp_path, data, figure):
    write_report(tmp_path, data, figure, shown())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = [v for _, a in Page(text).tags for k, v in a.items() if k in ("src", "href")]
    assert len(links) == 1 and links[0].startswith("data:image/png;base64,")
    assert "url(" not in text and "@import" not in text and "http://" not in text


def test_model_text_cannot_become_markup(tmp_path, data, figure):
    hostile = shown(HOSTILE, prompt=HOSTILE)
    changed = data | {"model": HOSTILE, "judge": HOSTILE}
    write_report(tmp_path, changed, figure, hostile)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert page.text.count(HOSTILE) == 7


@pytest.mark.parametrize("fault", ["template", "json"])
def test_a_failure_leaves_the_older_report(tmp_path, data, figure, fault):
    broken = dict(data)
    if fault == "template":
        del broken["usable_range"]
    else:
        broken["mae"] = float("nan")
    expected = InvalidInput if fault == "json" else Exception
    with pytest.raises(expected):
        write_report(tmp_path / "fresh", broken, figure, shown())
    assert not (tmp_path / "fresh").exists()
    write_report(tmp_path / "old", data, figure, shown("before"))
    before = {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()}
    with pytest.raises(expected):
        write_report(tmp_path / "old", broken, figure, shown("after"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()} == before


def test_a_full_disk_leaves_no_partial_file(tmp_path, data, figure, monkeypatch):
    from pathlib import Path

    write_report(tmp_path, data, figure, shown("before"))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(self, content):
        write(self, content[:10])
        if "report" in self.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, data, figure, shown("after"))
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_equal_results_give_equal_files(tmp_path, calibration, verified, data):
    for name in ("a", "b"):
        write_report(tmp_path / name, data, dose_figure(calibration, verified), shown())
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
