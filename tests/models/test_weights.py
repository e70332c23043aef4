"""The packaged models themselves, against numbers of llama.cpp and of the hub."""

import json
import time

import pytest
import torch

from valueflow.models import (
    answer_mask,
    decoder_blocks,
    encode,
    fetch,
    fingerprint,
    format_answered,
    format_prompts,
    is_fetched,
    load,
    load_encoder,
)

pytestmark = pytest.mark.weights


def needs(name):
    if not is_fetched(name):
        pytest.skip(f"{name} is not in the cache: fetch it with `make models`")
    return name


@pytest.fixture(scope="module")
def smollm():
    return load(needs("smollm2-135m-instruct"))


@pytest.fixture(scope="module")
def gemma():
    return load(needs("gemma-3-270m"), dtype=torch.float32)


@pytest.fixture(scope="module")
def qwen():
    return load(needs("qwen2.5-coder-1.5b-instruct"))


TEXT = "Hello,   world 12  34\t\tTabs\n  indented 7"
ROME = "Give me 3 tips for a good  2 day trip to Rome."
# Token ids of TEXT, and log probabilities of the first new token, as llama.cpp 11549 gives them for
# the same GGUF files with the weights dequantised to fp32 (its 4-bit products round by about 0.1).
LLAMA_CPP = {
    "smollm": (
        [19556, 28, 256, 905, 216, 33, 34, 256, 35, 36, 197, 197, 68, 7366, 3805, 641, 6574, 216]
        + [39],
        {33: -0.6110867, 4590: -2.9326389, 46292: -2.9794376, 34355: -3.2690532, 2427: -3.3869314},
    ),
    "gemma": (
        [2, 9259, 236764, 139, 12392, 236743, 236770, 236778, 138, 236800, 236812, 255969, 76222]
        + [107, 138, 724, 16764, 236743, 236832],
        {506: -1.6531692, 496: -2.1980033, 9079: -2.4793906, 886: -2.6304869, 3224: -2.9619536},
    ),
}


def answer(loaded, prompt, n=24):
    encoded = encode(loaded.tokenizer, format_prompts(loaded.tokenizer, [prompt]))
    with torch.no_grad():
        out = loaded.model.generate(**encoded, max_new_tokens=n, do_sample=False)
    return out[0, encoded["input_ids"].shape[1] :]


def agrees_with_llama_cpp(loaded, which, prompt):
    tokens, expected = LLAMA_CPP[which]
    assert loaded.tokenizer(TEXT)["input_ids"] == tokens
    with torch.no_grad():
        logits = loaded.model(**encode(loaded.tokenizer, [prompt])).logits[0, -1]
    found = logits.float().log_softmax(-1)
    for token, value in expected.items():
        assert found[token].item() == pytest.approx(value, abs=0.02)


def test_smollm_is_what_llama_cpp_computes(smollm):
    agrees_with_llama_cpp(smollm, "smollm", format_prompts(smollm.tokenizer, [ROME])[0])


def test_gemma_is_what_llama_cpp_computes(gemma):
    agrees_with_llama_cpp(gemma, "gemma", "The capital of France is")


def test_smollm_answers_and_stops(smollm):
    tokens = answer(smollm, "What is the capital of France?")
    assert smollm.tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_smollm_keeps_the_settings_of_the_hub(smollm):
    model, tokenizer = smollm.model, smollm.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert model.generation_config.eos_token_id == 2
    assert model.config.rope_parameters["rope_theta"] == 100_000
    assert model.config.rms_norm_eps == pytest.approx(1e-5)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 8192
    assert format_prompts(tokenizer, ["Hi"]) == [
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ]
    path, blocks = decoder_blocks(model)
    assert (path, len(blocks), smollm.hidden_size) == ("model.layers", 30, 576)


def test_smollm_masks_its_answer(smollm):
    answered = format_answered(smollm.tokenizer, ["Hi", "What now?"], ["Hello there.", "I rest."])
    ids = encode(smollm.tokenizer, [a.text for a in answered])["input_ids"]
    mask = answer_mask(smollm.tokenizer, answered)
    found = [smollm.tokenizer.decode(i[m]) for i, m in zip(ids, mask, strict=True)]
    assert found == ["Hello there.", "I rest."]


def test_gemma_has_one_bos_and_its_masks(gemma):
    answered = format_answered(gemma.tokenizer, ["Why?", "What now?"], ["So.", "I rest a while."])
    encoded = encode(gemma.tokenizer, [a.text for a in answered])
    assert (encoded["input_ids"] == 2).sum(1).tolist() == [1, 1]
    mask = answer_mask(gemma.tokenizer, answered)
    found = [gemma.tokenizer.decode(i[m]) for i, m in zip(encoded["input_ids"], mask, strict=True)]
    assert found == [" So.", " I rest a while."]
    kinds = gemma.model.config.layer_types
    assert [i for i, kind in enumerate(kinds) if kind == "full_attention"] == [5, 11, 17]


@pytest.mark.slow
def test_qwen_answers_and_stops(qwen):
    tokens = answer(qwen, "What is the capital of France?")
    assert qwen.tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"
    model = qwen.model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_second_load_and_its_fingerprint_are_fast(smollm):
    started = time.perf_counter()
    again = load("smollm2-135m-instruct")
    loaded = time.perf_counter()
    assert fingerprint(again.model, again.tokenizer) == smollm.fingerprint
    # About one second and ten milliseconds on two quiet cores.
    assert time.perf_counter() - loaded < 0.3
    assert loaded - started < 5


# SHA-256 of `model.safetensors` as the hub lists it.
HUB = {
    "all-minilm-l6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "all-mpnet-base-v2": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}


@pytest.mark.parametrize("name", HUB)
def test_an_encoder_has_the_weights_of_the_hub_and_knows_a_dog(name):
    marker = json.loads((fetch(needs(name)) / "valueflow.json").read_text())
    assert marker["files"]["model.safetensors"]["sha256"] == HUB[name]
    encoder = load_encoder(name)
    dog, puppy, tax = encoder.encode(["a dog", "a puppy", "the law on income tax"])
    assert dog @ dog == pytest.approx(1, abs=1e-4)
    assert dog @ puppy > 0.7 > 0.3 > dog @ tax
