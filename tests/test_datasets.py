"""Data sets are read in the format they are published in, and measured as the paper measures them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from concept_saliency.cli import evaluate_steps, main
from concept_saliency.cli.datasets import Folder, ImageNetSegmentation, PascalVOC, TinyWorld, read_class_names
from concept_saliency.core.metrics import ClassMetrics, SegmentationMetrics
from concept_saliency.demo.world import THINGS, make_scene

CAT = "n02123045"


def scene_with(count: int, start: int = 0):
    """A small scene with that many things, all of them known to PascalVOC too."""
    return next(scene for scene in (make_scene(seed, (96, 128)) for seed in range(start, start + 10_000))
                if len(scene.things) == count and set(scene.things) <= {"boat", "car", "cat", "person"})


@pytest.fixture
def mat(tmp_path):
    """gtsegs_ijcv.mat with two pictures, as MATLAB writes cells: references into #refs#, axes turned round."""
    h5py = pytest.importorskip("h5py")
    reference = h5py.special_dtype(ref=h5py.Reference)
    path = tmp_path / "gtsegs_ijcv.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        columns = {name: file.create_dataset(f"value/{name}", (2, 1), dtype=reference) for name in ("img", "gt", "id")}
        for i in range(2):
            scene = scene_with(1, 5000 * i)
            put = {"img": scene.image.transpose(2, 1, 0), "mask": scene.masks[scene.things[0]].T.astype(np.uint8),
                   "id": np.frombuffer(f"{CAT}_{i}".encode("utf-16-le"), dtype=np.uint16)[:, None]}
            for name, values in put.items():
                file[f"#refs#/{name}{i}"] = values
            cell = file.create_dataset(f"#refs#/gt{i}", (1, 1), dtype=reference)
            cell[0, 0] = file[f"#refs#/mask{i}"].ref
            for name in columns:
                columns[name][i, 0] = file[f"#refs#/{name}{i}"].ref
    return path


