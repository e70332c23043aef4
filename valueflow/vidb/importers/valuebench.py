"""ValueBench: items of psychometric questionnaires, and language models' answers to them."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import delimited, find_files, label_in, text_in

_FOUNDATIONS = {
    "Care": "mft/care-harm",
    "Loyalty": "mft/loyalty-betrayal",
    "Authority": "mft/authority-subversion",
    "Purity": "mft/sanctity-degradation",
}

# Only scales that measure a value, a foundation or face. Traits that share a name with a value
# ("Achievement" of a personality inventory) describe how a person is, not what the person prizes.
SCALES: dict[str, dict[str, str | None]] = {
    # Schwartz's ten types of 1992: humility is part of tradition there, and stays so.
    "PVQ40": {
        name: f"svt/{name.lower()}"
        for name in (
            "Self-Direction",
            "Stimulation",
            "Hedonism",
            "Achievement",
            "Power",
            "Security",
            "Conformity",
            "Tradition",
            "Benevolence",
            "Universalism",
        )
    },
    "MFT08": {**_FOUNDATIONS, "Fairness": "mft/fairness-cheating"},
    "MFT23": {
        **_FOUNDATIONS,
        "Equality": "mft/fairness-cheating",
        "Proportionality": "mft/fairness-cheating",
    },
    # Life Values Inventory (Brown and Crace, 1996): seven scales that one value of ours covers. The
    # items of the others are of several values, or of none.
    "LVI": {
        "Achievement": "svt/achievement",
        "Concern for the Environment": "svt/universalism",
        # Others at large, not those one is close to.
        "Concern for Others": "duty/beneficence",
        "Creativity": "svt/self-direction",
        "Financial Prosperity": "svt/power",
        "Humility": "svt/humility",
        "Independence": "svt/self-direction",
        "Belonging": None,
        "Health and Activity": None,
        "Loyalty to Family or Group": None,
        "Privacy": None,
        "Responsibility": None,
        "Scientific Understanding": None,
        "Spirituality": None,
    },
    # To want face and to fear its loss are the two sides of prizing it.
    "CSF": {"Desire to Gain Face": "svt/face", "Fear of Losing Face": "svt/face"},
}
# The other questionnaires: personality, affect, coping, beliefs, and SOV, which asks for choices
# between two of its six orientations.
WITHOUT_VALUE = (
    "6FPQ", "AB5C", "AHS", "AVT", "BIS_BAS", "Barchard2001", "Buss1980", "CAT-PD", "CS", "EACS",
    "EES", "ERS", "FS", "HEXACO", "IRI", "JPI", "LAQ / NEO-PI-R", "LTO", "MPQ", "NFCC1993",
    "NFCC2000", "PSS", "R", "SA", "SAS", "SC", "SOV", "SWLS", "UA", "VSM13", "ZSC",
)  # fmt: skip
KEYS: dict[str, Direction] = {"1": 1, "-1": -1}
MODELS = (
    "gpt-4-1106-preview",
    "gpt-3.5-turbo-1106",
    "llama-7b-chat",
    "llama-70b-chat",
    "mistral-7b-instruct",
    "mixtral-8x7b-instruct",
)
# 0 a clear no to the question, 5 undecided, 10 a clear yes.
RATINGS = {str(rating): (rating - 5) / 5 for rating in range(11)}
ITEMS, ANSWERS = "value_orientation.csv", "QA_answers_rating.csv"


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the items, then of the answers, whichever of the two files is there."""
    for file in [path] if path.is_file() else find_files(path, ITEMS, ANSWERS):
        if file.name not in (ITEMS, ANSWERS):
            raise InvalidInput(f"{file}: expected {ITEMS} or {ANSWERS}; keep the published names")
        yield from _items(file) if file.name == ITEMS else _answers(file)


def _items(file: Path) -> Iterator[Row | LeftOut]:
    columns = ("questionnaire", "item", "value", "agreement")
    for number, (where, cells) in enumerate(delimited(file, columns), start=1):
        text = text_in(where, cells, "item")
        value = _value(where, cells, "questionnaire", "value")
        direction = KEYS[label_in(where, cells, "agreement", KEYS)]
        if value is None:
            yield LeftOut("an item of a scale that stands for no value")
        else:
            yield Row(f"item/{number}", text, None, value, direction)


def _answers(file: Path) -> Iterator[Row | LeftOut]:
    named = ("questionnaire info", "corresponding value", "Agreement", "question")
    given = tuple(f"{model}_{part}" for model in MODELS for part in ("answer", "rating"))
    for number, (where, cells) in enumerate(delimited(file, (*named, *given)), start=1):
        question = text_in(where, cells, "question")
        value = _value(where, cells, "questionnaire info", "corresponding value")
        key = KEYS[label_in(where, cells, "Agreement", KEYS)]
        for model in MODELS:
            text = text_in(where, cells, f"{model}_answer")
            grade = key * RATINGS[label_in(where, cells, f"{model}_rating", RATINGS)]
            if value is None:
                yield LeftOut("an answer about a scale that stands for no value")
            else:
                direction: Direction = 0 if grade == 0 else 1 if grade > 0 else -1
                identifier = f"answer/{number}/{model}"
                yield Row(identifier, text, question, value, direction, grade)


def _value(where: str, cells: dict[str, str], scale: str, construct: str) -> str | None:
    questionnaire = label_in(where, cells, scale, (*SCALES, *WITHOUT_VALUE))
    if questionnaire in WITHOUT_VALUE:
        return None
    values = SCALES[questionnaire]
    return values[label_in(where, cells, construct, values)]


IMPORTER = Importer(
    name="valuebench",
    title="ValueBench",
    licence="MIT",
    files=f"the folder with {ITEMS} or {ANSWERS} or both, or one of them",
    mapping=(
        "Scales of PVQ40 (ten Schwartz types), MFT08 and MFT23 (foundations; Equality and "
        "Proportionality are mft/fairness-cheating), seven scales of LVI and the two of CSF "
        "(svt/face). An item is a text whose direction is its key. An answer of a language model "
        "is a text with the question as context; grade = (rating - 5) / 5 times the item's key, "
        "the rating being a model's, 0 (no) to 10 (yes). Left out: every scale of personality, "
        "affect or clinical interest. The corpus has no ids: id = number of the record (and model)."
    ),
    read=read,
)
