import dataclasses
import time
from types import SimpleNamespace

import jaxtyping
import pytest
import torch
from tiny import EOS, tiny_config, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from valueflow.errors import InvalidInput, ModelUnavailable, UnknownName
from valueflow.models import fingerprint, load, load_encoder, loading
from valueflow.models.packaged import find_packaged

ONE = torch.tensor([[1, 5, 6, 7]])


@pytest.fixture
def pair():
    return tiny_model("llama", n_layers=2), tiny_tokenizer(chat=True)


@pytest.fixture
def folder(pair, tmp_path):
    for part in pair:
        part.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_gives_the_same_model_as_the_pair_it_was_saved_from(pair, folder):
    from_pair, from_folder = load(pair), load(folder)
    with torch.no_grad():
        assert torch.equal(from_pair.model(ONE).logits, from_folder.model(ONE).logits)
    assert from_pair.fingerprint == from_folder.fingerprint == load(str(folder)).fingerprint
    assert (from_folder.n_layers, from_folder.hidden_size) == (2, 32)
    assert from_folder.name == str(folder)
    assert load(from_folder) is from_folder


def test_a_loaded_model_is_ready_to_be_used(pair):
    model, tokenizer = pair
    model.train()
    tokenizer.pad_token = None
    model.generation_config.pad_token_id = None
    loaded = load((model, tokenizer))
    assert not loaded.model.training
    assert loaded.tokenizer.pad_token_id == loaded.model.generation_config.pad_token_id == EOS
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.name = "other"


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(pair):
    model, tokenizer = pair
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.unk_token = None
    with pytest.raises(InvalidInput, match="pad, EOS or unknown"):
        load((model, tokenizer))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    with pytest.raises(InvalidInput, match="token ids up to 117, and the model embeddings for 100"):
        load((tiny_model("gpt2", vocab=100), tiny_tokenizer()))
    assert load((tiny_model("gpt2", vocab=118), tiny_tokenizer()))


def test_an_added_token_beyond_the_embeddings_matters_if_texts_have_it():
    model = tiny_model("gpt2", vocab=118)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    assert load((model, tokenizer))
    for attribute in ("pad_token", "eos_token"):
        other = tiny_tokenizer()
        other.add_special_tokens({attribute: "<more>"})
        with pytest.raises(InvalidInput, match="up to 118, and the model embeddings for 118"):
            load((model, other))
    tokenizer.add_tokens(["garden"])
    with pytest.raises(InvalidInput, match="up to 119, and the model embeddings for 118"):
        load((model, tokenizer))


def test_weights_without_values_have_a_size_too():
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(tiny_config("llama", vocab=100))
    with pytest.raises(InvalidInput, match="token ids up to 117"):
        load((empty, tiny_tokenizer()))