@pytest.fixture
def voc(tmp_path):
    """VOCdevkit/VOC2012 with one single-class and one multi-class picture; outlines are 255."""
    numbers = {"boat": 4, "car": 7, "cat": 8, "person": 15}
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)
    for count, name in ((1, "2007_000001"), (2, "2007_000002")):
        scene = scene_with(count)
        labels = np.zeros(scene.image.shape[:2], dtype=np.uint8)
        for thing in scene.things:
            labels[scene.masks[thing]] = numbers[thing]
        labels[:, 0] = 255
        Image.fromarray(scene.image).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        picture = Image.fromarray(labels, mode="P")
        picture.putpalette([c for i in range(256) for c in (i, i, i)])
        picture.save(tmp_path / "SegmentationClass" / f"{name}.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("2007_000001\n2007_000002\n")
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    scene = scene_with(2)
    (tmp_path / "images").mkdir()
    Image.fromarray(scene.image).save(tmp_path / "images" / "a.png")
    for thing in scene.things:
        (tmp_path / "masks" / thing).mkdir(parents=True)
        Image.fromarray(scene.masks[thing]).save(tmp_path / "masks" / thing / "a.png")
    return tmp_path


def test_imagenet_segmentation(mat):
    data, scene = ImageNetSegmentation(mat, {CAT: "cat"}), scene_with(1)
    sample = data[0]
    assert len(data) == 2 and sample.name == f"{CAT}_0" and sample.targets == ("cat",)
    assert np.array_equal(sample.image, scene.image) and np.array_equal(sample.labels, scene.masks[scene.things[0]])
    with pytest.raises(ValueError, match=f"no name for the WordNet id '{CAT}' of picture 1"):
        ImageNetSegmentation(mat, {"n1": "dog"})[1]


def test_pascal_voc(voc):
    single, several = PascalVOC(voc), PascalVOC(voc, single=False)
    assert single.names == ["2007_000001"] and len(several) == 2 and several.together
    scene, sample = scene_with(2), several[1]
    assert set(sample.targets) == set(scene.things)
    for thing in scene.things:
        assert np.array_equal((sample.labels == sample.targets.index(thing) + 1)[:, 1:], scene.masks[thing][:, 1:])
    assert (sample.labels[:, 0] == -1).all() and sample.image.shape == scene.image.shape
    with pytest.raises(ValueError, match="train.txt'. --path is the folder VOCdevkit/VOC2012 of http"):
        PascalVOC(voc, "train")


def test_folder(folder):
    sample, scene = Folder(folder)[0], scene_with(2)
    assert sample.targets == tuple(sorted(scene.things)) and np.array_equal(sample.image, scene.image)
    assert all(np.array_equal(sample.labels == i + 1, scene.masks[thing]) for i, thing in enumerate(sample.targets))
    Image.new("L", (3, 4)).save(folder / "masks" / sample.targets[0] / "a.png")
    with pytest.raises(ValueError, match="has 3 x 4 pixels, its picture 128 x 96"):
        Folder(folder)[0]
    with pytest.raises(ValueError, match="masks/CLASS/NAME.png"):
        Folder(folder / "images")


def test_a_photograph_that_was_turned_is_the_same_photograph(folder):
    straight = Folder(folder)[0]
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(straight.image).transpose(Image.Transpose.ROTATE_90).save(folder / "images" / "a.png", exif=exif)
    turned = Folder(folder)[0]
    assert np.array_equal(turned.image, straight.image) and np.array_equal(turned.labels, straight.labels)


def test_tiny_world_labels_are_the_scene_s_masks():
    sample, scene = TinyWorld(range(40, 44))[2], make_scene(42)
    assert sample.seed == 42 and sample.targets == scene.things and set(scene.things) <= set(THINGS)
    assert all(np.array_equal(sample.labels == i + 1, scene.masks[thing]) for i, thing in enumerate(scene.things))


@pytest.mark.parametrize("content, expected", [({CAT: "cat"}, {CAT: "cat"}),
                                               ({"281": [CAT, "tabby_cat, cat"]}, {CAT: "tabby cat"})])
def test_class_names(tmp_path, content, expected):
    (tmp_path / "names.json").write_text(json.dumps(content))
    assert read_class_names(tmp_path / "names.json") == expected


def test_class_names_as_the_authors_key_them(tmp_path):
    """imagenet_class_map.json goes by the first word of WordNet's entry, data.noun says which entry is which."""
    (tmp_path / "map.json").write_text(json.dumps({"categories": {"tabby": "cat", "Arctic ground squirrel": "squirrel", "skunk": "skunk"}}))
    (tmp_path / "data.noun").write_text("  1 This software and database is being provided to you\n"
                                        f"{CAT[1:]} 05 n 02 tabby 1 tabby_cat 0 001 @ 02121808 n 0000 | a cat\n"
                                        "02358091 05 n 02 Arctic_ground_squirrel 0 parka_squirrel 0 000 | of Alaska\n"
                                        "02121808 05 n 01 cat 0 000 | no first word of the map\n")
    assert read_class_names(tmp_path / "map.json", tmp_path / "data.noun") == {CAT: "cat", "n02358091": "squirrel"}
    with pytest.raises(ValueError, match="Give --wordnet the file data.noun"):
        read_class_names(tmp_path / "map.json")
    with pytest.raises(ValueError, match="none of the names"):
        read_class_names(tmp_path / "map.json", tmp_path / "map.json")


@pytest.mark.parametrize("text", ["[\"cat\"]", "{}", "{\"1\": 2}", "{\"1\": [\"a\"]}", "no"])
def test_class_names_that_say_too_little_are_refused(tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(ValueError, match="WordNet id"):
        read_class_names(tmp_path / "names.json")


def test_pixels_that_do_not_count_change_nothing():
    maps, label = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 12, dtype=torch.bool)
    label[2:5, 3:9] = True
    whole, part = SegmentationMetrics(), SegmentationMetrics()
    whole.add(maps, label)
    widened = torch.nn.functional.pad(label, (0, 0, 0, 8), value=True)
    counted = torch.nn.functional.pad(torch.ones_like(label), (0, 0, 0, 8))
    part.add(torch.cat((maps, maps.flip(0))), widened, counted)  # the flipped half has the same mean, and is not counted
    assert (whole.correct, whole.labelled) == (part.correct, part.labelled)
    assert whole.precisions == pytest.approx(part.precisions)


def test_class_metrics_by_hand():
    """Four cells: found cat, cat, dog, nothing; there are cat, dog, dog, and one pixel that does not count."""
    maps = torch.tensor([[0.9, 0.8, 0.1, 0.1], [0.1, 0.1, 0.7, 0.2], [0.0, 0.1, 0.2, 0.7]])[:, None]
    metrics = ClassMetrics()
    metrics.add(maps, torch.tensor([[1, 2, 2, -1]]), ("cat", "dog"))
    assert metrics.pixel_accuracy == pytest.approx(2 / 3)
    assert metrics.mean_iou == pytest.approx((1 / 2 + 1 / 2) / 2), "the background was neither there nor found where it counts"


def evaluate(tmp_path, *arguments: str) -> tuple[int, dict]:
    """The exit code, and the figures by setting."""
    code = main(["evaluate", *arguments, "--json", str(tmp_path / "figures.json")])
    return code, json.loads((tmp_path / "figures.json").read_text())["figures"]


@pytest.fixture
def few_levels(monkeypatch):
    from concept_saliency.cli import evaluate

    monkeypatch.setattr(evaluate, "NOISE_LEVELS", (0.3,))


def test_evaluate_imagenet_beside_the_paper_s_figures(mat, tmp_path, capsys, few_levels):
    (tmp_path / "names.json").write_text(json.dumps({CAT: scene_with(1).things[0]}))
    code, figures = evaluate(tmp_path, "--data", "imagenet", "--path", str(mat), "--class-names", str(tmp_path / "names.json"),
                             "--scenes", "1", "--page", str(tmp_path / "page.png"))
    printed = capsys.readouterr().out
    assert code == 0 and "ImageNet-Segmentation, protocol 'ours': 1 pictures" in printed and "0.8307 | 0.7104 | 0.9045" in printed
    assert "0.3 output auto 0.0" in figures and "0.3 output auto 0.0 without-self-attention" in figures
    with Image.open(tmp_path / "page.png") as page:
        assert page.width > 4 * 256


def test_evaluate_voc_classes_together(voc, tmp_path, capsys, few_levels):
    code, figures = evaluate(tmp_path, "--data", "voc-multi", "--path", str(voc), "--scenes", "1",
                             "--contrast", "sky, grass, sand, water")
    assert code == 0 and figures["0.3 output auto 0.0"]["mean_average_precision"] is None, "no mAP there"
    assert "| - |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["voc-single", "voc-multi"])
def test_evaluate_by_the_paper_s_code(voc, name, tmp_path, capsys, few_levels):
    code, figures = evaluate(tmp_path, "--data", name, "--path", str(voc), "--protocol", "paper", "--contrast", "sky, grass, sand, water")
    printed = capsys.readouterr().out
    assert code == 0 and "protocol 'paper': 1 pictures" in printed if name == "voc-single" else "2 pictures" in printed
    assert "| concept's vector | its first text token | the mean of its tokens |" in printed and "CUDA" in printed
    assert ("0.5128 output 2 1.0 blurred" in figures) == (name == "voc-single")
    assert 0 <= figures["0.5128 cross-attention 2 1.0"]["thing_iou"][1] <= figures["0.5128 cross-attention 2 1.0"]["thing_iou"][2] <= 1
    assert main(["evaluate", "--data", name, "--path", str(voc), "--protocol", "paper", "--tune", "1"]) == 2
    assert "chooses none" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["--data", "voc-single"], "needs --path"), (["--data", "imagenet", "--path", "."], "Give --class-names"),
    (["--model", "somewhere"], "tiny"), (["--data", "folder", "--path", "."], "masks/CLASS/NAME.png")])
