"""Vectors of other tools in, ours out: GGUF control vectors, and safetensors in.

A GGUF control vector (`general.architecture` = `controlvector`, tensors `direction.{i}`, F32, one
dimension) holds what is added, not a unit direction: at scale s, llama.cpp and repeng add
`s * direction.{i}` to the residual stream.

`direction.{i}` is for our layer i, the output of block i counted from 0:

- llama.cpp: `common_control_vector_load_one` (common/common.cpp) puts `direction.{i}` at place
  i - 1 of a buffer, and `llama_adapter_cvec::apply` (src/llama-adapter.cpp) fills `tensors[il]`
  from place il - 1, so both steps back cancel; `build_cvec(cur, il)` then adds `tensors[il]` to
  the output `l_out` of block il, in a loop from 0. There is no place for block 0, and
  `direction.0` is refused. Tensors of other names, types or shapes are refused as well.
- repeng: `ControlVector.export_gguf` writes its layer number as it is; `ControlModel` adds it to
  the output of that entry of the list of blocks, from 0, and `batched_get_hiddens` reads
  `hidden_states[layer + 1]`, which is the same place.
- llama.cpp's own generator (tools/cvector-generator) reads at block i - 1 what it writes as
  `direction.{i}`. What counts here is where a file acts, so it comes in as layer i.

steering-vectors numbers decoder blocks from 0 as well.
"""

from valueflow.lazy import facade

# Lazy, so that naming this package costs no torch.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "ControlVector": "importing",
        "export_gguf": "exporting",
        "import_vector": "importing",
        "read_control_vector": "importing",
        "steering_vector": "importing",
    },
)
