"""The folder of results: claimed by one run, never somebody else's, and what cannot be made again is kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from concept_saliency.cli import image, models, place, results, shell
from concept_saliency.core.recording import Recording
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.world import make_scene


@pytest.fixture(scope="module")
def tiny() -> models.Tiny:
    return models.Tiny(TinyFlux())


@pytest.fixture
def run(tiny, monkeypatch, tmp_path):
    """Runs a command in a folder with two pictures in `photos`."""
    monkeypatch.setattr(models, "load", lambda name, weights=None: tiny)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(make_scene(3, (48, 32)).image).save(f"photos/{name}.png")
    return lambda *arguments: CliRunner().invoke(shell, list(arguments))


BATCH = ("batch", "photos", "--concepts", "cat", "--out", "out")
GENERATE = ("generate", "--prompt", "a cat", "--size", "64x64", "--steps", "1", "--out", "out", "--concepts")


def test_one_run_at_a_time(run):
    with place.claimed(Path("out"), "batch"):
        for arguments in (BATCH, (*GENERATE, "cat"), ("image", "photos/a.png", "--concepts", "cat", "--out", "out")):
            refused = run(*arguments)
            assert refused.exit_code == 2 and "Another run is at work in 'out'" in refused.stderr
    assert not Path("out").exists(), "nothing came of it"
    assert run(*BATCH).exit_code == 0


def test_the_lock_of_a_killed_run_blocks_nobody(run):
    code = ("import os, signal; from pathlib import Path; from concept_saliency.cli import place; "
            "claim = place.claimed(Path('out'), 'batch'); claim.__enter__(); os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9 and Path("out", place.LOCK).exists()
    assert run(*BATCH).exit_code == 0


@pytest.mark.parametrize("arguments", [BATCH, (*GENERATE, "cat"), ("image", "photos/a.png", "--concepts", "cat", "--out", "out")])
def test_a_folder_of_somebody_else_is_left_alone(run, arguments):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    refused = run(*arguments)
    assert refused.exit_code == 2 and "'out', which holds other things than results (notes.txt)" in refused.stderr
    assert Path("out/notes.txt").read_text() == "mine"


def test_the_results_of_another_command_are_left_alone(run):
    assert run("image", "photos/a.png", "--concepts", "cat", "--out", "out").exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in Path("out").rglob("*") if file.name != place.LOCK}
    for arguments in (BATCH, (*GENERATE, "cat")):
        refused = run(*arguments)
        assert refused.exit_code == 2 and f"the results of 'image', not of '{arguments[0]}'" in refused.stderr
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_an_unwritable_place_is_noticed_before_the_work(run, tiny, monkeypatch):
    Path("file").touch()
    monkeypatch.setattr(type(tiny), "generate", lambda *asked: pytest.fail("sampled for nothing"))
    refused = run(*GENERATE[:-2], "file/out", "--concepts", "cat")
    assert refused.exit_code == 2 and "nothing can be written: Not a directory" in refused.stderr


def test_layers_that_are_not_there_are_noticed_before_the_work(run, tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "generate", lambda *asked: pytest.fail("sampled for nothing"))
    refused = run(*GENERATE, "cat", "--layers", "7")
    assert refused.exit_code == 2 and "layers are 0 to 3" in refused.stderr and not Path("out").exists()


def test_the_recording_outlives_a_crash_in_a_picture(run, monkeypatch):
    def crash(*args, **kwargs):
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(results.masks, "mask", crash)
        crashed = run(*GENERATE, "cat")
    assert isinstance(crashed.exception, RuntimeError) and "What was recorded is kept" in crashed.stderr
    assert Recording.load("out/recording.safetensors").concepts == ("cat",)
    assert run(*GENERATE, "cat").exit_code == 0, "and the folder can be used again"


def test_no_heatmap_of_an_earlier_question_stays(run):
    assert run(*GENERATE, "cat, sky").exit_code == 0
    Path("out/mine.txt").write_text("mine")
    assert run(*GENERATE, "robot").exit_code == 0
    names = {file.name for file in Path("out").glob("*.png")}
    assert names == {f"{kind}_1_robot.png" for kind in ("heatmap", "overlay", "mask")} | {"picture.png", "contact_sheet.png"}
    assert Path("out/mine.txt").read_text() == "mine"


def test_one_picture_that_crashes_does_not_stop_a_batch_now_or_later(run, monkeypatch):
    answer = image.Question.answer

    def crash(self, model, picture, folder, name, *more):
        if name == "a.png":
            raise RuntimeError("on purpose")
        return answer(self, model, picture, folder, name, *more)

    with monkeypatch.context() as patch:
        patch.setattr(image.Question, "answer", crash)
        for _ in range(2):
            done = run(*BATCH)
            assert done.exit_code == 1 and "'photos/a.png': RuntimeError: on purpose" in done.stderr
            assert "1 pictures done, 1 failed" in done.stderr
            lines = [json.loads(line) for line in Path("out/results-0.jsonl").read_text().splitlines()]
            assert sorted("error" in line for line in lines) == [False, True]
    assert run(*BATCH).exit_code == 0 and Path("out/a.png/result.json").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_damaged_files(run, damage):
    """A picture's own is made anew; the settings say by name what is wrong."""
    assert run(*BATCH).exit_code == 0
    whole = Path("out/a.png/result.json").read_text()
    Path("out/a.png/result.json").write_text(damage)
    assert run(*BATCH).exit_code == 0 and Path("out/a.png/result.json").read_text() == whole
    assert len(Path("out/results-0.jsonl").read_text().splitlines()) == 2
    Path("out/settings.json").write_text(damage)
    refused = run(*BATCH)
    assert refused.exit_code == 2 and "settings.json' " in refused.stderr and "Remove the folder 'out'" in refused.stderr


def test_results_among_the_pictures_are_no_pictures(run):
    assert run("image", "photos/a.png", "--concepts", "cat", "--out", "photos/earlier").exit_code == 0
    done = run("batch", "photos", "--concepts", "cat", "--out", "photos/now")
    assert done.exit_code == 0 and "'photos/earlier' holds results of another run and is left out" in done.stderr
    assert "2 pictures done" in done.stderr and not Path("photos/now/earlier").exists()
    assert "2 pictures done" in run("batch", "photos", "--concepts", "cat", "--out", "photos/now").stderr


def test_a_file_of_figures_goes_on_or_says_why_it_cannot(tmp_path):
    file = tmp_path / "figures.jsonl"
    place.Lines(file, {"steps": 4}, "--out").add({"number": 0})
    with file.open("a") as opened:
        opened.write('{"number": 1')  # killed within the line
    assert place.Lines(file, {"steps": 4}, "--out").lines == [{"number": 0}]
    assert place.Lines(None, {"steps": 4}, "--out").lines == []
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\n")
    before = file.read_bytes()
    for given, asked, message in ((file, {"steps": 5}, r"another evaluation \(steps\)"), (tmp_path / "picture.jpg", {}, "is damaged"),
                                  (tmp_path / "none" / "x", {}, "there is no folder"), (tmp_path, {}, "cannot be read and written")):
        with pytest.raises(ValueError, match=message):
            place.Lines(given, asked, "--out")
    assert file.read_bytes() == before and not (tmp_path / "none").exists()
