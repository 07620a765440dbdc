"""concept-saliency batch: a folder of pictures of any size, in one or many processes, killed and resumed at will.

A picture's results are written under a name of their own and appear under their final name in one step, so
that a folder is there whole or not at all; whatever is there is not done again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Iterable

import click
from tqdm import tqdm

from . import models, options, pictures
from .image import Question, asking

EXAMPLES = options.examples(
    'concept-saliency batch photos --concepts "cat, sand" --out results',
    "accelerate launch --multi_gpu --num_processes 4 --module concept_saliency.cli batch photos --concepts cat")
LINE = "result.json"  # in a picture's folder: its line of the results file
SETTINGS = "settings.json"


class Results:
    """The results folder, as one of several processes sees it.

    Each process appends to a results-N.jsonl of its own; those of earlier runs with more processes have
    owners too, so that every line has exactly one writer.
    """

    def __init__(self, folder: Path, settings: dict, process: int, processes: int):
        self.folder, self.file = folder, folder / f"results-{process}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._settle(settings, first=process == 0)
        for file in folder.glob("results-*.jsonl"):
            if int(file.stem.partition("-")[2]) % processes == process:
                self._tidy(file)
        self.told = {line["picture"] for file in folder.glob("results-*.jsonl") for line in lines(file)}

    def _settle(self, settings: dict, first: bool) -> None:
        """Remember what was asked. Raises ValueError when this folder holds the results of something else."""
        file = self.folder / SETTINGS
        if not file.exists():
            if first:
                replace_text(file, json.dumps(settings, indent=1))
        elif (found := json.loads(file.read_text("utf-8"))) != settings:
            differing = ", ".join(key for key in settings if found.get(key) != settings[key])
            raise ValueError(f"'{self.folder}' holds results of other settings ({differing}). Choose another --out, "
                             "or the same settings to go on where it stopped.")

    def _tidy(self, file: Path) -> None:
        """Drop a line that a killed process left unfinished, and errors: those pictures are tried again."""
        replace_text(file, "".join(json.dumps(line) + "\n" for line in lines(file) if "error" not in line))

    def tell(self, line: dict) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, name: str, model: models.Model, question: Question, source: Path) -> dict:
        """The line of one picture, made now unless it was made before; it is in a results file when this returns."""
        folder = self.folder / name
        if folder.exists():
            line = json.loads((folder / LINE).read_text("utf-8"))
        else:
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            try:
                line = {"picture": name} | question.answer(model, pictures.read(source), partial, name)
            except pictures.Unreadable as error:
                line = {"picture": name, "error": str(error)}
            else:
                (partial / LINE).write_text(json.dumps(line), "utf-8")
                os.replace(partial, folder)
        if name not in self.told:
            self.tell(line)
        return line


def lines(file: Path) -> Iterable[dict]:
    """The complete lines of a results file."""
    for text in file.read_text("utf-8").split("\n")[:-1]:  # what follows the last line's end was never finished
        yield json.loads(text)


def replace_text(file: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, file)


@click.command(epilog=EXAMPLES)
@click.argument("folder", type=options.EXISTING_FOLDER)
@asking
@options.out("batch-output")
@options.as_json
def command(folder: Path, model: models.Model, model_name: str, question: Question, out: Path, as_json: bool) -> None:
    """Look for concepts in every picture of FOLDER and its sub-folders.

    Each picture gets a folder of its name in --out, and one line of JSON in --out/results-N.jsonl, N being the
    process. Killed and started again with the same words, it goes on where it stopped. A file that cannot be
    read is reported, in its line and with exit code 1 at the end, and skipped. Start it with `accelerate launch`
    --multi_gpu (without a GPU too) for several processes, GPUs or machines that share the folders.
    """
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out is '{folder}', the folder of the pictures itself. Choose another.")
    state = models.process_of(model_name)
    files = pictures.in_folder(folder, leave_out=out)
    if not files:
        raise ValueError(f"There is no picture in '{folder}'. Pictures end in {', '.join(sorted(pictures.SUFFIXES))}.")
    question.check(model)
    results = Results(out, {"model": model_name} | asdict(question), state.process_index, state.num_processes)
    mine, broken = files[state.process_index::state.num_processes], 0
    for file in tqdm(mine, desc="pictures", unit="picture", file=sys.stderr, disable=not state.is_local_main_process):
        line = results.finish(file.relative_to(folder).as_posix(), model, question, file)
        if "error" in line:
            broken += 1
            click.echo(line["error"], err=True)
        if as_json:
            click.echo(json.dumps(line))
    state.wait_for_everyone()  # a process that ends with an error ends the others too
    click.echo(f"{len(mine) - broken} pictures done, {broken} could not be read. Results: {out.resolve()}", err=True)
    if broken:
        click.get_current_context().exit(1)
