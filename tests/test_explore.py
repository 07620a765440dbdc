"""What the explorer in the browser reads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from concept_saliency.core import explore, render
from concept_saliency.core.families import flux1
from concept_saliency.core.recording import Recording
from concept_saliency.core.saliency import Saliency, saliency


def recorded(steps=5, batch=2, grid=(4, 6)) -> Recording:
    scores = 4 * torch.randn(steps, 3, batch, 5, *grid, generator=torch.Generator().manual_seed(0))
    along = tuple(i / steps for i in range(steps))
    return Recording(("cat", "<b>"), ("x", "y", "z"), scores, tuple(1 - p for p in along), along, (0, 1, 2), 3, "output", "flux1",
                     flux1.DEFAULTS, (16 * grid[0] - 3, 16 * grid[1]))


def read(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["explorer"])  # noqa: SIM118  (no dict)


@pytest.mark.parametrize("exact", [False, True])
def test_maps_names_and_colours(tmp_path, exact):
    recording = recorded()
    shown = saliency(recording, "all", temperature=2.0)
    assert explore.save(tmp_path / "file", shown, exact, recording, "all", 2.0) == [0, 1]
    tensors, about = read(tmp_path / "file")
    assert about == {"concepts": ["cat", "<b>"], "contrast": ["x", "y", "z"], "image_size": [61, 96], "extent": [64, 96],
                     "progress": list(recording.progress)}
    maps, top = tensors["maps"], 1 if exact else 255
    assert maps.shape == (6, 2, 5, 4, 6) and maps.dtype == (np.float32 if exact else np.uint8)
    alone = [saliency(recording, "all", p, p, 2.0) for p in recording.progress]
    for moment, expected in zip(maps, (shown, *alone)):
        np.testing.assert_allclose(moment / top, explore.rows(expected).numpy(), rtol=0, atol=0 if exact else 0.5 / top + 1e-6)
    if not exact:
        fine = (maps[0] + (tensors["rest"] - 128.0) / 255) / 255
        np.testing.assert_allclose(fine, explore.rows(shown).numpy(), rtol=0, atol=1.01 / 255**2)
    np.testing.assert_array_equal(tensors["presence"], shown.presence.numpy())
    ramp = torch.arange(256) / 255
    np.testing.assert_allclose(tensors["colours"] / 255, render.heatmaps(ramp).numpy(), rtol=0, atol=0.5 / 255 + 1e-6)


def test_never_more_than_the_limit(tmp_path, monkeypatch):
    """Steps are left out evenly, then pictures; where not one fits, no file is written."""
    recording = recorded(steps=9)
    shown, picture = saliency(recording), 5 * 4 * 6
    for limit, moments, pictures in ((11 * 2 * picture, 10, 2), (9 * picture, 3, 2), (4 * picture, 1, 2), (3 * picture - 1, 1, 1)):
        monkeypatch.setattr(explore, "MAX_BYTES", limit)
        assert explore.save(tmp_path / "file", shown, recording=recording) == list(range(pictures))
        tensors, about = read(tmp_path / "file")
        assert tensors["maps"].shape[:2] == (moments, pictures) and tensors["maps"].nbytes + tensors["rest"].nbytes <= limit
        assert len(tensors["presence"]) == pictures and len(about["progress"]) == moments - 1
    monkeypatch.setattr(explore, "MAX_BYTES", 9 * picture)
    explore.save(tmp_path / "file", shown, recording=recording)
    assert read(tmp_path / "file")[1]["progress"] == [recording.progress[0], recording.progress[-1]]
    monkeypatch.setattr(explore, "MAX_BYTES", 2 * picture - 1)
    assert explore.save(tmp_path / "none", shown, recording=recording) == [] and not (tmp_path / "none").exists()


def test_maps_to_make_masks_from_take_four_bytes_each_and_nothing_beside_them(tmp_path, monkeypatch):
    recording = recorded(steps=9)
    shown, picture = saliency(recording), 4 * 5 * 4 * 6
    for limit, moments, pictures in ((6 * picture, 3, 2), (2 * picture, 1, 2), (2 * picture - 1, 1, 1), (picture, 1, 1)):
        monkeypatch.setattr(explore, "MAX_BYTES", limit)
        assert len(explore.save(tmp_path / "file", shown, True, recording)) == pictures
        tensors, _ = read(tmp_path / "file")
        assert tensors["maps"].shape[:2] == (moments, pictures) and tensors["maps"].nbytes <= limit and "rest" not in tensors
    monkeypatch.setattr(explore, "MAX_BYTES", picture - 1)
    assert explore.save(tmp_path / "none", shown, True) == []


def test_a_million_tokens_fit(tmp_path):
    """A byte each for the map and for its rest: two megabytes."""
    for size, there in (((1000, 1000), [0]), ((1000, 1001), [])):
        shown = Saliency(("a",), torch.zeros(1, 1, *size), size, size, torch.zeros(1, 1), (), torch.zeros(1, 0, *size))
        assert explore.save(tmp_path / "file", shown) == there


def test_steps_are_shown_at_the_model_s_own_temperature_unless_said(tmp_path):
    recording = recorded(batch=1)
    warm = replace(recording, defaults=replace(recording.defaults, temperature=3.0))
    explore.save(tmp_path / "file", saliency(warm), True, warm)
    steps = read(tmp_path / "file")[0]["maps"][1:]
    for step, progress in zip(steps, warm.progress):
        np.testing.assert_array_equal(step, explore.rows(saliency(warm, "auto", progress, progress)).numpy())


def test_levels_and_what_rounding_took_from_them_by_hand(tmp_path):
    """100.48 is level 100, and 0.48 * 255 = 122 more than 128; 0.3 and 0.5 lie halfway, and go to even levels, 76 and 128; what
    rounding carried beyond 0 and 1 is cut off."""
    values = [100.48 / 255, 100.49 / 255, 0.3, 0.5, -0.00005, 1.00005]
    maps = torch.tensor([[[values]]])
    shown = Saliency(("a",), maps, (1, 6), (1, 6), torch.zeros(1, 1), (), torch.zeros(1, 0, 1, 6))
    explore.save(tmp_path / "file", shown)
    tensors, _ = read(tmp_path / "file")
    assert tensors["maps"].ravel().tolist() == [100, 100, 76, 128, 0, 255]
    assert tensors["rest"].ravel().tolist() == [250, 253, 255, 0, 128, 128]
    assert explore.as_levels(torch.tensor([-0.5, 0.5, 1.5])).tolist() == [0, 128, 255]


def test_a_step_that_is_not_finite_is_left_out(tmp_path):
    recording = recorded()
    scores = recording.scores.clone()
    scores[1, 0, 0, 0, 0, 0] = float("nan")
    recording = replace(recording, scores=scores)
    shown = saliency(recording, start=0.5)
    explore.save(tmp_path / "file", shown, recording=recording)
    assert read(tmp_path / "file")[1]["progress"] == [p for i, p in enumerate(recording.progress) if i != 1]
    assert explore.single_steps(recording, 0) == explore.single_steps(recording, -1) == []


def test_saliency_without_contrast_and_without_a_recording(tmp_path):
    maps = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]]]])
    shown = Saliency(("a",), maps, (32, 32), (32, 32), torch.tensor([[0.5]]), (), torch.zeros(1, 0, 2, 2))
    explore.save(tmp_path / "file", shown)
    assert read(tmp_path / "file")[0]["maps"].ravel().tolist() == [0, 64, 128, 255]
