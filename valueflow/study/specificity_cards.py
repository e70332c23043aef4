"""Whether cards, the model and kept texts of a specificity study belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from valueflow.dose.stale import check_decodings, check_model, check_vector
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Decoding, Grid
from valueflow.errors import InvalidInput, StaleArtifact
from valueflow.models.loading import LoadedModel, fingerprint
from valueflow.steering.store import check_fits, vector_hash
from valueflow.study.kept import read_sweep
from valueflow.study.release import PLACEBOS, SWEEPS
from valueflow.study.release_plan import random_placebo


def check_cards(cards: Sequence[Card], loaded: LoadedModel) -> None:
    """Refuse cards of another model, or whose vector is not the one calibrated.

    The judge is not compared: a study scores its own texts, whoever measured the curves.

    Raises:
        StaleArtifact: names the card and the field.
    """
    here = fingerprint(loaded.model, loaded.tokenizer)
    for card in cards:
        check_fits(card.vector, loaded, here=here)
        check_model(card.value, card.provenance, loaded, here=here)
        check_vector(card.value, card.provenance, card.vector)


def common_decoding(cards: Sequence[Card]) -> Decoding:
    """The decoding settings of all the cards: effects are compared under the same ones alone.

    Raises:
        InvalidInput: no cards, or two that differ; names the field and both settings.
    """
    if not cards:
        raise InvalidInput("a study of specificity needs cards, got none")
    check_decodings({card.value: card.decoding for card in cards})
    return cards[0].decoding


def card_texts(card: Card, work: str | Path) -> Grid:
    """The sweep that a card was fitted to, from the work folder of its release.

    Raises:
        ArtifactError: no readable sweep of the value there.
        StaleArtifact: it is of another model, vector or decoding; names the field.
    """
    path = Path(work) / SWEEPS / f"{card.value.replace('/', '-')}.jsonl.gz"
    asked, grid = read_sweep(path)
    _check_texts(path, asked, card, vector_hash(card.vector))
    return grid


def placebo_texts(
    cards: Sequence[Card], work: str | Path, prompts: Sequence[str]
) -> dict[str, Grid]:
    """Sweeps of the cards' own random placebos, by hash, in its order; others' are passed over.

    A work folder may serve several releases, whose placebos act at other layers or at other norms.
    Of what was asked only a vector's hash is kept, so the placebos are drawn again as the release
    drew them. Those that are not there, or were asked other prompts, are left out.

    Raises:
        ArtifactError: a sweep is damaged.
        StaleArtifact: a sweep is of another model or decoding; names the field.
    """
    drawn = {}
    for card in cards:
        plan = card.provenance.get("plan") or {}
        for draw in range(plan.get("random_draws", 0)):
            drawn[vector_hash(random_placebo(card.vector, seed=plan["seed"] + draw))] = card
    found = {}
    for name, card in sorted(drawn.items(), key=lambda pair: pair[0]):
        path = Path(work) / PLACEBOS / f"{name}.jsonl.gz"
        if not path.exists():
            continue
        asked, grid = read_sweep(path)
        _check_texts(path, asked, card, name)
        if grid.prompts == tuple(prompts):
            found[name] = grid
    return found


def _check_texts(path: Path, asked: Mapping[str, Any], card: Card, vector: str) -> None:
    """Compare what a kept sweep was asked with the card's model and decoding, and a hash."""
    there = {**asked.get("model", {}), "vector": asked.get("vectors", {}).get("vector")}
    here = {field: card.provenance["model"].get(field) for field in asked.get("model", {})}
    here["vector"] = vector
    # A setting that did not exist yet when the texts were made had what is now its default.
    there |= asdict(Decoding()) | asked.get("decoding", {})
    here |= asdict(card.decoding)
    for field, expected in here.items():
        if there[field] != expected:
            raise StaleArtifact(
                f"{path}: expected texts of the card of {card.value} with {field} {expected!r}, "
                f"found {field} {there[field]!r}; give the work folder that the card was built "
                "with, or leave it out to generate"
            )
