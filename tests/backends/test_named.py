"""Backends by name, and that asking for none of them costs nothing."""

import subprocess
import sys

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model
from tool_cases import loaded

from valueflow.backends.hf import HFBackend
from valueflow.backends.named import BACKENDS, load_backend, twin
from valueflow.errors import BackendUnavailable, UnknownName


def test_the_names():
    assert list(BACKENDS) == ["hf", "nnsight", "transformer_lens"]
    model = tiny_model("llama")
    backend = load_backend("hf", loaded(model))
    assert isinstance(backend, HFBackend) and backend.model is model


@pytest.mark.parametrize(
    ("name", "hint"),
    [("nsight", "did you mean nnsight"), ("transformer-lens", "transformer_lens"), ("vllm", "hf")],
)
def test_an_unknown_name_lists_near_misses(name, hint):
    with pytest.raises(UnknownName, match=f"unknown backend .*{hint}"):
        load_backend(name, loaded(tiny_model("llama")))


@pytest.mark.parametrize(
    ("name", "module"), [("nnsight", "nnsight"), ("transformer_lens", "transformer_lens")]
)
def test_a_missing_package_is_named(name, module, monkeypatch):
    monkeypatch.delitem(sys.modules, f"valueflow.backends.{name}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.model_bridge", None)
    with pytest.raises(BackendUnavailable, match=f"pip install {module.replace('_', '-')}"):
        load_backend(name, loaded(tiny_model("llama")))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_twin_shares_every_tensor_and_no_module(arch):
    model = tiny_model(arch)
    other = twin(model)
    for kind in ("named_parameters", "named_buffers"):
        mine, theirs = dict(getattr(model, kind)()), dict(getattr(other, kind)())
        assert mine.keys() == theirs.keys()
        assert all(theirs[name] is tensor for name, tensor in mine.items())
    assert not {id(m) for m in model.modules()} & {id(m) for m in other.modules()}
    assert other.config is not model.config
    other.eval()
    with torch.no_grad():
        ids = torch.arange(3, 9)[None]
        assert torch.equal(model(ids).logits, other(ids).logits)


def test_naming_the_backends_loads_neither_tool():
    code = """
import sys
import valueflow.backends
assert "torch" not in sys.modules
import valueflow.backends.named
found = {"nnsight", "transformer_lens", "transformers"} & set(sys.modules)
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
