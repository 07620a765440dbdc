"""The folder that a command writes to: claimed before the work begins, by one run at a time, and never somebody else's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

SETTINGS = "settings.json"  # in every folder of results: which command wrote it, and what was asked
LOCK = ".lock"


@contextmanager
def claimed(out: Path, command: str) -> Iterator[dict | None]:
    """--out for as long as a run of `command` lasts; gives the settings of the run before it, None where there was none.

    The lock ends with the process that holds it, however that ends. Raises ValueError where nothing can be written,
    where another run is at work, and where the folder holds anything but results of that command.
    """
    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"Another run is at work in '{out}'. Wait until it has ended, or choose another --out.") from error
    except OSError as error:
        raise ValueError(f"--out is '{out}', where nothing can be written: {error.strerror}. Choose another.") from error
    try:
        yield settings_of(out, command)
    finally:
        lock.release()
        if [path.name for path in out.iterdir()] == [LOCK]:  # nothing came of it
            (out / LOCK).unlink()
            out.rmdir()


def settings_of(out: Path, command: str) -> dict | None:
    """The settings of the run that wrote to this folder; None for an empty one. Raises ValueError where that was another command."""
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if not names:
        return None
    if SETTINGS not in names:
        raise ValueError(f"--out is '{out}', which holds other things than results ({', '.join(names[:3])}). Choose another.")
    settings = read_json(out / SETTINGS)
    if settings.get("command") != command:
        raise ValueError(f"--out is '{out}', which holds the results of '{settings.get('command')}', not of '{command}'. Choose another.")
    return settings


def is_ours(folder: Path) -> bool:
    """Whether a folder holds results of any command."""
    try:
        return "command" in read_json(folder / SETTINGS)
    except (OSError, ValueError):
        return (folder / LOCK).exists() and (folder / SETTINGS).exists()  # damaged, but ours


class Lines:
    """What a run has found so far, one line of JSON each, in a file where one is given; another run goes on from it.

    asked: what it depends on; the file's first line. option: which one named the file, for messages. Raises ValueError for a damaged
    file, for one of something else, and where nothing can be written.
    """

    def __init__(self, file: Path | None, asked: dict, option: str):
        self.file, found = file, []
        if file is not None:
            if not file.parent.is_dir():
                raise ValueError(f"{option} is '{file}', and there is no folder '{file.parent}'. Make it, or give another.")
            try:
                found = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]] if file.exists() else []
                if not found or found[0] == asked:
                    replace_text(file, "".join(json.dumps(line) + "\n" for line in (found or [asked])))  # less a line that was not finished
            except OSError as error:
                raise ValueError(f"{option} is '{file}', which cannot be read and written: {error.strerror}. Give another.") from error
            except ValueError as error:
                raise ValueError(f"{option} is '{file}', which is damaged or no file of figures: {error}. Give another.") from error
            if found and found[0] != asked:
                differing = ", ".join(key for key in asked if not isinstance(found[0], dict) or found[0].get(key) != asked[key])
                raise ValueError(f"{option} is '{file}', which holds the figures of another evaluation ({differing}). Give another.")
        self.lines = found[1:]

    def add(self, line: dict) -> None:
        self.lines.append(line)
        if self.file:
            with self.file.open("a", encoding="utf-8") as opened:
                opened.write(json.dumps(line) + "\n")


def read_json(file: Path) -> dict:
    """A file of ours. Raises ValueError, naming it, for a damaged one."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is damaged ({'it is empty' if not file.stat().st_size else error}). "
                         f"Remove the folder '{file.parent}' to have its results made anew.") from error
    if not isinstance(found, dict):
        raise ValueError(f"'{file}' holds something else than what was written to it. Remove the folder '{file.parent}'.")
    return found


def write_json(file: Path, content: dict) -> None:
    replace_text(file, json.dumps(content, indent=1))


def replace_text(file: Path, text: str) -> None:
    write_whole(file, text.encode("utf-8"))


def write_whole(file: Path, content: bytes) -> None:
    """Write a file, and its folder, so that it is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    with partial.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())  # else a machine that loses power may leave an empty file under the new name
    os.replace(partial, file)
