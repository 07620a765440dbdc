"""The bundled tiny Flux means something, and the shell commands do what the README says."""

import json
from functools import partialmethod

import numpy as np
import pytest
import torch
from PIL import Image

from concept_saliency.cli import main
from concept_saliency.cli.datasets import TinyWorld
from concept_saliency.cli.evaluate import HELD_OUT
from concept_saliency.cli.measure import Setting, measure
from concept_saliency.cli.models import Tiny
from concept_saliency.core.concepts import DEFAULT_CONTRAST
from concept_saliency.core.recording import SPACES
from concept_saliency.core.saliency import saliency
from concept_saliency.demo.pipeline import WEIGHTS, TinyFlux
from concept_saliency.demo.world import GROUNDS, THINGS, make_scene, vocabulary


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def test_scenes_are_reproducible_and_their_masks_tile_the_picture():
    for seed in range(20):
        scene, again = make_scene(seed), make_scene(seed)
        assert np.array_equal(scene.image, again.image) and scene.caption == again.caption
        assert (sum(m.astype(int) for m in scene.masks.values()) == 1).all()
        assert all(scene.masks[thing].mean() > 0.01 for thing in scene.things)
        assert set(scene.caption.split()) <= set(vocabulary())
    assert len(THINGS) + len(GROUNDS) >= 20


def test_weights_are_small():
    assert sum(f.stat().st_size for f in WEIGHTS.glob("*.safetensors")) <= 24_000_000


def test_maps_find_things_in_scenes_that_training_never_saw(tiny):
    """Well above chance on a handful of scenes; the figures that count are printed by `concept-saliency evaluate`."""
    data = TinyWorld(range(HELD_OUT + 900_000, HELD_OUT + 900_010))
    metrics = measure(Tiny(tiny), data, range(10), [Setting(tiny.noise_level, "output", "auto", 0.0)], DEFAULT_CONTRAST)
    found = metrics.popitem()[1].pooled
    assert found.mean_iou >= 0.6 and found.mean_average_precision >= 0.6


def test_watching_does_not_change_the_picture_and_a_seed_gives_the_same_again(tiny):
    first, recording = tiny.generate("a cat on sand", "cat, sand", steps=3, size=(128, 160))
    second, _ = tiny.generate("a cat on sand", "moon", steps=3, size=(128, 160))
    assert torch.equal(first, second)
    assert saliency(recording).maps.shape == (1, 2, 8, 10)


def test_demo_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "results"
    assert main(["demo", "--prompt", "a robot on sand", "--concepts", "robot, sand|floor", "--seed", "1", "--out", str(out)]) == 0
    names = {"picture.png", "contact_sheet.png", "recording.safetensors"} | {
        f"{kind}_{concept}.png" for kind in ("heatmap", "overlay", "mask") for concept in ("1_robot", "2_sand")}
    assert {p.name for p in out.iterdir()} == names | {"result.json", "settings.json", ".lock"}
    assert {line.rsplit("/", 1)[-1].rsplit("\\", 1)[-1] for line in capsys.readouterr().out.split("\n") if line} == names
    assert Image.open(out / "picture.png").size == (256, 256)


@pytest.mark.parametrize("arguments, message", [
    (["--prompt", "a unicorn on sand"], "does not know 'unicorn'. It knows"),
    (["--concepts", "unicorn"], "does not know 'unicorn'. It knows"),
    (["--concepts", ","], "No concept was typed"),
])
def test_demo_refuses_clearly(tmp_path, capsys, arguments, message):
    assert main(["demo", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_evaluate_prints_its_table_and_writes_json(tmp_path, capsys, monkeypatch):
    from concept_saliency.cli import evaluate

    monkeypatch.setattr(evaluate, "NOISE_LEVELS", (0.3,))
    monkeypatch.setattr(evaluate, "TEMPERATURES", {space: (1.0,) for space in evaluate.SPACES})
    assert main(["evaluate", "--scenes", "2", "--tune", "1", "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "mIoU" in printed and "Output space is" in printed and "Without self-attention" in printed
    written = json.loads((tmp_path / "figures.json").read_text())
    assert set(written["best"]) == {"output", "cross-attention"}
    assert sum(key.endswith(" without-self-attention") for key in written["figures"]) == 2


def test_evaluation_thing_by_thing_prints_every_table(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from concept_saliency.cli import evaluate_things

    monkeypatch.setattr(evaluate_things, "TUNING", [Setting(0.3, space, "0-2", 3.0) for space in SPACES])
    monkeypatch.setattr(TinyFlux, "draw", partialmethod(TinyFlux.draw, steps=6))
    sheet = tmp_path / "sheet.png"
    done = CliRunner().invoke(evaluate_things.command, ["--scenes", "2", "--tune", "1", "--drawings", "3", "--sheet", str(sheet)])
    assert done.exit_code == 0, done.output
    for words in ("AUROC", "bilinear", "every ground", "| drawn | 3 | 1 |", "| held-out scenes |"):
        assert words in done.output
    assert done.output.count("| output | 0-2 | 0.3 | 3 | auto, refined |") == 2, "scenes and drawings"
    assert Image.open(sheet).width > 3 * 128
