"""Steering: from graded texts to directions of the residual stream, and what to do with them."""

from valueflow.lazy import facade

# The function `contrasts` is missing: its module has the name here.
# Lazy, so that naming this package costs no torch.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "Activations": "activations",
        "answer_activations": "activations",
        "typical_norms": "activations",
        "Contrast": "contrasts",
        "pairs": "contrasts",
        "shuffled": "contrasts",
        "derive": "derivation",
        "ESTIMATORS": "directions",
        "whitened": "estimators",
        "LayerScore": "directions",
        "choose_layer": "directions",
        "held_out_score": "directions",
        "middle_layers": "directions",
        "export_gguf": "interchange",
        "import_vector": "interchange",
        "ablate": "operators",
        "clamp": "operators",
        "combine": "operators",
        "stack": "operators",
        "derive_family": "family",
        "METHODS": "methods",
        "decompose": "hierarchy",
        "LinearProbe": "probes",
        "train_probes": "probes",
        "load_probes": "probe_store",
        "save_probes": "probe_store",
        "check_fits": "store",
        "load_vector": "store",
        "save_vector": "store",
        "SteeringVector": "vector",
        "intervention": "vector",
        "random_like": "vector",
    },
)
