"""concept-saliency batch: a folder of pictures of any size, in one or many processes, killed and resumed at will.

A picture's results are written under a name of their own and appear under their final name in one step, so
that a folder is there whole or not at all; whatever is there is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from ..core import pictures
from . import exports, models, options, place
from .image import Question, asking
from .results import LINE

EXAMPLES = options.examples(
    'concept-saliency batch photos --concepts "cat, sand" --out results',
    'concept-saliency batch photos --concepts "robot|person" --export stem --out masks',
    "accelerate launch --multi_gpu --num_processes 4 --module concept_saliency.cli batch photos --concepts cat")
EARLIER = {"blocks": "double"}  # what was done before it could be chosen, for folders whose settings do not say it


class Results:
    """The results folder, as one of several processes sees it.

    Each process appends to a results-N.jsonl of its own; those of earlier runs with more processes have
    owners too, so that every line has exactly one writer.
    """

    def __init__(self, folder: Path, process: int, processes: int):
        self.folder, self.file = folder, folder / f"results-{process}.jsonl"
        for file in folder.glob("results-*.jsonl"):
            if int(file.stem.partition("-")[2]) % processes == process:
                # drop what a killed process left unfinished, and errors: those pictures are tried again
                place.replace_text(file, "".join(json.dumps(line) + "\n" for line in lines(file) if "error" not in line))
        self.told = {line["picture"] for file in folder.glob("results-*.jsonl") for line in lines(file)}

    def tell(self, line: dict) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, name: str, model: models.Model, question: Question, source: Path, exported: exports.Exports) -> dict:
        """The line of one picture, made now unless it was made before; it is in a results file when this returns."""
        line = self.known(name)
        try:
            if line is None:
                line = self.make(name, model, question, source)
            exported.write(line)
        except Exception as error:  # whatever is wrong with one picture, the others go on
            text = str(error) if isinstance(error, ValueError) else f"'{source}': {type(error).__name__}: {error}"
            line = {"picture": name, "error": text}
        if name not in self.told or "error" in line:
            self.tell(line)
        return line

    def known(self, name: str) -> dict | None:
        """The line of a picture that is done; None where it is not, or where its line is damaged."""
        try:
            return place.read_json(self.folder / name / LINE)
        except (FileNotFoundError, ValueError):
            return None

    def make(self, name: str, model: models.Model, question: Question, source: Path) -> dict:
        """Look at one picture. Its folder appears in one step, in the place of a damaged one."""
        folder = self.folder / name
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        try:
            line = question.answer(model, pictures.read(source), partial, name)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return line


def lines(file: Path) -> Iterable[dict]:
    """The complete lines of a results file; a damaged one is none."""
    for text in file.read_text("utf-8").split("\n")[:-1]:  # what follows the last line's end was never finished
        with suppress(json.JSONDecodeError):
            yield json.loads(text)


def settle(out: Path, found: dict | None, settings: dict) -> None:
    """Remember what was asked. Raises ValueError when this folder holds the results of something else."""
    if found is None:
        place.write_json(out / place.SETTINGS, settings)
        return
    before, now = ({**EARLIER, **given, **given.get("look", {})} for given in (found, settings))
    differing = [f"{key}: {before.get(key)!r}, now {now[key]!r}" for key in now if key != "look" and before.get(key) != now[key]]
    if differing:
        raise ValueError(f"'{out}' holds results of other settings ({'; '.join(differing)}). Choose another --out, "
                         "or the same settings to go on where it stopped.")


@click.command(epilog=EXAMPLES)
@click.argument("folder", type=options.EXISTING_FOLDER)
@asking
@click.option("--export", "kinds", type=click.Choice(exports.KINDS), multiple=True,
              help="Masks for other tools too, in --out/export; several times for several: stem (a folder of masks for each concept, "
                   "named as the pictures, as trainers read them), soft (the same in 16 bits of grey), npz (raw maps), coco (run lengths).")
@click.option("--min-presence", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="A concept that is less present has an empty mask in what is exported, and no annotation.")
@options.out("batch-output")
@options.as_json
def command(folder: Path, model: models.Model, model_name: str, question: Question, kinds: tuple[str, ...], min_presence: float,
            out: Path, as_json: bool) -> None:
    """Look for concepts in every picture of FOLDER and its sub-folders.

    Each picture gets a folder of its name in --out, and one line of JSON in --out/results-N.jsonl, N being the
    process. Killed and started again with the same words, it goes on where it stopped. A picture that fails is
    reported, in its line and with exit code 1 at the end, and skipped. Start it with `accelerate launch`
    --multi_gpu (without a GPU too) for several processes, GPUs or machines that share the folders.
    """
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out is '{folder}', the folder of the pictures itself. Choose another.")
    state = models.process_of(model_name)
    files, left_out = pictures.in_folder(folder, lambda sub: sub.resolve() == out.resolve() or place.is_ours(sub))
    for sub in left_out:
        if state.is_main_process and sub.resolve() != out.resolve():
            click.echo(f"'{sub}' holds results of another run and is left out.", err=True)
    if not files:
        raise ValueError(f"There is no picture in '{folder}'. Pictures end in {', '.join(sorted(pictures.SUFFIXES))}.")
    names = [file.relative_to(folder).as_posix() for file in files]
    exported = exports.Exports(out, kinds, names, question.look, min_presence)
    question.check(model)
    settings = {"command": "batch", "model": model_name} | asdict(question)
    with ExitStack() as claim:
        if state.is_main_process:
            settle(out, claim.enter_context(place.claimed(out, "batch")), settings)
            exported.settle()
        state.wait_for_everyone()  # a process that ends with an error ends the others too
        results = Results(out, state.process_index, state.num_processes)
        mine, broken = range(state.process_index, len(files), state.num_processes), 0
        for number in tqdm(mine, desc="pictures", unit="picture", file=sys.stderr, disable=not state.is_local_main_process):
            line = results.finish(names[number], model, question, files[number], exported)
            if "error" in line:
                broken += 1
                click.echo(line["error"], err=True)
            if as_json:
                click.echo(json.dumps(line))
        state.wait_for_everyone()
        if kinds and state.is_main_process:
            found = [line for file in out.glob("results-*.jsonl") for line in lines(file)]
            told = {line["picture"]: line for line in sorted(found, key=lambda line: "error" in line)}  # errors are of this run
            exported.gather([told[name] for name in names])
    click.echo(f"{len(mine) - broken} pictures done, {broken} failed. Results: {out.resolve()}", err=True)
    if broken:
        click.get_current_context().exit(1)

