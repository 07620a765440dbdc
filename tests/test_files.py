"""What a saved file must hold, one thing wrong at a time; test_hostile_files.py tries everything at once."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from concept_saliency.core.families import flux1
from concept_saliency.core.files import expect_size, expect_words, read_safetensors
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import Saliency


def written(path, values=(0.0, 1.0), **metadata) -> None:
    save_file({"maps": torch.tensor(values), "more": torch.zeros(1)}, path, metadata=metadata or None)


def test_a_file_that_we_wrote_is_read(tmp_path):
    written(tmp_path / "ours", format="ours.1", about=json.dumps({"concepts": ["cat"]}))
    tensors, about = read_safetensors(tmp_path / "ours", "ours.1", "about", ("maps",))
    assert about == {"concepts": ["cat"]} and list(tensors) == ["maps"] and tensors["maps"].tolist() == [0, 1]


@pytest.mark.parametrize("metadata, values, said", [
    ({}, (0.0,), "has the format None, expected 'ours.1'. Choose a file that Concept Saliency saved"),  # a checkpoint, for example
    ({"format": "pt", "about": "{}"}, (0.0,), "has the format 'pt', expected 'ours.1'"),
    ({"format": "ours.1"}, (0.0,), "cannot be read as safetensors: 'about'"),
    ({"format": "ours.1", "about": "{"}, (0.0,), "cannot be read as safetensors: .* It may be truncated; save it again"),
    ({"format": "ours.1", "about": "[1]"}, (0.0,), "is damaged: its metadata 'about' is no JSON object"),
    ({"format": "ours.1", "about": "{}"}, (0.0, float("nan")), "is damaged: 'maps' holds values that are not finite"),
    ({"format": "ours.1", "about": "{}"}, (float("-inf"), 0.0), "is damaged: 'maps' holds values that are not finite")])
def test_what_is_wrong_with_a_file_is_said(tmp_path, metadata, values, said):
    written(tmp_path / "file", values, **metadata)
    with pytest.raises(ValueError, match=said):
        read_safetensors(tmp_path / "file", "ours.1", "about", ("maps",))


def test_a_file_that_is_cut_short_or_lacks_a_tensor_or_is_not_there_cannot_be_read(tmp_path):
    written(tmp_path / "whole", format="ours.1", about="{}")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    for name, tensor in (("cut", "maps"), ("whole", "presence"), ("missing", "maps")):
        with pytest.raises(ValueError, match=f"{name}' cannot be read as safetensors"):
            read_safetensors(tmp_path / name, "ours.1", "about", (tensor,))


def test_pictures_have_a_height_and_a_width_of_at_least_one_pixel():
    for size in ((1, 1), (1, 65536), (65536, 1)):
        expect_size("image_size", size)
    for wrong in ((0, 5), (5, -5), (5, 65537), (5,), (5, 5, 5), [5, 5], (5.0, 5), (True, 5), ("5", 5), None):
        with pytest.raises(ValueError, match="image_size is .*, expected height and width from 1 to 65536 pixels"):
            expect_size("image_size", wrong)


def test_names_are_words():
    expect_words("concepts", ("cat", "a red fox"))
    expect_words("contrast", (), none_too=True)
    expect_words("contrast", ("sky",), none_too=True)
    for wrong in ((), ["cat"], "cat", ("cat", ""), ("cat", "  "), ("cat", 5), None):
        with pytest.raises(ValueError, match="concepts are .*, expected words"):
            expect_words("concepts", wrong)
    with pytest.raises(ValueError, match="contrast are"):
        expect_words("contrast", ("",), none_too=True)


RECORDING = Recording(("cat",), (), torch.zeros(1, 1, 1, 1, 2, 2), (1.0,), (0.0,), (0,), 1, "output", "flux1", flux1.DEFAULTS, (32, 32))
SALIENCY = Saliency(("cat",), torch.zeros(1, 1, 2, 2), (32, 32), (32, 32), torch.zeros(1, 1), (), torch.zeros(1, 0, 2, 2))


@pytest.mark.parametrize("whole, key, wrong, said", [
    (RECORDING, "recording", {"defaults": None}, "Defaults"),  # TypeError: no keyword arguments
    (RECORDING, "recording", {"defaults": {}}, "missing"),
    (RECORDING, "recording", {"depth": 0}, "layers are"),
    (RECORDING, "recording", {"more": 1}, "more"),
    (RECORDING, "recording", None, "'defaults'"),
    (SALIENCY, "saliency", {"extent": [1, 1]}, "extent is"),
    (SALIENCY, "saliency", {"more": [1]}, "more"),
    (SALIENCY, "saliency", {"extent": 5}, "extent is 5")])
def test_a_file_whose_words_lack_something_or_say_too_much_is_not_usable(tmp_path, whole, key, wrong, said):
    """wrong: what is changed in them; None for words that say nothing at all."""
    whole.save(tmp_path / "whole")
    assert vars(type(whole).load(tmp_path / "whole")).keys() == vars(whole).keys()
    with safe_open(tmp_path / "whole", "pt") as file:
        metadata = file.metadata()
    words = {} if wrong is None else json.loads(metadata[key]) | wrong
    save_file(load_file(tmp_path / "whole"), tmp_path / "changed", metadata | {key: json.dumps(words)})
    with pytest.raises(ValueError, match=f"changed' is not a usable .*{said}"):
        type(whole).load(tmp_path / "changed")
