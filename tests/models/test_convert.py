import gguf
import numpy as np
import pytest
import torch
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from valueflow.models import load
from valueflow.models.convert import convert_gguf, read_gguf

VOCABULARY = ["<unk>", "<s>", "</s>", *bytes_to_unicode().values(), "ĠĠ", "Ġ1", "he"]
MERGES = ["Ġ Ġ", "Ġ 1", "h e"]
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    for old, new in NAMES.items():
        name = name.replace(old, new)
    name = name.replace("model.layers.", "blk.").replace("model.embed_tokens", "token_embd")
    return name.replace("model.norm", "output_norm").replace("lm_head", "output")


def interleaved(weight, heads):
    """Rotary halves to llama.cpp's pairs, as its converter does with query and key weights."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def write_gguf(path, model, *, pre="smollm", quantised=False):
    """A llama GGUF written independently of the code that reads it."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, 3] + [1] * (len(VOCABULARY) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            array = interleaved(array, 4 if "q_proj" in name else 2)
        kind = None
        if quantised and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            array = gguf.quantize(np.ascontiguousarray(array), kind)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama", vocab=len(VOCABULARY), n_layers=2)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, model)
    return path


IDS = torch.tensor([[1, 70, 71, 72, 90, 70]])


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def test_a_converted_model_is_the_original(model, file, tmp_path):
    convert_gguf(file, tmp_path, dtype=torch.float32, tied=False)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(stored), logits(model))
    assert not hasattr(stored.config, "quantization_config")
    assert stored.generation_config.eos_token_id == 2
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_quantised_weights_come_back_close(model, tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, model, quantised=True)
    read, _ = read_gguf(path)
    error = (logits(read) - logits(model)).abs()
    assert 0 < error.max() < 0.2
    assert not read.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_stored_in_the_dtype_asked_for(file, tmp_path, dtype):
    convert_gguf(file, tmp_path, dtype=dtype, tied=False)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert {p.dtype for p in stored.parameters()} == {dtype}


def test_a_tied_model_keeps_the_output_matrix_for_both(model, file, tmp_path):
    convert_gguf(file, tmp_path, dtype=torch.float32, tied=True)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert stored.get_input_embeddings().weight is stored.get_output_embeddings().weight
    torch.testing.assert_close(stored.lm_head.weight.detach(), model.lm_head.weight.detach())


def test_the_tokenizer_comes_with_its_template_and_limits(file, tmp_path):
    convert_gguf(file, tmp_path, dtype=torch.float32, tied=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template == TEMPLATE
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert special == ("<s>", "</s>", "</s>", "<unk>")
    assert tokenizer.model_max_length == 512
    text = "<s>he 12  34 naïve\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("pre", "tokens"), [("smollm", ["a", "ĠĠ", "1", "2"]), ("gpt-2", ["a", "Ġ", "Ġ1", "2"])]
)
def test_digits_are_cut_off_first_where_the_file_says_so(model, tmp_path, pre, tokens):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, model, pre=pre)
    _, tokenizer = read_gguf(path)
    assert tokenizer.tokenize("a  12") == tokens


def test_a_gguf_file_can_be_loaded_directly(model, file):
    loaded = load(str(file))
    torch.testing.assert_close(logits(loaded.model), logits(model))
    assert loaded.n_layers == 2
    assert loaded.fingerprint == load(file).fingerprint
