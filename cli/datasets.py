"""The data sets of the evaluation: pictures, what is in them, and where.

A data set reads a sample when it is asked for, and holds no file open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..core.concepts import DEFAULT_CONTRAST
from ..core.pictures import SUFFIXES, Unreadable, read
from ..demo.world import make_scene

IMAGENET_URL = "http://calvin-vision.net/bigstuff/proj-imagenet/data/gtsegs_ijcv.mat"
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_NAMES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
             "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
             "tv monitor")  # 1 to 20 in the label pictures
PAPER_VOC_NAMES = ("plane", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse", "motorcycle",
                   "person", "pot", "sheep", "sofa", "train", "monitor")
VOC_CONTRAST = "background, floor, grass, tree, sky"  # the authors'; "person" is a class there
NOT_COUNTED = -1


@dataclass(frozen=True)
class Sample:
    """One picture. image: H x W x 3 uint8; labels: H x W int16, i + 1 where targets[i] is, 0 elsewhere, NOT_COUNTED
    where nobody knows. seed: of the noise that is mixed in. numbers: of the targets, where their data set numbers classes."""

    name: str
    image: np.ndarray
    targets: tuple[str, ...]
    labels: np.ndarray
    seed: int = 0
    numbers: tuple[int, ...] = ()


class DataSet(Protocol):
    """Samples by number.

    title: for the report. contrast: rivals of the targets. together: whether the targets of a picture compete with one another.
    label_size: (H, W) at which labels are scored; None: as they are.
    """

    title: str
    contrast: str
    together: bool
    label_size: tuple[int, int] | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class TinyWorld(DataSet):
    """Scenes of the tiny world, by seed."""

    title, contrast, together, label_size = "Tiny world", DEFAULT_CONTRAST, False, None

    def __init__(self, seeds: range):
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Sample:
        scene = make_scene(self.seeds[index])
        labels = np.zeros(scene.image.shape[:2], dtype=np.int16)
        for i, thing in enumerate(scene.things):
            labels[scene.masks[thing]] = i + 1
        return Sample(f"scene {self.seeds[index]}", scene.image, scene.things, labels, self.seeds[index])


class ImageNetSegmentation(DataSet):
    """gtsegs_ijcv.mat (Guillaumin et al. 2014): 4276 pictures with one object each, as a MATLAB 7.3 file, which is HDF5.

    Every cell is a reference: /value/img[i, 0] to 3 x W x H uint8, /value/gt[i, 0] to a cell whose [0, 0] refers
    to W x H uint8 (1: the object), /value/id[i, 0] to the characters of "<WordNet id>_<number>".
    class_names: WordNet id -> name.
    """

    title, contrast, together, label_size = "ImageNet-Segmentation", DEFAULT_CONTRAST, False, (224, 224)

    def __init__(self, file: Path, class_names: dict[str, str]):
        self.h5py = _h5py()
        self.file, self.class_names = file, class_names
        try:
            with self.h5py.File(file, "r") as opened:
                self.length = len(opened["/value/img"])
        except (OSError, KeyError) as error:
            raise ValueError(f"'{file}' cannot be read as ImageNet-Segmentation: {error}. Get it from {IMAGENET_URL}") from error

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        with self.h5py.File(self.file, "r") as file:
            image = np.array(file[file["/value/img"][index, 0]]).transpose(2, 1, 0)
            mask = np.array(file[file[file["/value/gt"][index, 0]][0, 0]]).T
            identity = "".join(map(chr, np.array(file[file["/value/id"][index, 0]]).flatten()))
        synset = identity.partition("_")[0]
        if synset not in self.class_names:
            raise ValueError(f"--class-names has no name for the WordNet id '{synset}' of picture {index}. Add it.")
        return Sample(identity, image, (self.class_names[synset],), (mask > 0).astype(np.int16))


class PascalVOC(DataSet):
    """PascalVOC 2012 (VOCdevkit/VOC2012): the segmentation split `split`; pixels on an object's outline (255) do not count.

    single: only pictures with exactly one class, each class alone; else all pictures, their classes at once. paper: the authors'
    names, and the classes that are left in the labels at label_size; `single` then means at most two of them, the
    background being one, and they are taken at once.
    """

    contrast = VOC_CONTRAST

    def __init__(self, folder: Path, split: str = "val", single: bool = True, paper: bool = False):
        self.folder, self.together, self.paper = folder, paper or not single, paper
        self.title = f"PascalVOC 2012 {split}, {'single' if single else 'multi'}-class"
        self.label_size = (224, 224) if single else (64, 64)
        listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            raise ValueError(f"There is no '{listed}'. --path is the folder VOCdevkit/VOC2012 of {VOC_URL}")
        self.names = listed.read_text("utf-8").split()
        if single:
            self.names = [name for name in self.names if self._is_single(self._labels(name))]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        found = self._labels(name)
        classes = self._classes(found)
        labels = np.where(found == 255, NOT_COUNTED, 0).astype(np.int16)
        for i, number in enumerate(classes):
            labels[found == number] = i + 1
        names = PAPER_VOC_NAMES if self.paper else VOC_NAMES
        image = np.array(read(self.folder / "JPEGImages" / f"{name}.jpg"))
        return Sample(name, image, tuple(names[c - 1] for c in classes), labels, numbers=tuple(classes))

    def _labels(self, name: str) -> np.ndarray:
        path = self.folder / "SegmentationClass" / f"{name}.png"
        try:
            with Image.open(path) as file:  # its palette's numbers, not its colours
                return np.array(file)
        except (OSError, SyntaxError) as error:
            raise Unreadable(f"'{path}' cannot be read as a picture of labels: {error}") from error

    def _classes(self, labels: np.ndarray) -> list[int]:
        return [int(c) for c in np.unique(self._scored(labels)) if 0 < c < 255]

    def _is_single(self, labels: np.ndarray) -> bool:
        classes = self._classes(labels)
        return len(classes) == 1 or (self.paper and len(classes) == 2 and not (self._scored(labels) == 0).any())

    def _scored(self, labels: np.ndarray) -> np.ndarray:
        """The labels in which the classes of a picture are looked for."""
        return resized(labels, self.label_size) if self.paper else labels


class Folder(DataSet):
    """images/NAME.jpg (or .png ...) and masks/CLASS/NAME.png, white where the class CLASS is."""

    contrast, together, label_size = DEFAULT_CONTRAST, False, (224, 224)

    def __init__(self, folder: Path):
        self.title = folder.name
        self.masks: dict[str, list[Path]] = {}
        for mask in sorted(folder.glob("masks/*/*.png")):
            self.masks.setdefault(mask.stem, []).append(mask)
        self.images = sorted(p for p in folder.glob("images/*") if p.suffix.lower() in SUFFIXES and p.stem in self.masks)
        if not self.images:
            raise ValueError(f"'{folder}' holds no picture with a mask. Expected are images/NAME.jpg and masks/CLASS/NAME.png.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = np.array(read(self.images[index]))
        labels = np.zeros(image.shape[:2], dtype=np.int16)
        masks = self.masks[self.images[index].stem]
        for i, path in enumerate(masks):
            mask = np.array(read(path).convert("L")) >= 128
            if mask.shape != labels.shape:
                raise ValueError(f"'{path}' has {' x '.join(map(str, mask.shape[::-1]))} pixels, its picture "
                                 f"{' x '.join(map(str, labels.shape[::-1]))}. Masks are as large as their pictures.")
            labels[mask] = i + 1
        return Sample(self.images[index].name, image, tuple(path.parent.name for path in masks), labels)


def resized(picture: np.ndarray, size: tuple[int, int], how: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
    """H x W x 3 uint8, or H x W labels (by nearest neighbour), at `size` (H, W), as the authors' transforms do it."""
    if picture.ndim == 3:
        return np.array(Image.fromarray(picture).resize(size[::-1], how))
    return np.array(Image.fromarray(picture.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)).astype(picture.dtype)


