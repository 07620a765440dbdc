"""Maps made by a formula, scored by both protocols, against values worked out by hand from their rules.

One picture of 2 x 2 tokens, 4 x 4 blocks of pixels; a is the picture's only thing, x its outline, which nobody labelled:

    a a a x        tokens   0 1        what the model says of a: 8 4      of its two rivals: 5 and 3 everywhere
    a a a a                 2 3                                  2 1
    . . . .
    . . . x

There are 14 labelled blocks: 7 of a (4 in token 0, 3 in token 1) and 7 of the background (4 in token 2, 3 in token 3).
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from concept_saliency.cli.datasets import PascalVOC, TinyWorld
from concept_saliency.cli.measure import Setting, maps_of, measure, prepared
from concept_saliency.cli.protocols import DIFFERENCES, PROTOCOLS, rules, told
from concept_saliency.core.families import flux1
from concept_saliency.core.metrics import SegmentationMetrics, ThingMetrics, bootstrapped
from concept_saliency.core.paper_metrics import SeveralClasses, SingleClass
from concept_saliency.core.recording import Recording

PLANE, BUS, CAT = 1, 6, 8
BLOCKS = np.array([[BUS, BUS, BUS, 255], [BUS, BUS, BUS, BUS], [0, 0, 0, 0], [0, 0, 0, 255]], dtype=np.uint8)
LINEAR = torch.tensor([[8.0, 4.0, 2.0, 1.0], [5.0] * 4, [3.0] * 4])  # target, rival, rival; of the tokens in reading order
SHARES = torch.tensor([[0.8, 0.4, 0.2, 0.1], [0.18, 0.54, 0.72, 0.81], [0.02, 0.06, 0.08, 0.09]])  # the same order in each token


class Formula:
    """A model that sees, in every block, LINEAR where it is asked for linear shares, else what a softmax turns into SHARES."""

    size, depth, noise_level, contrast = (32, 32), 19, 0.5, ""

    def __init__(self):
        self.asked = []

    def record(self, images, concepts, contrast, captions, noise_level, seeds, token, **options):
        self.asked.append(SimpleNamespace(concepts=concepts, captions=captions, seeds=seeds, token=token, **options))
        scores = LINEAR / 5 if options["linear"] else SHARES.log()  # their PascalVOC run adds up five layers
        scores = scores.view(1, 1, 1, 3, 2, 2).expand(1, 19, 1, 3, 2, 2).contiguous()
        about = dict(sigmas=(0.5,), progress=(0.0,), layers=tuple(range(19)), depth=19, family="flux1", defaults=flux1.DEFAULTS)
        return {space: Recording((concepts,), tuple(contrast.split(", ")), scores, space=space, image_size=(32, 32), **about)
                for space in ("output", "cross-attention")}


@pytest.fixture
def tree(tmp_path):
    """VOCdevkit/VOC2012 with that picture; `add` puts another one in."""
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True)

    def add(name: str, blocks: np.ndarray, side: int = 112) -> None:
        labels = np.kron(blocks, np.ones((side, side), dtype=np.uint8))
        Image.new("RGB", labels.shape[::-1]).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        picture = Image.fromarray(labels, mode="P")
        picture.putpalette([c for i in range(256) for c in (i, i, i)])
        picture.save(tmp_path / "SegmentationClass" / f"{name}.png")
        with (tmp_path / "ImageSets/Segmentation/val.txt").open("a") as listed:
            listed.write(name + "\n")

    add("one", BLOCKS)
    return SimpleNamespace(path=tmp_path, add=add)


def scored(protocol: str, tree, space: str):
    """The metrics of one space, and what the model was asked."""
    model, data, how = Formula(), PascalVOC(tree.path, paper=protocol == "paper"), rules(protocol, "voc-single")
    setting = Setting(0.5, space, how.layers_of(19), 0.0, blurred=space in how.blurred)
    found = measure(model, data, range(len(data)), [setting], "floor, sky", how, how.samples)[setting]
    return found, model.asked[0]


def test_ours_by_hand(tree):
    """The mean of 0.8, 0.4, 0.2, 0.1 is 0.375: the mask is tokens 0 and 1, which is exactly a.

    AP: scaled from 0 to 1 the plane of a holds 1, 3/7, 1/7, 0; the background's 0, 4/7, 6/7, 1. In falling order:
    at 1 four blocks of a and three of the background, all right; 6/7 four, right; 4/7 three, wrong; 3/7 three, right.
    So 11 of 14 are found at precision 1 and the last three at 14/17: AP = 11/14 + 3/14 * 14/17. Of a's plane alone: 1.
    """
    found, asked = scored("ours", tree, "output")
    assert (found.pooled.pixel_accuracy, found.pooled.mean_iou) == (1, 1)
    assert found.pooled.mean_average_precision == pytest.approx(11 / 14 + 3 / 17)
    assert (found.things.ious, found.things.precisions) == ([[1.0]], [[1.0]])
    assert (asked.concepts, asked.captions, asked.token, asked.guidance) == ("bus", ["a bus"], "mean", None)
    assert asked.pooled_prompt and not asked.linear


def test_the_paper_by_hand(tree):
    """Only in token 0 does a beat its rivals (8 > 5 > 4): 4 of its 7 blocks, and all 7 of the background, are right: 11 of 14.

    Accuracy is over two planes; the outline's two blocks are wrong in one and not counted in the other: 2 * 11 / (16 + 14).
    IoU of a is 4/7, of the background 7/(7 + 3).
    AP: the plane of a holds 8, 4, 2, 1, the background's 1 less these: -7, -3, -1, 0. In falling order: 8 and 4, seven blocks of a,
    right; 2 and 1, seven, wrong; 0 and -1, three and four of the background, right at precisions 10/17 and 14/21.
    """
    found, asked = scored("paper", tree, "cross-attention")
    assert found.pooled.pixel_accuracy == pytest.approx(22 / 30)
    assert found.pooled.mean_iou == pytest.approx((4 / 7 + 7 / 10) / 2)
    assert found.pooled.mean_average_precision == pytest.approx(7 / 14 + 3 / 14 * 10 / 17 + 4 / 14 * 14 / 21)
    assert found.things.ious == [[pytest.approx(4 / 7)]] and found.things.precisions == [[1.0]]
    assert (asked.token, asked.seeds, asked.guidance) == ("first", range(0, 1), 0) and asked.linear and not asked.pooled_prompt


def test_the_paper_blurs_output_space_by_hand(tree):
    """Weights e^-0.5 : 1 : e^-0.5, the frame mirrored: of two tokens both neighbours of one are the other, x -> b x + (1 - b) y with
    b = 1 / (1 + 2 e^-0.5) = 0.452. 8, 4, 2, 1 are (8, 2) down times (1, 1/2) across: (4.71, 5.29) times (0.726, 0.774), 4.1 at most.
    The rivals stay 5 and 3, so a wins nowhere: 7 of 14 right, IoU 0 and 7/14."""
    found, _ = scored("paper", tree, "output")
    assert found.pooled.pixel_accuracy == pytest.approx(14 / 30) and found.pooled.mean_iou == pytest.approx(0.25)


def test_the_blur_by_hand():
    """A single 1 in the middle of 3 x 3, weights (0.274, 0.452, 0.274): the middle keeps 0.452^2, and at the frame, which mirrors
    the inside, it is seen twice: beside it 2 * 0.274 * 0.452, in the corners (2 * 0.274)^2."""
    scores = torch.zeros(1, 1, 1, 1, 3, 3)
    scores[..., 1, 1] = 1
    recording = Recording(("a",), (), scores, (0.5,), (0.0,), (0,), 1, "output", "flux1", flux1.DEFAULTS, (48, 48))
    blurred = maps_of(recording, Setting(0.5, "output", "all", 1.0, blurred=True), linear=True)[0]
    expected = torch.tensor([[0.3005, 0.2477, 0.3005], [0.2477, 0.2042, 0.2477], [0.3005, 0.2477, 0.3005]])
    torch.testing.assert_close(blurred, expected, atol=1e-4, rtol=0)


def test_several_classes_by_hand():
    """Bus (6) and cat (8) against five rivals. The bus wins token 0, the cat token 1, a rival token 2, and in token 3, which is bus,
    bus and rival tie. The outline has a block in token 1 and one in token 2.

    Ours: all 14 right. The paper's: a tie goes to the rival; rows 5 and 6 are replaced by 6 and 8 one after the other, so that
    the bus, 6 by then, becomes a cat. Right are token 1 (3 blocks) and token 2 (3): 6 of 14. IoU of the background: found in
    8 blocks, one of them outline, rightly in 3: 3/8. Cat: the same. Bus: none of 8.
    """
    maps = torch.zeros(7, 2, 2)
    maps[0] = torch.tensor([[0.9, 0.1], [0.1, 0.5]])
    maps[1] = torch.tensor([[0.1, 0.9], [0.2, 0.0]])
    maps[4] = torch.tensor([[0.2, 0.3], [0.8, 0.5]])
    labels = torch.tensor([[1, 1, 2, -1], [1, 1, 2, 2], [0, 0, 1, 1], [-1, 0, 1, 1]])
    ours, paper = rules("ours", "voc-multi").metrics(), rules("paper", "voc-multi").metrics()
    for metrics in (ours, paper):
        metrics.add(maps, labels, (BUS, CAT))
    assert (ours.pixel_accuracy, ours.mean_iou) == (1, 1)
    assert isinstance(paper, SeveralClasses) and paper.pixel_accuracy == pytest.approx(6 / 14)
    assert paper.mean_iou == pytest.approx((3 / 8 + 0 + 3 / 8) / (3 + 1e-6), abs=1e-9), "they divide by a millionth more"


def test_a_background_that_nobody_finds_counts_all_the_same():
    """A plane, background and an outline, which is any negative number, and a plane is found on all three: its IoU is 1 of 3, for the
    outline counts, and the background's is 0."""
    paper = SeveralClasses()
    paper.add(torch.tensor([[[0.9, 0.9, 0.9]], [[0.1, 0.1, 0.1]]]), torch.tensor([[1, 0, -3]]), (PLANE,))
    assert paper.pixel_accuracy == 1 / 2 and paper.mean_iou == pytest.approx((1 / 3 + 0) / 2, abs=1e-6)


