"""The shell commands on pictures: what they write, how they fail, and that a batch survives being killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from concept_saliency import __version__
from concept_saliency.cli import COMMANDS, batch, main, models, results, shell
from concept_saliency.cli.image import Question
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import saliency
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.world import make_scene


@pytest.fixture(scope="module")
def tiny() -> models.Tiny:
    return models.Tiny(TinyFlux())


@pytest.fixture
def run(tiny, monkeypatch):
    """Runs a command with the tiny model, which is loaded once."""
    monkeypatch.setattr(models, "load", lambda name, weights=None: tiny)
    return lambda *arguments: CliRunner().invoke(shell, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eight pictures of odd sizes in two folders, the third and the last broken; and a file that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i in range(8):
        path = folder / (f"{i}.png" if i < 5 else f"more/{i} [x].jpg")
        Image.fromarray(make_scene(i, (33 + 5 * i, 47)).image).save(path)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:300])
    (folder / "more" / "7 [x].jpg").write_text("not a picture")
    (folder / "notes.txt").write_text("not meant to be one")
    return folder


def told(out: Path) -> list[dict]:
    """All lines of a batch, by picture."""
    lines = [json.loads(line) for file in out.glob("results-*.jsonl") for line in file.read_text().splitlines()]
    return sorted(lines, key=lambda line: line["picture"])


def files(out: Path) -> dict[str, bytes]:
    """The content of every file of the pictures' folders; of recordings the scores, their header has no fixed order."""
    found = (p for p in sorted(out.rglob("*")) if p.is_file() and p.parent != out)
    return {p.relative_to(out).as_posix():
            Recording.load(p).scores.numpy().tobytes() if p.suffix == ".safetensors" else p.read_bytes() for p in found}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    result = CliRunner().invoke(shell, [command, "--help"])
    assert result.exit_code == 0 and f"concept-saliency {command}" in result.output.partition("Examples:")[2]


