"""What a judge was shown and how it ordered it, to be scored again without the judge."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from valueflow.artifacts import write_file
from valueflow.errors import ArtifactError, StaleArtifact
from valueflow.evaluate.panel import Panel
from valueflow.judges.base import Unranked, Verdict
from valueflow.typing import Item, Ranking

SCHEMA = "valueflow-rankings/1"


@dataclass(frozen=True)
class Shown:
    """One window: what was shown and what the judge made of it.

    Attributes:
        window: indices into the panel in the order shown, with the panel's length for the text.
        verdict: positions in the window, most supportive first; or why there are none.
    """

    window: tuple[int, ...]
    verdict: Verdict

    @property
    def ranking(self) -> Ranking | None:
        """The window's indices, most supportive first; None where it was not ordered."""
        if isinstance(self.verdict, Unranked):
            return None
        return tuple(self.window[place] for place in self.verdict)


@dataclass(frozen=True)
class RankedTexts:
    """Texts and the windows in which a judge ordered them among the anchors of a panel.

    Attributes:
        panel: hash of the anchors, in their order.
        judge: name of the judge.
        judge_fingerprint: of the judge.
        items: hash of each text with its question.
        windows: of each text.
    """

    panel: str
    judge: str
    judge_fingerprint: str
    items: tuple[str, ...]
    windows: tuple[tuple[Shown, ...], ...]

    @property
    def rankings(self) -> list[list[Ranking]]:
        """Per text its ordered windows."""
        return [[s.ranking for s in own if s.ranking is not None] for own in self.windows]

    @property
    def unranked(self) -> Counter[str]:
        """Windows that were not ordered, by reason."""
        verdicts = (shown.verdict for own in self.windows for shown in own)
        return Counter(v.reason for v in verdicts if isinstance(v, Unranked))

    def check_panel(self, panel: Panel) -> None:
        """Pass if the indices mean this panel's anchors.

        Raises:
            StaleArtifact: they were ranked among others, or among these in another order.
        """
        if self.panel != anchors_hash(panel):
            raise StaleArtifact(
                f"these rankings are of other anchors of {panel.value} (expected "
                f"{anchors_hash(panel)}, found {self.panel}); rank the texts again"
            )

    def check_items(self, items: Sequence[Item]) -> None:
        """Pass if these texts, with these questions and in this order, were ranked.

        Raises:
            StaleArtifact: names the first that was not.
        """
        if len(items) != len(self.items):
            raise StaleArtifact(f"{len(self.items)} texts were ranked, {len(items)} are given")
        for place, (item, ranked) in enumerate(zip(items, self.items, strict=True), start=1):
            if item_hash(item) != ranked:
                raise StaleArtifact(
                    f"text {place} ({item.text[:40]!r}) is not the one that was ranked there, or "
                    "its question is another; rank the texts again"
                )


@dataclass(frozen=True)
class SavedRankings:
    """All that an evaluation needs from its judge.

    Attributes:
        value: id.
        settings: of the evaluator, as `AnchorEvaluator` takes them.
        graded: rankings of the graded texts the scale is learned from; None in mode "paper".
        scored: rankings of the texts that were scored.
    """

    value: str
    settings: Mapping[str, Any]
    graded: RankedTexts | None
    scored: RankedTexts


class RecordedJudge:
    """The judge of saved rankings: it has a name and a fingerprint, and ranks nothing more."""

    def __init__(self, ranked: RankedTexts) -> None:
        self.name = ranked.judge
        self._fingerprint = ranked.judge_fingerprint

    def fingerprint(self) -> str:
        """That of the judge who ranked."""
        return self._fingerprint

    def rank(self, value: Any, windows: Sequence[Any]) -> list[Verdict]:  # noqa: ARG002
        """Always raises StaleArtifact."""
        raise StaleArtifact("saved rankings hold no judge; load one to rank more texts")


def item_hash(item: Item) -> str:
    """Hash of a text and its question."""
    return _hash(item.text, "\x1f", item.context or "")[:12]


def anchors_hash(panel: Panel) -> str:
    """Hash of a panel in the order of its anchors, which saved indices rely on."""
    return _hash(panel.fingerprint(), *map(item_hash, panel.items))


def save_rankings(saved: SavedRankings, path: str | Path) -> None:
    """Write as JSON; appears whole or not at all."""
    content = {
        "schema": SCHEMA,
        "value": saved.value,
        "settings": dict(saved.settings),
        "graded": None if saved.graded is None else _plain(saved.graded),
        "scored": _plain(saved.scored),
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    write_file(Path(path), f"{text}\n".encode())


def load_rankings(path: str | Path) -> SavedRankings:
    """What `save_rankings` wrote.

    Raises:
        ArtifactError: no such file, of another schema, or damaged: an order that is no permutation
            of its window.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ArtifactError(f"{path}: expected {SCHEMA}, it is {content['schema']!r}")
        graded = None if content["graded"] is None else _ranked(content["graded"])
        scored = _ranked(content["scored"])
        return SavedRankings(str(content["value"]), dict(content["settings"]), graded, scored)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ArtifactError(f"{path}: no saved rankings ({error!r})") from None


def _plain(ranked: RankedTexts) -> dict[str, Any]:
    texts = [
        {
            "item": item,
            "windows": [
                {"shown": shown.window}
                | (
                    {"unranked": asdict(shown.verdict)}
                    if isinstance(shown.verdict, Unranked)
                    else {"order": shown.verdict}
                )
                for shown in own
            ],
        }
        for item, own in zip(ranked.items, ranked.windows, strict=True)
    ]
    return {
        "panel": ranked.panel,
        "judge": ranked.judge,
        "judge_fingerprint": ranked.judge_fingerprint,
        "texts": texts,
    }


def _ranked(content: Mapping[str, Any]) -> RankedTexts:
    return RankedTexts(
        panel=str(content["panel"]),
        judge=str(content["judge"]),
        judge_fingerprint=str(content["judge_fingerprint"]),
        items=tuple(str(text["item"]) for text in content["texts"]),
        windows=tuple(tuple(map(_shown, text["windows"])) for text in content["texts"]),
    )


def _shown(content: Mapping[str, Any]) -> Shown:
    window = tuple(int(index) for index in content["shown"])
    if "unranked" in content:
        return Shown(window, Unranked(**content["unranked"]))
    order = tuple(int(place) for place in content["order"])
    if sorted(order) != list(range(len(window))):
        raise ValueError(f"{order} is no order of a window of {len(window)}")
    return Shown(window, order)


def _hash(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