def read_class_names(file: Path | None, wordnet: Path | None = None) -> dict[str, str]:
    """WordNet id -> name of a JSON file: {"n02123045": "cat", ...}, Keras' {"281": ["n02123045", "tabby"], ...}, or the authors'
    {"categories": {"tabby": "cat", ...}}, whose keys are the first words of WordNet's entries.

    wordnet: data.noun of WordNet 3.0, which says the WordNet id of these. Raises ValueError for anything else; a bare list
    of names says not which WordNet id each belongs to.
    """
    wanted = ('ImageNet-Segmentation names its classes by WordNet id. Give --class-names a JSON file such as '
              '{"n02123045": "cat", ...}, imagenet_class_index.json as Keras has it, or the authors\' imagenet_class_map.json. '
              'The paper uses short everyday names.')
    if file is None:
        raise ValueError(wanted)
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is no JSON: {error}. {wanted}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"'{file}' holds no names by WordNet id. {wanted}")
    if isinstance(found.get("categories"), dict):
        return _by_wordnet_id(found["categories"], file, wordnet)
    pairs = [value if isinstance(value, list) else (key, value) for key, value in found.items()]
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise ValueError(f"'{file}' holds something else than names. {wanted}")
    return {synset: name.split(",")[0].replace("_", " ").strip() for synset, name in pairs}


def _by_wordnet_id(names: dict[str, str], file: Path, wordnet: Path | None) -> dict[str, str]:
    """First word of an entry -> name, to WordNet id -> name. A line of data.noun begins with the entry's number and words."""
    if wordnet is None:
        raise ValueError(f"'{file}' names classes by the first words of WordNet's entries. Give --wordnet the file data.noun of "
                         "WordNet 3.0, which says their WordNet ids: it is in Debian's wordnet-base, and in nltk's corpora/wordnet.")
    found = {}
    for line in wordnet.read_text("latin-1").splitlines():
        parts = line.split(" ", 5)
        if len(parts) == 6 and parts[0].isdigit() and parts[4].replace("_", " ") in names:
            found[f"n{parts[0]}"] = names[parts[4].replace("_", " ")]
    if not found:
        raise ValueError(f"--wordnet is '{wordnet}', in which none of the names of '{file}' is found. Give data.noun of WordNet 3.0.")
    return found


def _h5py():
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ValueError("ImageNet-Segmentation is an HDF5 file. Install h5py to read it: pip install h5py") from error
    return h5py
