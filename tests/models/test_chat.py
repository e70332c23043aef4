import jaxtyping
import jinja2
import pytest
import torch
from tiny import BOS, EOS, PAD, tiny_model, tiny_tokenizer

from valueflow.errors import InvalidInput, UnknownName
from valueflow.models import (
    answer_mask,
    encode,
    format_answered,
    format_prompts,
    template_hash,
)
from valueflow.models.chat import Answered, format_used

QUESTIONS = ["What now?", "How should one spend a free week?", "Why?"]
ANSWERS = ["I would rest.", "Go and see the hen in the garden.", "On and on."]

# The openings of real templates, each with its own trap.
TEMPLATES = {
    "no gap": "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "space before the answer": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}",
    "thinking": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% if enable_thinking is defined and "
    "enable_thinking is false %}[think]\n\n[/think]\n\n{% endif %}{% endif %}",
}


def with_template(template, **options):
    tokenizer = tiny_tokenizer(**options)
    tokenizer.chat_template = template
    return tokenizer


def pieces(tokenizer, answered, side):
    """What the mask marks, decoded, for each text."""
    ids = encode(tokenizer, [a.text for a in answered], padding_side=side)["input_ids"]
    mask = answer_mask(tokenizer, answered, padding_side=side)
    assert mask.shape == ids.shape
    return [tokenizer.decode(row[keep]) for row, keep in zip(ids, mask, strict=True)]


def test_auto_takes_the_models_own_format():
    plain, chat = tiny_tokenizer(), tiny_tokenizer(chat=True)
    assert format_prompts(plain, ["Why?"]) == ["Question: Why?\nAnswer:"]
    assert format_prompts(chat, ["Why?"]) == ["<s><|user|>\nWhy?<|end|>\n<|assistant|>\n"]
    assert format_prompts(chat, ["Why?"], template="plain") == format_prompts(plain, ["Why?"])
    with pytest.raises(InvalidInput, match="no chat template"):
        format_prompts(plain, ["Why?"], template="chat")


def test_a_default_system_prompt_of_the_template_is_kept_unless_one_is_given():
    default = "{% if messages[0]['role'] != 'system' %}<|system|>Be tiny.{% endif %}"
    tokenizer = with_template(default + TEMPLATES["no gap"])
    assert "Be tiny." in format_prompts(tokenizer, ["Why?"])[0]
    (text,) = format_prompts(tokenizer, ["Why?"], system="Be kind.")
    assert "Be kind." in text
    assert "Be tiny." not in text


@pytest.mark.parametrize("refusal", ["raise", "ignore"])
def test_a_system_prompt_reaches_a_model_without_a_system_role(refusal):
    loop = {
        "raise": "{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}",
        "ignore": "",
    }[refusal]
    body = "{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}{% endif %}"
    tokenizer = with_template("{% for m in messages %}" + loop + body + "{% endfor %}")
    assert format_prompts(tokenizer, ["Why?"], system="Be kind.") == ["<|user|>Be kind.\n\nWhy?"]


def test_a_broken_template_is_not_hidden():
    with pytest.raises(jinja2.TemplateError, match="never"):
        format_prompts(with_template("{{ raise_exception('never') }}"), ["Why?"])


def test_thinking_is_off_and_dates_are_fixed():
    assert "[/think]" in format_prompts(with_template(TEMPLATES["thinking"]), ["Why?"])[0]
    dated = with_template("{{ strftime_now('%d %b %Y') }}")
    assert format_prompts(dated, ["Why?"]) == ["26 Jul 2024"]


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("bos", [True, False])
def test_exactly_one_bos_if_the_tokenizer_uses_one(bos, chat):
    # The chat template writes BOS itself, whether or not the tokenizer would.
    tokenizer = tiny_tokenizer(bos=bos, chat=chat)
    encoded = encode(tokenizer, format_prompts(tokenizer, QUESTIONS))
    for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True):
        row = ids[mask.bool()].tolist()
        assert row.count(BOS) == int(bos or chat)
        assert (row[0] == BOS) == (bos or chat)
        assert EOS not in row


