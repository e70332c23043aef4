"""Models: where weights come from, which layers they have, and how they are asked."""

from valueflow.lazy import facade

# Lazy, so that naming this package costs no torch.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "Answered": "chat",
        "answer_mask": "chat",
        "encode": "chat",
        "format_answered": "chat",
        "format_prompts": "chat",
        "template_hash": "chat",
        "decoder_blocks": "layers",
        "LoadedModel": "loading",
        "ModelFingerprint": "loading",
        "fingerprint": "loading",
        "load": "loading",
        "load_encoder": "loading",
        "Packaged": "packaged",
        "find_packaged": "packaged",
        "list_packaged": "packaged",
        "fetch": "sources",
        "home": "sources",
        "is_fetched": "sources",
    },
)
