import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import spearmanr

from valueflow.errors import InvalidInput
from valueflow.study import dose_figure, results, write_report

KEYS = set(
    [
        "model",
        "value",
        "layer",
        "coefficients",
        "intensity",
        "intensity_ci",
        "damage_nll",
        "placebo_intensity",
        "spearman",
        "usable_range",
        "targets",
        "mae",
        "prompts_calibration",
        "prompts_verification",
        "seconds",
        "shuffled_intensity",
        "placebo_coefficients",
        "span",
        "span_ratio_random",
        "span_ratio_shuffled",
        "second_judge",
        "judge",
        "seed",
        "n_prompts",
    ]
)
FILES = ["dose.png", "report.html", "results.json"]
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7 * 7 }} & "quoted"'


def made(calibration, verified, **changed):
    given = {
        "value": "svt/power",
        "seconds": 61.5,
        "n_verification": 20,
        "second_judge": "prototype",
        "vidb_fingerprint": "beef",
    }
    return results(calibration, verified, **(given | changed))


@pytest.fixture(scope="module")
def data(calibration, verified):
    return made(calibration, verified)


@pytest.fixture(scope="module")
def figure(calibration, verified):
    return dose_figure(calibration, verified)


def shown(text="an answer", prompt="What now?"):
    answer = {"status": "ok", "nearest": 0.0, "coefficient": 0.1, "text": text}
    answers = [answer | {"target": target} for target in (-4.0, 0.0, 4.0)]
    return [{"prompt": prompt, "answers": answers}]


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


def test_keys_and_plain_facts(data):
    assert set(data) >= KEYS
    assert (data["model"], data["value"], data["layer"]) == ("tiny/llama", "svt/power", 9)
    assert (data["judge"], data["seed"], data["n_prompts"]) == ("hives", 3, 32)
    assert data["seconds"] == 61.5
    assert (data["prompts_calibration"], data["prompts_verification"]) == (12, 20)
    assert data["fingerprints"]["panel"] == "f00d" and data["fingerprints"]["vidb"] == "beef"


def test_numbers_equal_numpy(data, calibration):
    own = calibration.arms["vector"]
    assert data["coefficients"] == list(own.coefficients)
    assert data["intensity"] == pytest.approx(own.intensities.mean(axis=1))
    assert data["damage_nll"] == pytest.approx(own.damage.mean(axis=1))
    np.testing.assert_allclose(data["intensity_ci"], calibration.curve.ci_)
    random, shuffled = calibration.arms["random"], calibration.arms["shuffled"]
    assert data["placebo_coefficients"] == list(random.coefficients)
    assert data["placebo_intensity"] == pytest.approx(random.intensities.mean(axis=1))
    assert data["shuffled_intensity"] == pytest.approx(shuffled.intensities.mean(axis=1))
    low, high = data["usable_range"]
    inside = [i for i, c in enumerate(own.coefficients) if low <= c <= high]
    c, y = np.array(own.coefficients)[inside], own.intensities.mean(axis=1)[inside]
    assert data["spearman"] == pytest.approx(spearmanr(c, y)[0])
    near = np.array([i for i, c in enumerate(random.coefficients) if low <= c <= high])
    slope = np.polyfit(c, y, 1)[0]
    theirs = np.array(random.coefficients)[near], random.intensities.mean(axis=1)[near]
    expected = abs(slope / np.polyfit(*theirs, 1)[0])
    assert data["span_ratio_random"] == pytest.approx(expected)


def test_targets_and_their_error(data, verified):
    keys = {"target", "coefficient", "achieved", "ci", "status", "damage", "degenerate"}
    assert all(set(row) >= keys for row in data["targets"])
    assert [row["target"] for row in data["targets"]] == [-6, -4, -2, 0, 2, 4, 6]
    errors = [abs(r.target - r.achieved) for r in verified if r.status == "ok"]
    assert 0 < len(errors) < len(verified)
    assert data["mae"] == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize(("sign", "same"), [(1, True), (-1, False)])
def test_second_judge_confirms_or_contradicts(calibration, verified, sign, same):
    own = calibration.arms["vector"]
    turned = replace(own, second=tuple(sign * s for s in own.second))
    arms = {**calibration.arms, "vector": turned}
    second = made(replace(calibration, arms=arms), verified)["second_judge"]
    assert second["name"] == "prototype" and second["same_sign"] is same
    assert second["spearman"] == pytest.approx(sign)
    assert second["intensity"] == list(turned.second)


def test_what_is_missing_is_null_and_json_is_strict(calibration, verified):
    own = calibration.arms["vector"]
    damage = own.damage.copy()
    damage[0] = np.nan
    lost = replace(own, damage=damage, second=None)
    rows = [replace(verified[0], damage=float("nan"), status="unreachable")]
    data = made(replace(calibration, arms={"vector": lost}), rows)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["damage_nll"][0] is None and data["damage_nll"][1] is not None
    assert data["targets"][0]["damage"] is None and data["mae"] is None
    absent = ["placebo_intensity", "shuffled_intensity", "span_ratio_random", "second_judge"]
    assert [data[key] for key in absent] == [None] * 4


def test_a_coefficient_the_curve_dropped_keeps_its_place(calibration, verified):
    own = calibration.arms["vector"]
    intensities = own.intensities.copy()
    intensities[-1] = np.nan
    curve = type(calibration.curve)("pchip", n_bootstrap=20, seed=0)
    curve.fit(list(own.coefficients), intensities, damage=own.damage)
    arms = {"vector": replace(own, intensities=intensities)}
    data = made(replace(calibration, arms=arms, curve=curve), verified)
    assert data["intensity"][-1] is None and data["intensity_ci"][-1] == [None, None]
    np.testing.assert_allclose(data["intensity_ci"][:-1], curve.ci_)


def test_report_files(tmp_path, data, figure):
    write_report(tmp_path / "new" / "study", data, figure, shown())
    folder = tmp_path / "new" / "study"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == data
    assert (folder / "dose.png").read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "−4.0−4.3−5.0 to −3.6" in re.sub(r"\s*\n\s*", "", page.text)
    assert "unreachable, nearest" in page.text and "None" not in page.text


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