def test_an_appended_eos_is_left_out():
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    assert tokenizer("the")["input_ids"][-1] == EOS
    assert encode(tokenizer, ["the"])["input_ids"].tolist() == [
        [BOS, tokenizer.convert_tokens_to_ids("the")]
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_on_the_side_asked_for(side):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right" if side == "left" else "left"
    short, long = encode(tokenizer, ["the", "the garden"], padding_side=side)["input_ids"].tolist()
    assert PAD not in long
    n = len(long) - 2
    assert short == ([PAD] * n + short[-2:] if side == "left" else short[:2] + [PAD] * n)
    mask = encode(tokenizer, ["the", "the garden"], padding_side=side)["attention_mask"]
    assert mask.sum(1).tolist() == [2, len(long)]


def test_padding_falls_back_on_eos_and_refuses_without():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    assert encode(tokenizer, ["the", "the garden"])["input_ids"][0, 0] == EOS
    tokenizer.eos_token = None
    with pytest.raises(InvalidInput, match="pad or EOS"):
        encode(tokenizer, ["the", "the garden"])
    with pytest.raises(InvalidInput, match="expected texts"):
        encode(tokenizer, [])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("template", [None, *TEMPLATES.values()])
@pytest.mark.parametrize("bos", [True, False])
def test_the_mask_is_the_answer_and_nothing_else(template, side, bos):
    tokenizer = with_template(template, bos=bos)
    answered = format_answered(tokenizer, QUESTIONS, ANSWERS)
    assert [a.text[a.start :] for a in answered] == ANSWERS
    found = pieces(tokenizer, answered, side)
    # A token may bring the space before the first word; no other character of the format.
    assert [piece.removeprefix(" ") for piece in found] == ANSWERS


@pytest.mark.parametrize("template", [None, *TEMPLATES.values()])
def test_a_slow_tokenizer_gives_the_same_mask(template, monkeypatch):
    tokenizer = with_template(template)
    answered = format_answered(tokenizer, QUESTIONS, ANSWERS)
    fast = answer_mask(tokenizer, answered)
    call = type(tokenizer).__call__

    def without_offsets(self, *args, return_offsets_mapping=False, **kwargs):
        if return_offsets_mapping:
            raise NotImplementedError("a slow tokenizer has no offsets")
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", without_offsets)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    assert torch.equal(answer_mask(tokenizer, answered), fast)


def test_a_token_across_the_border_belongs_to_the_answer_but_a_special_one_does_not():
    tokenizer = tiny_tokenizer()
    text = "<s>a the</s>"
    # The answer starts in the middle of the token "the".
    mask = answer_mask(tokenizer, [Answered(text, text.index("he"))])
    tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, [text])["input_ids"][0].tolist())
    assert [t for t, keep in zip(tokens, mask[0].tolist(), strict=True) if keep] == ["the"]
    assert tokens[-1] == "</s>"


def test_answers_follow_the_format_as_the_model_would_write_them():
    plain = format_answered(tiny_tokenizer(), ["Why?"], [" So. \n"])
    assert plain == [Answered("Question: Why?\nAnswer: So.", 23)]
    (spaced,) = format_answered(
        with_template(TEMPLATES["space before the answer"]), ["Why?"], ["So."]
    )
    assert spaced.text == "<s>[INST] Why? [/INST] So."
    (thinking,) = format_answered(with_template(TEMPLATES["thinking"]), ["Why?"], ["So."])
    assert thinking.text.endswith("[think]\n\n[/think]\n\nSo.")


