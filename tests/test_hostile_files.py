"""Saved files that somebody else wrote: whatever is in them is either usable or refused clearly."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from concept_saliency.core.families import flux1
from concept_saliency.core.masks import METHODS, mask
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import Saliency, saliency

quickly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = st.lists(st.integers(0, 3), max_size=6).map(tuple)
KINDS = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
VALUES = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, float("nan"), float("inf")])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)


def whole_recording() -> Recording:
    return Recording(("a",), ("b",), torch.zeros(1, 1, 1, 2, 1, 1), (1.0,), (0.0,), (0,), 1, "output", "flux1", flux1.DEFAULTS, (16, 16))


@st.composite
def tensors(draw):
    return torch.full(draw(SHAPES), draw(VALUES)).to(draw(KINDS))


def usable(load, use, path) -> None:
    """The file is loaded and used, or refused with a ValueError that says something."""
    try:
        use(load(path))
    except ValueError as error:
        assert len(str(error)) > 20, error


@quickly
@given(data=st.data())
def test_damaged_bytes(tmp_path, data):
    whole_recording().save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    (tmp_path / "cut").write_bytes(content[:cut])
    (tmp_path / "noise").write_bytes(data.draw(st.binary(max_size=64)))
    (tmp_path / "huge header").write_bytes((10 * 2**30).to_bytes(8, "little") + b"{}")
    for name in ("cut", "noise", "huge header", "not there"):
        with pytest.raises(ValueError, match="cannot be read|is damaged|expected"):
            Recording.load(tmp_path / name)
    with pytest.raises(ValueError, match="expected 'concept_saliency.saliency.1'"):
        Saliency.load(tmp_path / "whole")
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "flipped").write_bytes(flipped)
    usable(Recording.load, saliency, tmp_path / "flipped")


@quickly
@given(maps=tensors(), contrast_maps=tensors(), presence=tensors(), about=st.fixed_dictionaries({}, optional={
    "concepts": JSON | st.just(["a"]), "contrast": JSON | st.just(["b"]), "image_size": JSON | st.just([16, 16]) | st.just([2**40, 1]),
    "extent": JSON | st.just([16, 16]), "more": JSON}) | JSON)
def test_any_saliency(tmp_path, maps, contrast_maps, presence, about):
    save_file({"maps": maps, "contrast_maps": contrast_maps, "presence": presence}, tmp_path / "file",
              metadata={"format": "concept_saliency.saliency.1", "saliency": json.dumps(about)})
    usable(Saliency.load, lambda loaded: [mask(loaded, "", method) for method in METHODS], tmp_path / "file")


FIELDS = ("concepts", "contrast", "sigmas", "progress", "layers", "depth", "space", "family", "defaults", "image_size", "patch",
          "seen_size")


@quickly
@given(scores=tensors() | st.just(torch.zeros(1, 1, 1, 2, 1, 1)), changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2))
def test_any_recording(tmp_path, scores, changes):
    whole_recording().save(tmp_path / "whole")
    from safetensors import safe_open

    with safe_open(tmp_path / "whole", "pt") as file:
        about = json.loads(file.metadata()["recording"])
    save_file({"scores": scores}, tmp_path / "file",
              metadata={"format": "concept_saliency.recording.1", "recording": json.dumps({**about, **changes})})
    usable(Recording.load, saliency, tmp_path / "file")


def test_pickles_are_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("executed").write_text, ("yes",))

    torch.save(Bomb(), tmp_path / "bomb.safetensors")
    for load in (Recording.load, Saliency.load):
        with pytest.raises(ValueError, match="cannot be read"):
            load(tmp_path / "bomb.safetensors")
    assert not (tmp_path / "executed").exists()