def test_what_is_neither_name_nor_path_nor_pair_is_refused(pair, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model, tokenizer = pair
    names = f"{type(model).__name__}, {type(tokenizer).__name__}"
    swapped = f"{type(tokenizer).__name__}, {type(model).__name__}"
    for source, came in (
        (model, f"a {type(model).__name__} alone: give its tokenizer too"),
        ([model, tokenizer], f"a list [{names}]: write it as a tuple"),
        ((tokenizer, model), f"in this order; got ({swapped})"),
        ((model, tokenizer, None), f"got ({names}, NoneType)"),
        ((model, None), f"got ({type(model).__name__}, NoneType)"),
        ((), "got ()"),
        (None, "got None (NoneType)"),
    ):
        with pytest.raises(InvalidInput, match="a name, a path or a pair") as refused:
            load(source)
        assert str(refused.value).endswith(came)


def test_dtype_is_applied(folder):
    loaded = load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.fingerprint.model != load(folder).fingerprint.model
    assert loaded.fingerprint.tokenizer == load(folder).fingerprint.tokenizer


def test_a_packaged_model_comes_in_the_dtype_of_the_table_unless_told(folder, monkeypatch):
    monkeypatch.setattr(loading, "_locate", lambda _source, _kind: str(folder))
    named = "gemma-3-270m", "smollm2-135m-instruct"
    found = [next(load(name).model.parameters()).dtype for name in named]
    assert found == [getattr(torch, find_packaged(name).dtype) for name in named]
    assert found == [torch.bfloat16, torch.float32]
    told = load("gemma-3-270m", dtype=torch.float32)
    assert {p.dtype for p in told.model.parameters()} == {torch.float32}


def test_a_training_step_on_any_one_tensor_changes_the_fingerprint(pair):
    model, tokenizer = pair
    before = fingerprint(model, tokenizer)
    model(ONE, labels=ONE).loss.backward()
    for name, parameter in model.named_parameters():
        saved = parameter.detach().clone()
        with torch.no_grad():
            parameter -= 1e-4 * parameter.grad
        after = fingerprint(model, tokenizer)
        with torch.no_grad():
            parameter.copy_(saved)
        assert after.model != before.model, name
        assert after.tokenizer == before.tokenizer
    assert fingerprint(model, tokenizer) == before


def test_the_fingerprint_tells_tokenizers_and_templates_apart(pair):
    model, tokenizer = pair
    with_bos = fingerprint(model, tokenizer)
    without_bos = fingerprint(model, tiny_tokenizer(bos=False, chat=True))
    assert without_bos.tokenizer != with_bos.tokenizer
    assert without_bos.chat_template == with_bos.chat_template
    plain = fingerprint(model, tiny_tokenizer())
    assert plain.chat_template != with_bos.chat_template
    assert plain.tokenizer == with_bos.tokenizer
    # Not what changes between two uses of one model.
    tokenizer.padding_side, tokenizer.pad_token = "right", "</s>"
    tokenizer(["a", "the garden"], padding=True, truncation=True, max_length=4)
    assert fingerprint(model, tokenizer) == with_bos


def test_the_fingerprint_sees_the_configuration(pair):
    model, tokenizer = pair
    before = fingerprint(model, tokenizer)
    model.config.use_cache = not model.config.use_cache
    model.config._name_or_path = "elsewhere"
    assert fingerprint(model, tokenizer) == before
    model.config.rms_norm_eps *= 2
    assert fingerprint(model, tokenizer).model != before.model


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("smollm2-135m-instuct", UnknownName, "did you mean smollm2-135m-instruct"),
        ("gpt2", UnknownName, "a hub id is written owner/name"),
        ("all-mpnet-base-v2", InvalidInput, r"use load_encoder\('all-mpnet-base-v2'\)"),
        ("./nowhere", ModelUnavailable, "neither a model folder nor a .gguf file"),
        ("some/deep/path", ModelUnavailable, "neither a model folder nor a .gguf file"),
        ("missing.gguf", ModelUnavailable, "neither a model folder nor a .gguf file"),
    ],
)
def test_a_source_that_is_nothing(source, error, message):
    with pytest.raises(error, match=message):
        load(source)


def test_a_packaged_language_model_is_no_encoder():
    with pytest.raises(InvalidInput, match=r"use load\('smollm2-135m-instruct'\)"):
        load_encoder("smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "packaged: use 'smollm2-135m-instruct'"),
        ("nobody/nothing", "Without the hub there are .*smollm2-135m-instruct"),
    ],
)
def test_a_hub_id_means_the_hub_and_its_absence_names_what_is_packaged(
    monkeypatch, source, message
):
    def no_network(name, **_):
        raise OSError(f"We couldn't connect to the hub to load {name}.\nMore lines.")

    monkeypatch.setattr(loading, "AutoConfig", SimpleNamespace(from_pretrained=no_network))
    with pytest.raises(ModelUnavailable, match=f"couldn't connect.*{message}") as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_not_run_unless_asked_for(folder):
    (folder / "evil.py").write_text("raise SystemExit('code was run')")
    config = folder / "config.json"
    text = config.read_text().replace('"model_type": "llama"', '"model_type": "evil"')
    auto = '{"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},'
    config.write_text(text.replace("{", auto, 1))
    with pytest.raises(ModelUnavailable, match="trust_remote_code"):
        load(folder)


def test_a_folder_with_damaged_weights_is_reported(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        load(folder)


def test_a_packaged_name_is_fetched_and_wins_over_a_folder(folder, monkeypatch, tmp_path):
    (tmp_path / "smollm2-135m-instruct").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(loading, "fetch", lambda name: asked.append(name) or folder)
    loaded = load("smollm2-135m-instruct")
    assert asked == ["smollm2-135m-instruct"]
    assert loaded.name == "smollm2-135m-instruct"


def test_an_encoder_is_loaded_from_a_folder(tmp_path):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.encode(["a", "the garden"]).shape == (2, 32)
    assert not encoder.training
    assert load_encoder(encoder) is encoder


def test_the_package_is_imported_without_torch():
    import subprocess
    import sys

    code = "import sys, valueflow.models as m; m.fetch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fingerprint_is_cheap():
    # 100 million weights, as a small real model has.
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(100)))
    model.config = SimpleNamespace(to_dict=dict)
    tokenizer = tiny_tokenizer()
    started = time.perf_counter()
    fingerprint(model, tokenizer)
    assert time.perf_counter() - started < 0.3
