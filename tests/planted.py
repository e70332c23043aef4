"""Planted truth for the value space: what a text says of a value is told by words known here.

`PlantedModel` is a stand-in for an encoder that reads a stance off a text. `planted_base` is a real
and random, tiny sentence-transformers model; `planted_texts` are ladders that it can learn.
"""

import string
import zlib

import numpy as np
import torch

from valueflow.hives.axes import ValueAxes
from valueflow.hives.encoder import Encoder, ValueEncoder
from valueflow.hives.labels import labels_for
from valueflow.hives.texts import TrainingTexts

WIDTH = 16
VALUES = ("svt/power", "svt/hedonism", "svt/security", "mft/care-harm", "mft/liberty-oppression")
INTENSITIES = (-8.0, -4.0, 0.0, 4.0, 8.0)


class PlantedModel:
    """Reads "stance | topic", whatever was asked: the stance goes along one direction, topic and
    noise elsewhere.

    Any other text gets a row of its own, drawn from its letters. The axes of `values` are that
    direction, with alternating sign.
    """

    def __init__(self, values=("svt/power", "svt/hedonism"), *, seed=0):
        hidden = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
        self.direction = (hidden / hidden.norm()).numpy()
        self.axes = ValueAxes(values, WIDTH)
        with torch.no_grad():
            for row in range(len(values)):
                self.axes.axes[row] = torch.from_numpy(self.direction) * (-1) ** row
        self.calls = []

    device = torch.device("cpu")

    def __iter__(self):
        yield self.axes

    def preprocess(self, texts):
        return {"texts": list(texts)}

    def __call__(self, features):
        self.calls.append(features["texts"])
        rows = np.stack([self._row(text) for text in features["texts"]]).astype(np.float32)
        return self.axes({"sentence_embedding": torch.from_numpy(rows)})

    def get_embedding_dimension(self):
        return WIDTH

    def encode(self, texts, *, batch_size, normalize_embeddings, show_progress_bar):
        assert normalize_embeddings and not show_progress_bar
        self.calls.append(list(texts))
        return np.stack([self._row(text) for text in texts]).astype(np.float32)

    def _row(self, text):
        stance, separator, topic = text.rpartition(" A: ")[2].partition(" | ")
        own = np.random.default_rng(zlib.crc32((topic or text).encode())).normal(size=WIDTH)
        if separator:
            own -= own @ self.direction * self.direction
            own = own / np.linalg.norm(own) + 0.1 * float(stance) * self.direction
        return own / np.linalg.norm(own)


def planted_encoder(**options):
    """Without axes that a judge could read."""
    return Encoder(PlantedModel(**options), name="planted")


def planted_space(**options):
    return ValueEncoder(PlantedModel(**options), name="planted")


FOR = {value: [f"for{n}{letter}" for letter in "abc"] for n, value in enumerate(VALUES)}
AGAINST = {value: [f"con{n}{letter}" for letter in "abc"] for n, value in enumerate(VALUES)}
FILLERS = [f"word{i}" for i in range(16)]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def planted_tokenizer():
    """WordPiece of the planted words, and of single letters for any other text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits + string.punctuation
    planted = [word for words in (*FOR.values(), *AGAINST.values()) for word in words]
    entries = [*_SPECIAL, *letters, *(f"##{x}" for x in letters), *planted, *FILLERS]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


def planted_base(folder, *, seed=0, n_blocks=3, width=32):
    """Writes a random BERT with mean pooling, as sentence-transformers keeps it; gives its path."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    tokenizer = planted_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=n_blocks,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=128,
        initializer_range=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    model.save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    SentenceTransformer(str(folder / "bert"), device="cpu").save_pretrained(str(folder / "base"))
    return str(folder / "base")


def planted_texts(*, seed, values=VALUES, n_ladders=10, shuffle=False):
    """Ladders of five rungs, told apart by two, one or no planted words, among words of no meaning.

    `shuffle` turns the grades of each ladder by another number of places, so that over five ladders
    each rung has had each grade.
    """
    rng = np.random.default_rng(seed)
    texts, names, grades, scenes = [], [], [], []
    for value in values:
        for ladder in range(n_ladders):
            topic = rng.choice(FILLERS, 3).tolist()
            turned = np.roll(INTENSITIES, ladder if shuffle else 0).tolist()
            for rung, grade in zip(range(-2, 3), turned, strict=True):
                texts.append(stance_text(value, rung, topic, rng))
                names.append(value)
                grades.append(grade)
                scenes.append(f"{value}/{seed}-{ladder}")
    labels = labels_for(names, np.sign(grades).astype(int).tolist(), grades)
    nothing = ((),) * len(texts)
    return TrainingTexts(
        tuple(texts), labels, tuple(scenes), np.full(len(texts), -1), nothing, nothing, ("planted",)
    )


def stance_text(value, rung, topic, rng):
    """|rung| words for (or against) the value, the topic, and other words up to seven or eight."""
    told = rng.choice((FOR if rung > 0 else AGAINST)[value], abs(rung), replace=False).tolist()
    others = rng.choice(FILLERS, int(rng.integers(4, 6)) - len(told)).tolist()
    return " ".join(rng.permutation([*told, *topic, *others]))


def in_order(space, texts):
    """Per value, share of pairs of a ladder more than 3 apart that the space orders right."""
    scores = space.scores(texts.texts)
    known, scenes = texts.labels.intensities.numpy(), np.array(texts.scenes)
    names = np.array(texts.labels.values)
    pairs = (known[:, None] - known[None, :] > 3) & (scenes[:, None] == scenes[None, :])
    shares = {}
    for value in dict.fromkeys(texts.labels.values):
        column = scores[:, space.values.index(value)]
        right = column[:, None] > column[None, :]
        shares[value] = float(right[pairs & (names == value)[:, None]].mean())
    return shares
