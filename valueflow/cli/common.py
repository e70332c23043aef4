"""What the verbs share: options, files read and written whole, progress on stderr."""

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.errors import InvalidInput

if TYPE_CHECKING:
    from valueflow.hives.encoder import Encoder
    from valueflow.models.loading import LoadedModel

Progress = Callable[[int, int], None]
Stage = Callable[[str], Progress]

Model = Annotated[
    str, typer.Argument(help="A packaged name (see `models list`), a folder, or a hub id.")
]
Judge = Annotated[
    str,
    typer.Option(
        help="Who ranks the texts: hives, hives-small, prototype, local:MODEL or openai:MODEL."
    ),
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Of a language model as judge, say method=list or dtype=bfloat16 (local), "
        "budget_tokens=100000 (openai); repeat for more.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything that chance decides.")]
Template = Annotated[
    str, typer.Option(help="Format of prompts: auto, chat or plain; a base model has plain alone.")
]
OutFolder = Annotated[Path, typer.Option(help="A folder that is new or empty.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", dir_okay=False, help="Also write the result to this file, as JSON."),
]


def read_text(path: Path) -> str:
    """A file's text, a byte order mark left out.

    Raises:
        InvalidInput: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: expected UTF-8 text, byte {error.start} is none") from None


def read_prompts(path: Path, *, at_least: int = 1) -> list[str]:
    """One prompt a line, blank lines left out.

    Raises:
        InvalidInput: as `read_text`, or there are fewer than `at_least`.
    """
    prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(prompts) < at_least:
        raise InvalidInput(
            f"{path}: expected one prompt a line, {at_least} or more; found {len(prompts)}"
        )
    return prompts


def write_text(path: Path, text: str) -> None:
    """Write a file; it appears whole or not at all.

    Raises:
        InvalidInput: it cannot be written.
    """
    from valueflow.artifacts import write_file

    try:
        write_file(path, text.encode())
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None


def write_json(path: Path | None, result: Any) -> None:
    """Write a verb's result if a file was asked for; numbers that are not finite become null."""
    if path is not None:
        write_text(path, json.dumps(_plain(result), indent=2, ensure_ascii=False) + "\n")


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something, before the work rather than after it."""
    check_parent(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInput(f"{folder} exists; give --out a folder that is new or empty")


def refuse_given(why: str, other: str, **options: object) -> None:
    """Refuse options that another one, such as "--work", leaves without effect."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise InvalidInput(
            f"{', '.join(given)}: {why}; leave out {'it' if len(given) == 1 else 'them'} or {other}"
        )


def check_parent(path: Path) -> None:
    """Refuse a path below something that is no folder; missing folders are made later."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise InvalidInput(f"{path} cannot be written: {nearest} is no folder")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` once everything is in it."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_model(name: str) -> "LoadedModel":
    """The model that a verb was given the name of."""
    from valueflow.models import load

    return load(name)


def checked_template(name: str) -> Any:
    """A format of prompts by its name.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in ("auto", "chat", "plain"):
        raise InvalidInput(f"--template {name}: expected auto, chat or plain")
    return name


def encoder_named(name: str) -> "Callable[[], Encoder]":
    """What loads an encoder: a shipped space, a trained folder, or a base.

    Raises UnknownName for what is none of them, before any work; names near misses.
    """
    from valueflow.hives.build import KIND
    from valueflow.hives.encoder import SHIPPED, load_frozen_encoder, load_value_encoder
    from valueflow.models import list_packaged
    from valueflow.registry import unknown_name

    folder = Path(name)
    if name in SHIPPED or (folder / f"{KIND}.json").is_file():
        return lambda: load_value_encoder(name)
    known = [model.name for model in list_packaged() if model.kind == "encoder"]
    if name not in known and "/" not in name and not folder.exists():
        raise unknown_name("encoder", name, [*SHIPPED, *known])
    return lambda: load_frozen_encoder(name)


def read_with(
    encoder: "Encoder", texts: Collection[str], progress: Progress, chunk: int = 256
) -> None:
    """Have the encoder read texts, longest first; it remembers, so what follows costs nothing."""
    ordered = sorted(set(texts), key=lambda text: (-len(text), text))
    for start in range(0, len(ordered), chunk):
        encoder.embed(ordered[start : start + chunk])
        progress(min(start + chunk, len(ordered)), len(ordered))


@contextmanager
def stages() -> Iterator[Stage]:
    """Tells stderr how far long work is: bars on a terminal, else a line for every tenth.

    The messages and bars that loading a model prints are turned off.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not sys.stderr.isatty():
        yield _lines
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True)) as bars:

        def stage(name: str) -> Progress:
            for task in bars.tasks:
                bars.update(task.id, total=task.total or 1, completed=task.total or 1)
            task_id = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task_id, completed=done, total=total)

        yield stage


def _lines(name: str) -> Progress:
    typer.echo(f"{name} ...", err=True)
    shown = 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if 10 * done // total > shown:
            shown = 10 * done // total
            typer.echo(f"{name} {done}/{total}", err=True)

    return progress


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