def test_a_single_class_by_hand():
    """A plane, the first of the classes, in the upper half of 2 x 2 pixels, found there and nowhere else.

    AP: the plane's map holds 0.9, 0.4, 0.3, 0.2, the background's 1 less these, 0.1, 0.6, 0.7, 0.8. In falling order: 0.9, 0.8
    and 0.7 are right, 0.6 is wrong, 0.4 is right at precision 4/5.
    """
    paper = SingleClass()
    maps, labels = torch.tensor([[[0.9, 0.4], [0.3, 0.2]], [[0.35, 0.35], [0.35, 0.35]]]), torch.tensor([[1, 1], [0, 0]])
    paper.add(maps, labels, (PLANE,))
    assert (paper.pixel_accuracy, paper.mean_iou) == (1, 1)
    assert paper.mean_average_precision == pytest.approx((1 + 1 + 1 + 4 / 5) / 4)


def test_a_picture_full_of_one_thing_has_no_background_to_find():
    """Its IoU is 0 of nothing, which they count as 0; one pixel found of one is 1."""
    full, halves = SingleClass(), SingleClass()
    full.add(torch.tensor([[[0.9, 0.8]], [[0.1, 0.1]]]), torch.tensor([[1, 1]]), (CAT,))
    assert full.mean_iou == 1 / 2
    halves.add(torch.tensor([[[0.9, 0.0]], [[0.1, 0.1]]]), torch.tensor([[1, 0]]), (CAT,))
    assert halves.mean_iou == 1