def test_answers_that_do_not_fit_are_refused():
    tokenizer = tiny_tokenizer()
    with pytest.raises(InvalidInput, match="2 questions but 1 answers"):
        format_answered(tokenizer, ["a", "b"], ["c"])
    with pytest.raises(InvalidInput, match="answer 1 is empty"):
        format_answered(tokenizer, ["a", "b"], ["c", " \n"])


def test_the_template_hash_follows_the_format():
    hashes = {template_hash(with_template(t)) for t in [None, *TEMPLATES.values()]}
    assert len(hashes) == 1 + len(TEMPLATES)
    assert template_hash(tiny_tokenizer(chat=True)) == template_hash(tiny_tokenizer(chat=True))


def test_a_batch_gives_the_logits_of_each_text_alone():
    tokenizer, model = tiny_tokenizer(chat=True), tiny_model("llama")
    texts = format_prompts(tokenizer, QUESTIONS)
    with torch.no_grad():
        together = model(**encode(tokenizer, texts, padding_side="right")).logits
        for i, text in enumerate(texts):
            alone = model(**encode(tokenizer, [text])).logits[0]
            torch.testing.assert_close(together[i, : len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("chat", "template", "used"),
    [
        (True, "auto", "chat"),
        (True, "chat", "chat"),
        (True, "plain", "plain"),
        (False, "auto", "plain"),
        (False, "plain", "plain"),
    ],
)
def test_the_format_used_is_the_one_that_prompts_get(chat, template, used):
    tokenizer = tiny_tokenizer(chat=chat)
    assert format_used(tokenizer, template) == used
    assert format_prompts(tokenizer, ["Why?"], template=template) == format_prompts(
        tokenizer, ["Why?"], template=used
    )


@pytest.fixture
def unchecked_types(monkeypatch):
    """As for a user, who has no type checker at run time."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("chat", [False, True])
def test_a_misspelt_template_is_refused_not_taken_for_auto(chat):
    tokenizer = tiny_tokenizer(chat=chat)
    for misspelt, meant in (("Plain", "plain"), ("chatt", "chat"), ("plian", "plain")):
        for run in (
            lambda name: format_used(tokenizer, name),
            lambda name: format_prompts(tokenizer, ["Hi"], template=name),
            lambda name: format_answered(tokenizer, ["Hi"], ["Yes."], template=name),
        ):
            with pytest.raises(UnknownName, match=f"template '{misspelt}': did you mean {meant}"):
                run(misspelt)
    with pytest.raises(UnknownName, match="template 'None': known: auto, chat, plain"):
        format_used(tokenizer, None)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("template", ["plain", "chat"])
def test_one_string_is_no_list_of_prompts(template):
    tokenizer = tiny_tokenizer(chat=True)
    with pytest.raises(InvalidInput, match=r"a list of prompts, got one string: write \['Who\?'"):
        format_prompts(tokenizer, "Who?", template=template)
    with pytest.raises(InvalidInput, match="a list of questions, got one string"):
        format_answered(tokenizer, "Who?", ["I", "am", "a", "hen"], template=template)
    with pytest.raises(InvalidInput, match="a list of answers, got one string"):
        format_answered(tokenizer, ["Why?"], "B", template=template)
    with pytest.raises(InvalidInput, match="a list of texts, got one string"):
        encode(tokenizer, "Who?")
    with pytest.raises(InvalidInput, match="a list of prompts, got None"):
        format_prompts(tokenizer, None, template=template)
    assert len(format_prompts(tokenizer, ("Who?", "Why?"), template=template)) == 2


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("template", ["plain", "chat"])
def test_a_prompt_that_is_no_text_is_named(template):
    tokenizer = tiny_tokenizer(chat=True)
    with pytest.raises(InvalidInput, match=r"prompts, all strings; number 1 .* is None"):
        format_prompts(tokenizer, ["Who?", None], template=template)
    with pytest.raises(InvalidInput, match=r"answers, all strings; number 0 .* is 3"):
        format_answered(tokenizer, ["Why?"], [3], template=template)
