"""The page of a release: which cards share a table, and how their numbers are written."""

from pathlib import Path

import pytest
import tiny
import torch

from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card, load_card
from valueflow.dose.sweep import Decoding
from valueflow.models.chat import template_hash
from valueflow.steering.vector import SteeringVector
from valueflow.study.release_table import HEAD, release_page, release_rows

SHIPPED = Path(__file__).parents[2] / "vectors"
WITH_TEMPLATE, WITHOUT = (template_hash(tiny.tiny_tokenizer(chat=chat)) for chat in (True, False))

CHAT = Decoding(max_new_tokens=6, template="chat")


def card(value="svt/power", *, seed=0, widest=0.4, decoding=CHAT, **model):
    """A straight line from -4 to 4 over coefficients up to the widest."""
    vector = SteeringVector(value, {1: torch.tensor([1.0, 0.0])}, {1: 8.0}, {})
    steps = [-1.0, -0.5, 0.0, 0.5, 1.0]
    curve = DoseCurve(n_bootstrap=20, seed=0).fit(
        [widest * step for step in steps],
        [[4 * step + noise for noise in (-0.1, 0, 0.1)] for step in steps],
    )
    provenance = {
        "judge": "hives",
        "judge_fingerprint": "aa",
        "prompts": ["Why?", "How?"],
        "seed": seed,
        "model": {"name": "tiny", "model": "bb"} | model,
        "plan": {"n_verification": 3},
    }
    return Card(vector, curve, decoding, provenance)


def test_cards_made_in_one_way_share_a_table():
    page = release_page({"tiny": [card("svt/face"), card("svt/power")]})
    head, _, rest = page.removeprefix(HEAD).partition("\n\n| value |")
    assert head == (
        "\n## tiny\n\nJudge hives (aa), 2 calibration and 3 verification prompts (format chat), "
        "6 tokens, seed 0, model bb."
    )
    assert [line.split(" |")[0] for line in rest.splitlines()[2:]] == ["| svt/face", "| svt/power"]
    assert page.endswith(" |\n")


def test_cards_of_another_seed_have_a_table_of_their_own():
    first, second, third = card("svt/face"), card("svt/hedonism", seed=7), card("svt/power")
    page = release_page({"tiny": [first, second, third]})
    assert page.count("## tiny") == 1 and page.count("| value |") == 2
    before, after = page.split("seed 7")
    assert "seed 0" in before and "| svt/face |" in before and "| svt/power |" in before
    assert "svt/hedonism" not in before and "| svt/hedonism |" in after
    alone = [release_page({"tiny": own}) for own in ([first, third], [second])]
    assert page == alone[0] + alone[1].removeprefix(HEAD + "\n## tiny\n")


@pytest.mark.parametrize(
    ("template", "model", "shown"),
    [
        ("auto", {"chat_template": WITH_TEMPLATE}, "chat"),
        ("auto", {"chat_template": WITHOUT}, "plain"),
        ("auto", {}, "auto"),
        ("plain", {"chat_template": WITH_TEMPLATE}, "plain"),
    ],
)
def test_the_format_is_named_where_the_card_tells_it(template, model, shown):
    assert f"(format {shown})" in release_page(
        {"tiny": [card(decoding=Decoding(template=template), **model)]}
    )


def test_small_coefficients_have_a_digit_more():
    narrow, wide = release_rows([card(widest=0.048), card(widest=0.4)])
    assert narrow["coefficients"] == "-0.048 to +0.048"
    assert wide["coefficients"] == "-0.40 to +0.40"


def test_the_shipped_page_is_that_of_the_shipped_cards():
    cards = {}
    for path in sorted(SHIPPED.glob("*/*/card/calibration.json")):
        cards.setdefault(path.parents[2].name, []).append(load_card(path.parents[1]))
    assert cards
    assert release_page(cards) == (SHIPPED / "README.md").read_text(encoding="utf-8")