def test_evaluate_says_what_is_missing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_evaluation_goes_on_from_its_figures_and_takes_stored_settings(folder, tmp_path, capsys, few_levels, monkeypatch):
    arguments = ["--data", "folder", "--path", str(folder), "--resume", str(tmp_path / "figures.jsonl")]
    code, whole = evaluate(tmp_path, *arguments)
    first = capsys.readouterr()
    assert code == 0 and "reporting, step 1 of 2" in first.err
    assert first.err.count("| output |") == first.err.count("| cross-attention |") >= 4
    lines = (tmp_path / "figures.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "figures.jsonl").write_text("".join(lines[:-3]) + lines[-3][:20])  # killed within a line
    looked = []
    measure = evaluate_steps.measure
    monkeypatch.setattr(evaluate_steps, "measure", lambda *asked: looked.append(asked[3]) or measure(*asked))
    assert evaluate(tmp_path, *arguments) == (0, whole)
    assert sum(map(len, looked)) == 3 and capsys.readouterr().out == first.out, "what was measured is not measured again"
    assert main(["evaluate", *arguments, "--samples", "2"]) == 2
    assert "the figures of another evaluation (samples)" in capsys.readouterr().err
    (tmp_path / "mine.json").write_text(json.dumps({"best": {space: {
        "noise_level": 0.3, "space": space, "layers": "1", "temperature": 3.0} for space in ("output", "cross-attention")}}))
    code, stored = evaluate(tmp_path, "--data", "folder", "--path", str(folder), "--settings", str(tmp_path / "mine.json"))
    assert code == 0 and "0.3 output 1 3.0" in stored
    assert main(["evaluate", "--settings", str(folder / "images" / "a.png")]) == 2
    assert "which --json of this command did not write" in capsys.readouterr().err


def test_what_cannot_be_used_is_said_before_the_first_pass(folder, mat, voc, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_steps, "measure", lambda *asked: pytest.fail("measured for nothing"))
    (folder / "images" / "a.png").write_bytes((folder / "images" / "a.png").read_bytes()[:500])
    (tmp_path / "names.json").write_text('{"n1": "dog"}')
    (voc / "SegmentationClass" / "2007_000002.png").write_bytes(b"nothing")
    for arguments, message in ((["folder", "--path", str(folder)], "a.png' cannot be read as a picture"),
                               (["imagenet", "--path", str(mat), "--class-names", str(tmp_path / "names.json")], "no name for the WordNet"),
                               (["voc-multi", "--path", str(voc)], "2007_000002.png' cannot be read as a picture of labels")):
        assert main(["evaluate", "--data", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said and "cannot be used; nothing was measured" in said and "Traceback" not in said
    assert main(["evaluate", "--json", str(tmp_path / "nowhere" / "figures.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
