import numpy as np
import pytest
import torch
from planted import planted_base, planted_texts
from threads import one_thread  # noqa: F401

from valueflow.errors import InvalidInput
from valueflow.hives.build import axes_of, build
from valueflow.hives.distil import (
    BATCH,
    SHORTEST,
    DistilLoss,
    LengthBatches,
    Taught,
    parts_of,
    start_axes,
)

LADDERS = planted_texts(seed=0, n_ladders=12)
TEXTS = tuple(dict.fromkeys(LADDERS.texts))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return planted_base(tmp_path_factory.mktemp("base"))


def student(base, seed=0):
    return build(base, rank=4, upper_blocks=None, max_tokens=64, seed=seed).eval()


def taught_by(model, texts=TEXTS):
    """What a student that only shared its base would have to learn: the model's own readings."""
    with torch.no_grad():
        found = model(model.preprocess(list(texts)))
    unit = torch.nn.functional.normalize(found["sentence_embedding"], dim=1)
    return Taught(tuple(texts), unit, found["value_scores"])


def losses(model, taught, rows):
    features = model.preprocess([taught.texts[i] for i in rows])
    with torch.no_grad():
        found = DistilLoss(model, taught)([features], torch.tensor(rows))
    return {name: float(loss) for name, loss in found.items()}


def test_whoever_reads_like_the_teacher_has_nothing_to_learn(base):
    model = student(base)
    found = losses(model, taught_by(model), range(20))
    assert found["scores"] < 1e-8 and found["similarities"] < 1e-8, found


def test_losses_are_squared_differences_in_units_of_each_values_spread(base):
    model = student(base)
    taught = taught_by(model)
    rows = list(range(10))
    unit = torch.nn.functional.normalize(torch.randn(len(TEXTS), 7), dim=1)
    noise = torch.randn_like(taught.scores)
    other = Taught(taught.texts, unit, taught.scores + noise)
    spread = other.scores.numpy().std(axis=0, ddof=1)
    by_hand = float(np.mean([(noise[i].numpy() / spread) ** 2 for i in rows]))
    alike = [
        float((taught.embeddings[i] @ taught.embeddings[j] - unit[i] @ unit[j]) ** 2)
        for i in rows
        for j in rows
    ]
    found = losses(model, other, rows)
    assert found["scores"] == pytest.approx(by_hand, rel=1e-4)
    assert found["similarities"] == pytest.approx(np.mean(alike), rel=1e-4)


def test_a_scale_of_the_scores_that_both_share_does_not_matter(base):
    model = student(base)
    taught = taught_by(model)
    noisy = taught.scores + torch.randn_like(taught.scores)
    before = losses(model, Taught(taught.texts, taught.embeddings, noisy), range(12))
    with torch.no_grad():
        axes_of(model).axes *= 7
    after = losses(model, Taught(taught.texts, taught.embeddings, 7 * noisy), range(12))
    assert after == pytest.approx(before, rel=1e-4)


def test_the_axes_to_start_from_are_those_of_the_best_fit(base):
    teacher, model = student(base), student(base, seed=1)
    with torch.no_grad():
        axes_of(teacher).axes.normal_(generator=torch.Generator().manual_seed(3))
    taught = taught_by(teacher)
    before = losses(model, taught, range(40))["scores"]
    start_axes(model, taught, seed=0)
    after = losses(model, taught, range(40))["scores"]
    # The adapters change nothing yet, so both read alike; what is missing is the ridge's.
    assert after < 0.1 < before, (before, after)
    found, rows = axes_of(model).axes.detach().double(), range(len(TEXTS))
    unit = taught.embeddings.double() * 10
    gram = unit.T @ unit + torch.eye(unit.shape[1], dtype=torch.float64)
    wanted = torch.linalg.inv(gram) @ unit.T @ taught.scores[list(rows)].double()
    assert torch.allclose(found, wanted.T, atol=1e-4)


def test_scores_of_other_values_are_refused(base):
    taught = taught_by(student(base))
    fewer = Taught(taught.texts, taught.embeddings, taught.scores[:, :3])
    with pytest.raises(InvalidInput, match=r"scores of 32 values .* got \(\d+, 3\)"):
        start_axes(student(base), fewer, seed=0)
    nothing = Taught((), taught.embeddings[:0], taught.scores[:0])
    with pytest.raises(InvalidInput, match="one text or more"):
        start_axes(student(base), nothing, seed=0)


def test_parts_are_sentences_that_follow_each_other_and_never_the_whole():
    texts = [
        f"Text {i} begins with a first sentence. Here is the second one! And is this number three? "
        f"The last one is {i}."
        for i in range(200)
    ]
    parts = parts_of(texts, seed=0)
    assert len(parts) > 120
    whole = set(texts)
    for part in parts:
        assert part not in whole and len(part) >= SHORTEST
        assert any(part in text for text in texts), part
        assert part[-1] in ".!?" and part[0].isupper()
    assert parts_of(texts, seed=0) == parts != parts_of(texts, seed=1)
    counts = {part.count(".") + part.count("!") + part.count("?") for part in parts}
    assert counts == {1, 2, 3}


def test_a_text_of_one_sentence_has_no_parts():
    assert parts_of(["One sentence of some length, and nothing after it."] * 3, seed=0) == []


def test_every_text_is_in_one_batch_and_each_epoch_deals_anew():
    texts = ["x" * (1 + i * 7 % 90) for i in range(10 * BATCH + 5)]
    batches = LengthBatches(texts, seed=0)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert len(epochs[-1]) == len(batches) == 11
        assert sorted(i for batch in epochs[-1] for i in batch) == list(range(len(texts)))
    assert epochs[0] == epochs[2] != epochs[1]


def test_texts_of_a_batch_are_of_like_length():
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) for n in rng.integers(1, 500, 20 * BATCH)]

    def padding(batches):
        lengths = [[len(texts[i]) for i in batch] for batch in batches]
        return 1 - sum(map(sum, lengths)) / sum(len(own) * max(own) for own in lengths)

    mixed = rng.permutation(len(texts)).reshape(20, BATCH).tolist()
    assert padding(LengthBatches(texts, seed=0)) < 0.06 < 0.4 < padding(mixed)
    # The order of batches is no order of lengths.
    firsts = [len(texts[batch[0]]) for batch in LengthBatches(texts, seed=0)]
    assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.8