def test_the_list_of_commands():
    result = CliRunner().invoke(shell, ["--help"])
    assert result.exit_code == 0 and all(command in result.output for command in COMMANDS)
    assert CliRunner().invoke(shell, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(shell, ["--version"]).output == f"concept-saliency, version {__version__}\n"


def test_generate_and_inspect(run, tmp_path):
    out = tmp_path / "out"
    result = run("generate", "--prompt", "a cat on snow", "--concepts", "cat, snow|sand", "--size", "64x48", "--steps", 2,
                 "--mask", "otsu", "--json", "--out", out)
    about = json.loads(result.stdout)
    assert result.exit_code == 0 and (about["width"], about["height"]) == (64, 48)
    assert [c["concept"] for c in about["concepts"]] == ["cat", "snow"]
    assert {p.name for p in out.iterdir()} == {".lock", "settings.json", "result.json"} | {about["picture"], *results.files(about)}
    assert json.loads((out / "result.json").read_text()) | {"folder": str(out)} == about
    recording = out / about["recording"]
    shown = json.loads(run("inspect", recording, "--json").stdout)
    assert (shown["kind"], shown["space"], shown["layers"], shown["steps"]) == ("recording", "output", [0, 1, 2, 3], 2)
    assert (shown["image_size"], shown["grid"], shown["concepts"]) == ("64 x 48", "4 x 3", ["cat", "snow"])
    assert list(shown["presence"][0].values()) == [c["presence"] for c in about["concepts"]]
    saliency(Recording.load(recording)).save(tmp_path / "maps.safetensors")
    text = run("inspect", tmp_path / "maps.safetensors").stdout
    assert "kind: saliency" in text and "image size: 64 x 48" in text and "presence, picture 1: cat 0." in text


def test_image_of_any_size(run, tmp_path):
    """The results have the picture's own size; the token grid reaches beyond it."""
    picture = tmp_path / "a.png"
    Image.fromarray(make_scene(3, (61, 83)).image).save(picture)
    result = run("image", picture, "--concepts", "cat", "--contrast", "sand, sky", "--samples", 2, "--json",
                 "--out", tmp_path / "out")
    about = json.loads(result.stdout)
    assert result.exit_code == 0 and about["picture"] == str(picture)
    with Image.open(Path(about["folder"]) / about["concepts"][0]["mask"]) as mask:
        assert mask.size == (83, 61)
    recording = Recording.load(Path(about["folder"]) / about["recording"])
    assert recording.image_size == (61, 83) and tuple(recording.scores.shape) == (2, 4, 1, 3, 4, 6)
    assert not torch.equal(recording.scores[0], recording.scores[1]), "the passes have different noise"


@pytest.mark.parametrize("arguments, message", [
    (["image", "missing.png", "--concepts", "cat"], "does not exist"),
    (["image", "pictures/0.png", "pictures/2.png", "--concepts", "cat"], "2.png' cannot be read as a picture"),
    (["image", "pictures/0.png", "pictures/../pictures/0.png", "--concepts", "cat"], "same name"),
    (["image", "pictures/0.png", "--concepts", "unicorn"], "does not know 'unicorn'"),
    (["image", "pictures/0.png", "--concepts", "cat", "--layers", "9"], "layers are 0 to 3"),
    (["batch", "pictures", "--concepts", "unicorn"], "does not know 'unicorn'"),
    (["batch", "empty", "--concepts", "cat"], "There is no picture in 'empty'"),
    (["batch", "empty", "--concepts", "cat", "--out", "empty"], "the folder of the pictures itself"),
    (["generate", "--prompt", "a unicorn", "--concepts", "cat"], "does not know 'unicorn'"),
    (["generate", "--prompt", "a cat", "--concepts", "cat", "--size", "big"], "is no size"),
    (["generate", "--prompt", "a cat", "--concepts", "cat", "--size", "50x50"], "multiples of 16"),
    (["inspect", "pictures/0.png"], "cannot be read as safetensors"),
])
def test_unusable_input_is_refused_and_nothing_is_written(run, folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    result = run(*arguments, *(["--out", "out"] if arguments[0] != "inspect" and "--out" not in arguments else []))
    assert result.exit_code == 2 and message in result.stderr and not Path("out").exists()


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="--model is 'nobody/nothing'"):
        models.load("nobody/nothing")


class Killed(BaseException):
    """Nothing catches it, as nothing catches a SIGKILL."""


def killed(*_):
    raise Killed


def kill_while_writing(patches):
    patches.setattr(os, "replace", lambda source, target: os.rename(source, target) if ".json" in str(target) else killed())


def kill_before_the_line(patches):
    patches.setattr(batch.Results, "tell", killed)


def kill_within_the_line(patches):
    def tell(self, line):
        with self.file.open("a") as file:
            file.write(json.dumps(line)[:20])
        killed()
    patches.setattr(batch.Results, "tell", tell)


@pytest.mark.parametrize("kill", [kill_while_writing, kill_before_the_line, kill_within_the_line])
def test_a_batch_that_was_killed_goes_on_where_it_stopped(run, folder, tmp_path, monkeypatch, kill):
    """Killed at the fourth picture, after one that is broken: nothing is lost, nothing is done twice."""
    arguments, answered, answer = ["batch", folder, "--concepts", "cat, sand", "--out"], [], Question.answer

    def counted(self, model, picture, place, title):
        answered.append(title)
        if len(answered) == 3:
            kill(stopping)
        return answer(self, model, picture, place, title)

    undisturbed = run(*arguments, tmp_path / "whole")
    assert undisturbed.exit_code == 1 and "6 pictures done, 2 failed" in undisturbed.stderr
    with monkeypatch.context() as counting, monkeypatch.context() as stopping:
        counting.setattr(Question, "answer", counted)
        with pytest.raises(Killed):
            run(*arguments, tmp_path / "out")
    assert answered == ["0.png", "1.png", "3.png"]
    with monkeypatch.context() as counting:
        counting.setattr(Question, "answer", lambda self, model, picture, place, title:
                         answered.append(title) or answer(self, model, picture, place, title))
        resumed = run(*arguments, tmp_path / "out")
        again = run(*arguments, tmp_path / "out")
    assert resumed.exit_code == again.exit_code == 1
    again_once = 1 if kill is kill_while_writing else 0  # the one whose results were not there yet
    assert len(answered) == 6 + again_once
    assert set(answered) == {line["picture"] for line in told(tmp_path / "out") if "error" not in line}
    assert told(tmp_path / "out") == told(tmp_path / "whole") and len(told(tmp_path / "out")) == 8
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert [line["picture"] for line in told(tmp_path / "out") if "error" in line] == ["2.png", "more/7 [x].jpg"]


def test_a_batch_keeps_to_its_settings_and_leaves_its_own_pictures_alone(run, folder):
    for broken in (folder / "2.png", folder / "more" / "7 [x].jpg"):
        broken.unlink()
    first = run("batch", folder, "--concepts", "cat", "--out", folder / "out", "--json")
    assert first.exit_code == 0 and len([json.loads(line) for line in first.stdout.splitlines()]) == 6
    assert run("batch", folder, "--concepts", "cat", "--out", folder / "out").exit_code == 0
    assert len(told(folder / "out")) == 6
    other = run("batch", folder, "--concepts", "sand", "--out", folder / "out")
    assert other.exit_code == 2 and "results of other settings (concepts: 'cat', now 'sand')" in other.stderr
    other = run("batch", folder, "--concepts", "cat", "--mask", "otsu", "--out", folder / "out")
    assert other.exit_code == 2 and "other settings (mask: 'auto', now 'otsu')" in other.stderr


def test_a_batch_goes_on_in_a_folder_of_a_version_in_which_blocks_could_not_be_chosen(run, folder):
    """It looked at double-stream blocks; what the model's own choice is may have changed since."""
    asked = ["batch", folder, "--concepts", "cat", "--out", folder / "out"]
    run(*asked, "--blocks", "double")
    file = folder / "out" / "settings.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "blocks"}))
    assert "blocks: 'double', now 'auto'" in run(*asked).stderr
    again = run(*asked, "--blocks", "double")
    assert again.exit_code == 1 and "6 pictures done, 2 failed" in again.stderr, "the two that cannot be read"


def test_two_processes_do_what_one_does(run, folder, tmp_path):
    """With accelerate's own launcher; the results of a run with more processes can be resumed by one."""
    arguments = ["batch", folder, "--concepts", "cat, sand", "--out"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "--module", "concept_saliency.cli"]
    done = subprocess.run([*launch, *map(str, arguments), str(tmp_path / "two")], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1, done.stderr
    assert sorted(p.name for p in (tmp_path / "two").glob("*.jsonl")) == ["results-0.jsonl", "results-1.jsonl"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert run(*arguments, tmp_path / "one").exit_code == 1
    finally:
        torch.set_num_threads(threads)
    assert told(tmp_path / "two") == told(tmp_path / "one") and len(told(tmp_path / "two")) == 8
    assert files(tmp_path / "two") == files(tmp_path / "one")
    before = files(tmp_path / "two")
    assert run(*arguments, tmp_path / "two").exit_code == 1
    assert told(tmp_path / "two") == told(tmp_path / "one") and files(tmp_path / "two") == before


@pytest.mark.filterwarnings("error::FutureWarning")
def test_a_pipeline_of_diffusers_from_a_folder(tmp_path, capsys):
    tiny_diffusers = pytest.importorskip("tiny_diffusers", reason="diffusers is not installed")
    pipe = tiny_diffusers.tiny()
    pipe.save_pretrained(tmp_path / "flux")
    Image.new("RGB", (50, 35), "green").save(tmp_path / "green.png")
    model = ["--model", str(tmp_path / "flux"), "--concepts", "cat, moon"]
    drawn = ["--prompt", "a cat", "--size", "64x48", "--steps", "2", "--out", str(tmp_path / "drawn"), "--json"]
    assert main(["generate", *model, *drawn]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "a cat"
    assert Recording.load(tmp_path / "drawn" / "recording.safetensors").scores.shape[:3] == (2, 3, 1)
    assert main(["image", str(tmp_path / "green.png"), *model, "--samples", "2", "--out", str(tmp_path / "seen")]) == 0
    [found] = tmp_path.glob("seen/green.png/*recording.safetensors")
    assert Recording.load(found).image_size == (35, 50) and len(Recording.load(found).sigmas) == 2
    assert main(["image", str(tmp_path / "green.png"), "--model", str(tmp_path / "nothing"), "--concepts", "cat"]) == 2
    assert "which diffusers cannot load" in capsys.readouterr().err
