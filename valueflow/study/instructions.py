"""The best of several instructions, found on calibration prompts alone."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from valueflow.dose.arms import Arm, row_means
from valueflow.dose.calibrate import Stage
from valueflow.dose.prompted import merged, prompt_arms
from valueflow.dose.sweep import Decoding, Grid
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.chat import Template, format_prompts
from valueflow.models.loading import LoadedModel
from valueflow.prompting.instruct import PLACES, Place, ValuePrompt, level_prompt, placebo_prompt
from valueflow.prompting.persona_texts import text_prompt
from valueflow.prompting.wording import Kind, wordings
from valueflow.study.ways import Levels
from valueflow.vidb import Vidb

KINDS: tuple[Kind, ...] = ("levels", "texts")
STRONG, WEAK = (-2, 2), (-1, 1)


@dataclass(frozen=True)
class Form:
    """A kind of instruction, its words and its place."""

    kind: Kind
    wording: str
    place: Place

    @property
    def name(self) -> str:
        """In one word."""
        return f"{self.kind}:{self.wording}:{self.place}"


FORMS = tuple(Form(kind, w, place) for kind in KINDS for w in wordings(kind) for place in PLACES)
"""All that are tried."""


@dataclass(frozen=True)
class Instructor:
    """Puts prompts under instructions for one value.

    Attributes:
        tokenizer: of the model that is instructed.
        vidb: where the texts of a person are from.
        value: id.
        seed: of the draw of texts. Every prompt has a draw of its own, the same in every place and
            wording, so that an interval over prompts holds what the choice of texts does.
        template: the format of prompts, that of the decoding which answers are made with.
    """

    tokenizer: Any
    vidb: Vidb
    value: str
    seed: int
    template: Template

    def instruction(self, form: Form, level: int, prompt: str) -> ValuePrompt:
        """The instruction that a prompt gets."""
        levels = {self.value: level}
        if form.kind == "levels":
            return level_prompt(levels, wording=form.wording, place=form.place)
        seed = [self.seed, level + 2, zlib.crc32(prompt.encode())]
        return text_prompt(self.vidb, levels, seed=seed, wording=form.wording, place=form.place)

    def given(
        self, form: Form | None, level: int, prompts: Sequence[str], *, placebo: bool = False
    ) -> list[str]:
        """What the model is given, formatted; with `placebo` words of no value, as many tokens."""
        if form is None:
            return format_prompts(self.tokenizer, prompts, template=self.template)
        found = []
        for prompt in prompts:
            own = self.instruction(form, level, prompt)
            if placebo:
                own = placebo_prompt(own, self._count)
            found += own.formatted(self.tokenizer, [prompt], template=self.template)
        return found

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Tried:
    """A form with what it did on the calibration prompts.

    Attributes:
        form: kind, words and place.
        arm: over levels; all four only of the form that was chosen for its kind.
        limit: damage up to which a level is used, nats per token.
    """

    form: Form
    arm: Arm
    limit: float

    @property
    def levels(self) -> Levels:
        """As a branch of a way."""
        return Levels(self.form.kind, self.arm, self.limit)

    def as_json(self) -> dict[str, Any]:
        """Levels, mean intensities and mean damage."""
        return {
            "form": self.form.name,
            "levels": [int(x) for x in self.arm.coefficients],
            "intensities": self.arm.means.tolist(),
            "damage": row_means(self.arm.damage).tolist(),
            "degenerate": list(self.arm.degenerate),
            "span": self.levels.span,
        }


def choose_forms(
    loaded: LoadedModel,
    instructor: Instructor,
    evaluator: AnchorEvaluator,
    *,
    unsteered: Grid,
    decoding: Decoding,
    limit: float,
    forms: Sequence[Form] = FORMS,
    stage: Stage,
) -> tuple[dict[str, Tried], list[Tried]]:
    """The form of each kind that spans most, with all its levels; and all that were tried.

    Every form is measured at its strongest levels, the best of each kind at the weak ones too.

    Args:
        loaded: the model.
        instructor: of the value.
        evaluator: measures intensities; fitted.
        unsteered: one cell over the calibration prompts.
        decoding: as the unsteered answers were made.
        limit: levels with more mean damage count for nothing.
        forms: tried; the first of those that span as much is taken.
        stage: progress.
    """

    def measure(wanted: Sequence[Form], levels: Sequence[int], name: str) -> Mapping[str, Arm]:
        asked = {
            form.name: {x: instructor.given(form, x, unsteered.prompts) for x in levels}
            for form in wanted
        }
        progress = stage(name)
        return prompt_arms(
            loaded, asked, evaluator, unsteered=unsteered, decoding=decoding, progress=progress
        )

    strong = measure(forms, STRONG, "instructions")
    tried = [Tried(form, strong[form.name], limit) for form in forms]
    best = {
        kind: max(own, key=lambda t: t.levels.span)
        for kind in KINDS
        if (own := [t for t in tried if t.form.kind == kind])
    }
    weak = measure([t.form for t in best.values()], WEAK, "weak levels")
    chosen = {
        kind: Tried(t.form, merged(t.arm, weak[t.form.name]), limit) for kind, t in best.items()
    }
    return chosen, tried