def test_a_picture_whose_classes_are_too_small_for_the_paper_s_labels_is_background(tree):
    """Its labels are reduced to 64 x 64 before anyone looks which classes are there."""
    speck = np.zeros((512, 512), dtype=np.uint8)
    speck[8, 8] = BUS  # of every 8 pixels one is kept, and it is another
    tree.add("speck", speck, side=1)
    ours, paper = (PascalVOC(tree.path, single=False, paper=paper)[1] for paper in (False, True))
    assert (ours.targets, paper.targets) == (("bus",), ())
    how, model = rules("paper", "voc-multi"), Formula()
    setting = Setting(0.5, "output", how.layers_of(19), 0.0)
    found = measure(model, PascalVOC(tree.path, single=False, paper=True), [1], [setting], "floor, sky", how)[setting]
    assert found.pooled.pixel_accuracy == 1 and found.things.ious == [] and not model.asked


def test_which_pictures_have_a_single_class(tree):
    """The paper counts the classes that are left at 224 x 224, at most two of them with the background: a picture full of two
    classes without any background is one of those, and the two are one object then."""
    tree.add("full", np.array([[1, 1, 16, 16]] * 4, dtype=np.uint8))
    tree.add("two", np.array([[1, 1, 16, 0]] * 4, dtype=np.uint8))
    assert PascalVOC(tree.path).names == ["one"]
    data = PascalVOC(tree.path, paper=True)
    assert data.names == ["one", "full"] and data[1].targets == ("plane", "pot")
    assert PascalVOC(tree.path, single=False)[1].targets == ("aeroplane", "potted plant")


