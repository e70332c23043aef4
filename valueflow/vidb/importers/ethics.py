"""ETHICS: judgements of justice, virtue, deontology and utility; the first two name values."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import delimited, find_files, label_in, records, text_in

# Character traits of the virtue part that one value covers, by what the trait says of it. Most of
# the part's traits (calm, shy, clever, lazy, ...) are temper or ability, not a value.
TRAITS: dict[str, tuple[str, str]] = {
    "svt/achievement": ("ambition ambitious", "unambitious"),
    "svt/benevolence": (
        "benevolent dependable forgiving reliable trustworthy",
        "undependable unforgiving unreliable untrustworthy",
    ),
    "svt/conformity": (
        "civility courteous polite respectful",
        "boorishness disrespect disrespectful impolite rude rudeness",
    ),
    "svt/hedonism": ("hedonistic self-indulgence self-indulgent", ""),
    "svt/humility": (
        "humble humility modest modesty",
        "arrogant boastful conceit pompous prideful",
    ),
    "svt/power": ("dominating domineering", ""),
    "svt/self-direction": ("creative curiosity imaginative independent", ""),
    "svt/stimulation": ("adventuresome adventurous daring", ""),
    "svt/universalism": ("open-minded tolerant", "bigoted prejudiced"),
    "mft/care-harm": (
        "caring compassionate empathetic empathy gentle humane kind kindness merciful nurturing",
        "abusive callous coldhearted cruel malice merciless pitiless ruthless unkindness",
    ),
    "mft/fairness-cheating": ("fair fairness impartial", "biased unfair"),
    "mft/loyalty-betrayal": (
        "faithful loyal loyalty patriotic patriotism",
        "disloyal traitorous treacherous treasonous",
    ),
    "mft/sanctity-degradation": ("", "gluttonous gluttony licentious lustful"),
    "duty/beneficence": (
        "altruistic charitable generosity generous helpful helpfulness selfless",
        "selfish selfishness stinginess unhelpful unhelpfulness",
    ),
    "duty/fidelity": (
        "candid forthright honest honesty truthful",
        "deceitful deceptive dishonest dishonesty fibbing lying",
    ),
    "duty/gratitude": ("appreciative grateful", "unappreciative ungrateful"),
    "duty/justice": ("just", "unjust"),
}
SHOWN = {trait: value for value, (traits, _) in TRAITS.items() for trait in traits.split()}
CONTRARY = {trait: value for value, (_, traits) in TRAITS.items() for trait in traits.split()}
PARTS = ("justice", "virtue", "deontology", "util")
LABELS = ("0", "1")


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the part's file, or of all parts in the folder or in folders below it."""
    patterns = [f"{below}{part}_*.csv" for below in ("", "*/") for part in PARTS]
    files = [path] if path.is_file() else find_files(path, *patterns)
    parts = {file: file.name.partition("_")[0] for file in files}
    if not {"justice", "virtue"} & set(parts.values()):
        raise InvalidInput(
            f"{path}: expected justice_*.csv or virtue_*.csv; the labels of the other parts of "
            "ETHICS name no value"
        )
    readers = {"justice": _justice, "virtue": _virtue, "deontology": _deontology, "util": _util}
    for file, part in parts.items():
        yield from readers[part](file)


def _justice(file: Path) -> Iterator[Row | LeftOut]:
    for number, (where, cells) in enumerate(delimited(file, ("label", "scenario")), start=1):
        direction: Direction = 1 if label_in(where, cells, "label", LABELS) == "1" else -1
        text = text_in(where, cells, "scenario")
        yield Row(f"{file.stem}/{number}", text, None, "duty/justice", direction)


def _virtue(file: Path) -> Iterator[Row | LeftOut]:
    for number, (where, cells) in enumerate(delimited(file, ("label", "scenario")), start=1):
        shown = label_in(where, cells, "label", LABELS) == "1"
        scenario, mark, trait = text_in(where, cells, "scenario").rpartition("[SEP]")
        if not mark or not trait.strip():
            raise InvalidInput(f"{where}: 'scenario' must end in '[SEP] TRAIT'; mend the record")
        text = text_in(where, {"scenario before [SEP]": scenario}, "scenario before [SEP]")
        # A few cells have a capital or a colon.
        trait, identifier = trait.strip(" :").lower(), f"{file.stem}/{number}"
        if not shown:
            yield LeftOut("virtue: the person does not show the trait")
        elif trait in SHOWN:
            yield Row(identifier, text, None, SHOWN[trait], 1)
        elif trait in CONTRARY:
            yield Row(identifier, text, None, CONTRARY[trait], -1)
        else:
            yield LeftOut("virtue: the trait stands for no value")


def _deontology(file: Path) -> Iterator[Row | LeftOut]:
    for where, cells in delimited(file, ("label", "scenario", "excuse")):
        label_in(where, cells, "label", LABELS)
        yield LeftOut("deontology: whether an excuse or duty is reasonable names no value")


def _util(file: Path) -> Iterator[Row | LeftOut]:
    # The only part without a header: a more and a less pleasant scenario.
    for where, cells in records(file):
        if len(cells) != 2:
            raise InvalidInput(f"{where}: expected two scenarios, got {len(cells)} cells")
        yield LeftOut("util: which scenario is more pleasant names no value")


IMPORTER = Importer(
    name="ethics",
    title="ETHICS",
    licence="MIT",
    files="the folder with justice_*.csv, virtue_*.csv, ... (or folders of parts), or one file",
    mapping=(
        "justice: what people are due and when they may be treated otherwise; a scenario judged "
        "reasonable (1) supports duty/justice, one judged unreasonable (0) opposes it. virtue: a "
        "scenario whose person shows a trait (1) supports or opposes the value that the trait is "
        "for or against, by the list in `ethics.TRAITS`; a trait that is not shown (0) says "
        "nothing about the value. No degrees. deontology (is the excuse reasonable?) and util "
        "(which is more pleasant?) name no value: counted and left out, and refused alone. The "
        "commonsense part is not read. The corpus has no ids: id = file and number of the record."
    ),
    read=read,
)
