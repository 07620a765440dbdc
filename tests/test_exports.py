"""Masks for training and other tools: every file read back as its reader does it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from concept_saliency.cli import exports, models, shell
from concept_saliency.core.masks import soft_masks
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import saliency
from concept_saliency.demo.pipeline import TinyFlux
from concept_saliency.demo.world import make_scene

ALL = [word for kind in exports.KINDS for word in ("--export", kind)]
CONCEPTS = "robot|person, tree, moon"
NAMES = ["0.png", "1.png", "more/2.jpg"]


@pytest.fixture(scope="module")
def tiny() -> models.Tiny:
    return models.Tiny(TinyFlux())


@pytest.fixture
def run(tiny, monkeypatch, tmp_path):
    """Runs batch over three pictures, of different sizes, in a folder with one that is broken."""
    monkeypatch.setattr(models, "load", lambda name, weights=None: tiny)
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        Image.fromarray(make_scene(i, (96 + 5 * i, 80)).image).save(f"photos/{name}")
    Path("photos/broken.jpg").write_text("no picture")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes of a launcher have it
    yield lambda *more: CliRunner().invoke(shell, ["batch", "photos", "--concepts", CONCEPTS, *more])
    torch.set_num_threads(threads)


def exported(out: str) -> dict[str, bytes]:
    """The content of every file that was exported."""
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(Path(out, "export").rglob("*")) if file.is_file()}


def lines(out: str) -> dict[str, dict]:
    return {line["picture"]: line for line in map(json.loads, Path(out, "export", "manifest.jsonl").read_text().splitlines())}


def test_every_kind_is_what_its_reader_expects(run):
    coco, coco_masks = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.mask")
    done = run("--out", "out", *ALL)
    assert done.exit_code == 1 and "3 pictures done, 1 failed" in done.stderr
    told = lines("out")
    assert list(told) == sorted([*NAMES, "broken.jpg"]) and "cannot be read" in told["broken.jpg"]["error"]
    found = coco.COCO("out/export/coco.json")
    assert [c["name"] for c in found.loadCats(found.getCatIds())] == ["robot", "tree", "moon"]
    by_name = {image["file_name"]: image for image in found.loadImgs(found.getImgIds())}
    seen = 0
    for name in NAMES:
        with Image.open(f"photos/{name}") as photo:
            size = photo.size
        maps = saliency(Recording.load(f"out/{name}/recording.safetensors"))
        raw = np.load(f"out/export/npz/{Path(name).with_suffix('.npz')}")
        assert np.array_equal(raw["maps"], maps.maps[0]) and np.array_equal(raw["presence"], maps.presence[0])
        assert raw["concepts"].tolist() == ["robot", "tree", "moon"] and tuple(raw["image_size"]) == size[::-1]
        assert (by_name[name]["width"], by_name[name]["height"]) == size
        of_picture = {a["category_id"]: a for a in found.loadAnns(found.getAnnIds(imgIds=[by_name[name]["id"]]))}
        for i, concept in enumerate(told[name]["concepts"]):
            stem = f"{concept['concept']}/{Path(name).with_suffix('.png')}"
            with Image.open(f"out/export/stem/{stem}") as file, Image.open(f"out/{name}/{concept['mask']}") as own:
                mask = np.asarray(file)
                assert (file.mode, file.size) == ("L", size) and np.array_equal(mask, np.asarray(own)) and set(np.unique(mask)) <= {0, 255}
            with Image.open(f"out/export/soft/{stem}") as file:
                assert file.mode == "I;16" and np.abs(np.asarray(file) / 65535 - soft_masks(maps)[0, i].numpy()).max() < 1e-5
            if mask.any():
                annotation = of_picture.pop(i + 1)
                assert np.array_equal(found.annToMask(annotation), mask // 255) and annotation["area"] == (mask > 0).sum()
                assert annotation["score"] == concept["presence"] and coco_masks.area(annotation["segmentation"]) == annotation["area"]
                seen += 1
        assert not of_picture, "an empty mask has no annotation"
        assert all(Path("out", file).is_file() for file in told[name]["exported"])
    assert seen >= 3


def test_a_concept_that_is_not_there_has_an_empty_mask(run):
    pytest.importorskip("pycocotools")
    run("--out", "out")
    presences = sorted(c["presence"] for name in NAMES for c in json.loads(Path("out", name, "result.json").read_text())["concepts"])
    limit = presences[len(presences) // 2]
    looked = run("--out", "out", *ALL, "--min-presence", str(limit))
    assert looked.exit_code == 1 and len(exported("out")) == 2 + 3 * (3 + 3 + 1 + 1) + 1
    absent = [(name, c) for name in NAMES for c in lines("out")[name]["concepts"] if not c["there"]]
    assert absent and all(c["presence"] < limit for _, c in absent)
    for name, concept in absent:
        for kind in ("stem", "soft"):
            with Image.open(f"out/export/{kind}/{concept['concept']}/{Path(name).with_suffix('.png')}") as file:
                assert not np.asarray(file).any()
    content = json.loads(Path("out/export/coco.json").read_text())
    assert all(a["score"] >= limit for a in content["annotations"])
    other = run("--out", "out", *ALL, "--min-presence", "0.9")
    assert other.exit_code == 2 and "was exported with --min-presence" in other.stderr


def test_killed_resumed_and_in_two_processes_it_is_the_same(run, monkeypatch):
    pytest.importorskip("pycocotools")
    assert run("--out", "one", *ALL).exit_code == 1
    whole = exported("one")

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(exports._Picture, "maps", killed)  # when the masks are written, but not the rest
        with pytest.raises(Killed):
            run("--out", "out", *ALL)
    assert 0 < len(exported("out")) < len(whole)
    assert run("--out", "out", *ALL).exit_code == 1 and exported("out") == whole
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "--module", "concept_saliency.cli"]
    done = subprocess.run([*launch, "batch", "photos", "--concepts", CONCEPTS, "--out", "two", *ALL], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 1, done.stderr
    assert exported("two") == whole


def test_refusals(run, monkeypatch):
    Image.new("RGB", (32, 32)).save("photos/0.jpg")
    refused = run("--out", "out", "--export", "stem")
    assert refused.exit_code == 2 and "Several pictures are called '0' but for their ending" in refused.stderr and not Path("out").exists()
    Path("photos/0.jpg").unlink()
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    refused = run("--out", "out", "--export", "coco")
    assert refused.exit_code == 2 and "pip install pycocotools" in refused.stderr and not Path("out").exists()


def test_concepts_whose_names_are_alike_have_folders_of_their_own():
    concepts = [{"concept": name} for name in ("red dog", "red-dog", "猫", "cat")]
    assert exports.folders({"concepts": concepts}) == ["1_red_dog", "2_red_dog", "concept", "cat"]