def test_pictures_pass_through_512_on_their_way(tree):
    """ImageNet's bicubic, which smooths an edge; PascalVOC's by nearest neighbour, which keeps its two colours."""
    edge = np.zeros((300, 300, 3), dtype=np.uint8)
    edge[:, 150:] = 255
    sample = TinyWorld(range(1))[0]
    sample = type(sample)("edge", edge, ("cat",), edge[..., 0].astype(np.int16) // 255)
    model, data = SimpleNamespace(size=(1024, 1024)), SimpleNamespace(label_size=(224, 224))
    shown, labels = prepared(sample, model, data, rules("paper", "imagenet"))
    assert shown.shape == (1, 3, 1024, 1024) and labels.shape == (224, 224)
    assert torch.equal(shown[..., ::2, ::2], shown[..., 1::2, 1::2]), "from 512 to 1024 every pixel is doubled"
    assert len(shown.unique()) > 2
    for protocol, name in (("paper", "voc-single"), ("ours", "imagenet")):
        assert prepared(sample, model, data, rules(protocol, name))[0].unique().tolist() == [0, 1]


def test_a_map_without_contrast_ranks_nothing():
    """Their scaling divides 0 by 0, which is read as 0 in both planes: half of all blocks are right at any rank."""
    metrics = SegmentationMetrics()
    metrics.add(torch.full((2, 2), 0.3), torch.tensor([[True, False], [False, False]]))
    assert metrics.mean_average_precision == pytest.approx(0.5)


def test_every_thing_counts_the_same():
    """One thing found whole, one by half, in two pictures; a third has no pixel that counts and is left out."""
    things, everywhere = ThingMetrics(), torch.ones(2, 2, dtype=torch.bool)
    top = torch.tensor([[True, True], [False, False]])
    corner = torch.tensor([[True, False], [False, False]])
    things.add([(top, top.float(), top), (corner, torch.tensor([[0.9, 0.1], [0.2, 0.3]]), top)], everywhere)
    things.add([(corner, corner.float(), corner), (top, top.float(), corner)], ~corner)
    things.add([(top, top.float(), corner)], everywhere)
    assert things.ious == [[1.0, 0.5], [0.5]]
    assert things.precisions[0] == [1.0, pytest.approx((1 + 2 / 4) / 2)], "the other half of the thing ranks last"


def test_the_interval_draws_pictures_not_things():
    mean, low, high = bootstrapped([[0.5]] * 40)
    assert (mean, low, high) == (0.5, 0.5, 0.5)
    mean, low, high = bootstrapped([[0.0] * 10, [1.0] * 10])
    assert (mean, low, high) == (0.5, 0.0, 1.0), "ten things in a picture are one case"
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    mean, low, high = bootstrapped([[v] for v in values])
    assert mean == pytest.approx(values.mean()) and high - low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)
    assert np.isnan(bootstrapped([])).all()


@pytest.mark.parametrize("name", ["tiny", "imagenet", "voc-single", "voc-multi", "folder"])
def test_the_report_names_the_differences_of_its_data_set(name):
    for protocol in PROTOCOLS:
        text = "\n".join(told(protocol, name))
        assert all((d.what in text and d.paper in text and d.ours in text) for d in DIFFERENCES if name in d.data)
        assert ("CUDA" in text) == (protocol == "paper")
    paper, ours = rules("paper", name), rules("ours", name)
    assert (paper.token, paper.pooled_prompt, paper.samples) == ("first", False, 1 if "voc" in name else 5) and ours.token == "mean"
    assert paper.layers_of(19) == ("14-18" if name == "voc-single" else "14-17") and ours.layers_of(19) == "auto"
