"""The two protocols of the evaluation: what the authors' code does with a data set, to the letter, and what we think right.

Read from github.com/helblazer811/ConceptAttention (experiments/, and what they call), commit db30c4d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL.Image import Resampling

from ..core.metrics import ClassMetrics, SegmentationMetrics
from ..core.paper_metrics import SeveralClasses, SingleClass

PROTOCOLS = ("ours", "paper")
Metrics = SegmentationMetrics | ClassMetrics | SingleClass | SeveralClasses
_DEPTH = 19  # double-stream blocks of the model that the paper's layers are counted in
_IMAGENET_LIKE = ("imagenet", "folder", "tiny")
_VOC = ("voc-single", "voc-multi")


@dataclass(frozen=True)
class Rules:
    """What one protocol does with one data set.

    through: sides of the square that a picture passes through on its way to the model's size, and how it is resized to it.
    token, pooled_prompt, guidance, linear: see cli.models.Model.record; with `linear`, scores are summed over layers, without a softmax.
    blurred: spaces whose maps are blurred. seed: of the first noise. samples: passes with different noise. noise_level, layers:
    of the settings; the model's own if not given, first and last layer as in a model of 19. metrics: makes what scores the maps.
    """

    metrics: Callable[[], Metrics]
    through: tuple[int, Resampling] | None = None
    token: str = "mean"
    pooled_prompt: bool = True
    guidance: float | None = None
    linear: bool = False
    blurred: tuple[str, ...] = ()
    seed: int = 0
    samples: int = 1
    noise_level: float | None = None
    layers: tuple[int, int] | None = None

    def layers_of(self, depth: int) -> str:
        """The layers in a model with `depth` double-stream blocks, as core.saliency.parse_layers takes them."""
        if self.layers is None:
            return "auto"
        first, last = (round(layer / (_DEPTH - 1) * (depth - 1)) for layer in self.layers)
        return str(first) if first == last else f"{first}-{last}"


_SHIFTED = 0.5128  # the fourth of Flux's four shifted levels for 1024 x 1024 pixels: e^1.15 / (e^1.15 + 1 / 0.25 - 1)
_IMAGENET = Rules(SegmentationMetrics, token="first", pooled_prompt=False, guidance=0.0, blurred=("output", "cross-attention"), seed=4,
                  samples=5, noise_level=0.5, layers=(14, 17))
_VOC_MULTI = Rules(SeveralClasses, through=(1024, Resampling.NEAREST), token="first", pooled_prompt=False, guidance=0.0, linear=True,
                   noise_level=_SHIFTED, layers=(14, 17))
_PAPER = {
    "tiny": _IMAGENET, "imagenet": replace(_IMAGENET, through=(512, Resampling.BICUBIC)),
    "folder": replace(_IMAGENET, through=(512, Resampling.BICUBIC)), "voc-multi": _VOC_MULTI,
    "voc-single": replace(_VOC_MULTI, metrics=SingleClass, through=(512, Resampling.NEAREST), blurred=("output",), layers=(14, 18))}

OURS = Rules(SegmentationMetrics)


def rules(protocol: str, data: str) -> Rules:
    """The rules of a protocol for the data set that --data calls so."""
    return _PAPER[data] if protocol == "paper" else Rules(ClassMetrics) if data == "voc-multi" else OURS


class Difference(NamedTuple):
    """Something that the protocols do differently, and with which data sets."""

    data: tuple[str, ...]
    what: str
    paper: str
    ours: str


DIFFERENCES = (
    Difference(("imagenet", "folder"), "picture", "to 512 x 512 bicubic, then to the model's size by nearest neighbour",
               "to the model's size by nearest neighbour"),
    Difference(("voc-single",), "picture", "to 512 x 512 by nearest neighbour, then to the model's size", "to the model's size at once"),
    Difference(("voc-multi",), "picture", "to 1024 x 1024 by nearest neighbour, then to the model's size", "to the model's size at once"),
    Difference((*_IMAGENET_LIKE, *_VOC), "concept's vector", "its first text token", "the mean of its tokens"),
    Difference((*_IMAGENET_LIKE, *_VOC), "pooled prompt vector of image and text", "zeros", "the prompt's"),
    Difference((*_IMAGENET_LIKE, *_VOC), "guidance that dev is told", "0", "3.5"),
    Difference(_IMAGENET_LIKE, "noise", "level 0.5, 5 passes from seed 4 (as in run_cross_self_ablation.sh)",
               "the model's own level or a chosen one, one pass"),
    Difference(_VOC, "noise", "level 0.5128, the fourth of four shifted steps, one pass", "the model's own level, one pass"),
    Difference((*_IMAGENET_LIKE, "voc-multi"), "layers", "14 to 17 of 0 to 18", "15 to 18, or chosen ones"),
    Difference(("voc-single",), "layers", "14 to 18 of 0 to 18", "15 to 18"),
    Difference(_VOC, "scores", "products with the concepts' linear shares in each dimension, summed over layers, no softmax",
               "products with the concepts' vectors, softmax over concepts in each layer, mean over layers"),
    Difference(_VOC, "cross-attention", "the image's queries with the concepts' keys", "the concepts' queries with the image's keys"),
    Difference(_IMAGENET_LIKE, "blur", "3 x 3 Gaussian on the maps of the token grid", "none"),
    Difference(("voc-single",), "blur", "3 x 3 Gaussian on the maps of output space, none on cross-attention's", "none"),
    Difference(_VOC, "names", "plane, bike, table, motorcycle, pot, monitor",
               "aeroplane, bicycle, dining table, motorbike, potted plant, tv monitor"),
    Difference(_VOC, "classes of a picture", "those left in the labels after these were reduced to the size that is scored",
               "those in the labels"),
    Difference(("voc-single",), "pictures", "no more than two of the classes, the background being one, are left; two without "
               "background count as one object; none that lost its object", "exactly one class"),
    Difference(("voc-single",), "mask", "where a class beats every rival; a rival wins a tie", "where its map exceeds the map's mean"),
    Difference(("voc-single",), "mIoU", "mean of the IoU of background and object", "of both planes at once, as for ImageNet"),
    Difference(("voc-single",), "AP", "both planes at once, of the scores as they are and 1 less them",
               "both planes at once, of scores scaled from 0 to 1"),
    Difference(("voc-single",), "outlines", "half wrong in the accuracy, else left out", "left out"),
    Difference(("voc-multi",), "outlines", "what is found there counts against its class's IoU", "left out"),
    Difference(("voc-multi",), "classes", "numbers are put in place of rows one after another, so that a bus (6) turns into the class that "
               "comes second, and some others likewise; a rival wins a tie", "every class for itself"))

NOT_REPRODUCED = (
    "Cross-attention on ImageNet-Segmentation: no script of theirs runs it. It gets output space's settings there, and as everywhere but "
    "in the paper's protocol for PascalVOC, concept queries meet image keys.",
    "Noise: theirs is drawn in bfloat16 by CUDA's generator, the latents are drawn from the autoencoder's distribution, and prompts have "
    "256 tokens for schnell. Here: float32 from the CPU's generator, the distribution's mode, 512 tokens.",
    "A picture of PascalVOC whose objects are lost when its labels are reduced stops their scripts with an error, after its figures, all "
    "background, were counted. Here such a picture is left out where there is a single class, and counted so where there are several.",
    "Their scripts do not run on that commit's own package, whose blocks return less than they expect. In the first published version "
    "the ImageNet run took linear shares before its softmax, too; the commit read here does not.",
    "Their experiments per layer and per noise level use still other rules (shifted levels, linear shares, figures per picture); the "
    "tables of that kind here keep the rules above.")


def told(protocol: str, data: str) -> list[str]:
    """The differences for a data set as lines of markdown, and what the paper's protocol is not here."""
    rows = [f"| {d.what} | {d.paper} | {d.ours} |" for d in DIFFERENCES if data in d.data]
    lines = ["", f"### What the protocols do differently; these figures are by '{protocol}'", "",
             "| | paper | ours |", "|---|---|---|", *rows]
    return [*lines, "", "Not as in their code, in either:", "", *(f"- {text}" for text in NOT_REPRODUCED)] if protocol == "paper" else lines
