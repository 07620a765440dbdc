"""Clips: frames are pictures of a batch, a video has more of them than its latent, and nothing grows without a bound."""

from dataclasses import replace

import pytest
import torch

from concept_saliency.core import explore, render
from concept_saliency.core.families import flux1
from concept_saliency.core.live import LiveSaliency
from concept_saliency.core.masks import mask, soft_masks
from concept_saliency.core.recording import Recorder, Recording
from concept_saliency.core.saliency import Saliency, saliency


def recorded(clips=2, frames=3, words=3, grid=(2, 4), steps=3, compression=4) -> Recording:
    generator = torch.Generator().manual_seed(0)
    recorder = Recorder(["cat", "dog"], ["sky"][:words - 2], "flux1", flux1.DEFAULTS, torch.linspace(1, 0, steps + 1), 2,
                        (16 * grid[0], 16 * grid[1]), frames=frames, compression=compression)
    for sigma in torch.linspace(1, 0, steps + 1)[:-1].tolist():
        recorder.add(sigma, {"output": torch.randn(2, clips, words, frames * grid[0] * grid[1], generator=generator)})
    return recorder.finish()["output"]


def test_frames_are_pictures_clip_by_clip_in_their_order():
    recorder = Recorder(["cat"], [], "flux1", flux1.DEFAULTS, [1.0, 0.0], 1, (16, 32), frames=3, compression=4)
    recorder.add(1.0, {"output": torch.arange(12.0).view(1, 2, 1, 6)})  # 2 clips of 3 frames of 1 x 2 tokens
    recording = recorder.finish()["output"]
    assert recording.scores.shape == (1, 1, 6, 1, 1, 2) and (recording.frames, recording.compression) == (3, 4)
    assert recording.scores.flatten().tolist() == list(range(12))


def test_a_videos_frames_have_the_maps_of_the_latent_frame_that_stands_for_them():
    recording = recorded()
    shown = saliency(recording, "all", temperature=2.0)
    assert shown.maps.shape == (18, 2, 2, 4) and shown.frames == 9 and shown.counted == "18 (9 frames a clip)"
    pictures = saliency(replace(recording, frames=1), "all", temperature=2.0)
    latent = [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5]  # clip 1, clip 2
    torch.testing.assert_close(shown.maps, pictures.maps[latent])
    torch.testing.assert_close(shown.presence, pictures.presence[latent])
    torch.testing.assert_close(shown.contrast_maps, pictures.contrast_maps[latent])
    averaged = replace(recording, defaults=replace(flux1.DEFAULTS, softmax_first=False))
    torch.testing.assert_close(saliency(averaged, "all").maps, saliency(replace(averaged, frames=1), "all").maps[latent])
    assert saliency(replace(recording, compression=1), "all").frames == 3


def test_masks_and_soft_masks_are_those_of_the_frames_one_by_one():
    shown, video = saliency(recorded(clips=1)).at_size((40, 80)), torch.rand(9, 40, 80, 3, generator=torch.Generator().manual_seed(1))
    assert soft_masks(shown).shape == (9, 2, 40, 80)
    masks = mask(shown, "dog", image=video)
    for frame in range(9):
        alone = replace(shown, frames=1, **{name: getattr(shown, name)[frame:frame + 1] for name in ("maps", "presence", "contrast_maps")})
        assert torch.equal(masks[frame], mask(alone, "dog", image=video[frame:frame + 1])[0])
    with pytest.raises(ValueError, match=r"'image' is 3 picture\(s\) .* of 9 of"):
        mask(shown, "dog", image=video[:3])


def test_files_come_back_equal_and_those_without_frames_are_pictures(tmp_path):
    recording = recorded()
    recording.save(tmp_path / "file")
    again = Recording.load(tmp_path / "file")
    assert torch.equal(again.scores, recording.scores) and {**vars(again), "scores": 0} == {**vars(recording), "scores": 0}
    shown = saliency(recording)
    shown.save(tmp_path / "file")
    assert Saliency.load(tmp_path / "file").frames == 9
    old = {name: getattr(shown, name) for name in ("maps", "presence", "contrast_maps")}
    about = '{"concepts": ["cat", "dog"], "image_size": [32, 64], "extent": [32, 64], "contrast": ["sky"]}'
    explore.save_file({name: value.contiguous().numpy() for name, value in old.items()}, tmp_path / "old",
                      metadata={"format": "concept_saliency.saliency.1", "saliency": about})
    assert Saliency.load(tmp_path / "old").frames == 1


@pytest.mark.parametrize("wrong", [{"frames": 4}, {"frames": 0}, {"frames": 3.0}, {"compression": 0}, {"compression": 2**70}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="6 pictures are clips of .* whole clips"):
        replace(recorded(), **wrong)
    if "frames" in wrong:
        with pytest.raises(ValueError, match="18 pictures are clips of .* whole clips"):
            replace(saliency(recorded()), **{"frames": wrong["frames"] or -1})


@pytest.mark.parametrize("steps, most", [(50, 2.3), (50, 7.0), (7, 6.9), (4, 0.5)])
def test_a_run_beyond_the_limit_thins_its_steps_and_says_so(steps, most):
    """most: how many steps' scores fit. What is kept is never more, but for the one step without which there would be nothing."""
    scores, levels = torch.zeros(2, 1, 3, 3 * 8), torch.linspace(1, 0, steps + 1)
    recorder = Recorder(["cat", "dog"], ["sky"], "flux1", flux1.DEFAULTS, levels, 2, (32, 64), frames=3,
                        max_bytes=int(most * scores.numel() * 4))
    for sigma in levels[:-1].tolist():
        if recorder.wants(sigma):
            recorder.add(sigma, {"output": scores})
    kept = recorder.finish()["output"].scores
    assert len(kept) <= max(1, most) and f"one step in {recorder.stride} is recorded" in recorder.notes[0]


def test_a_node_shows_a_few_frames_of_each_clip():
    long = saliency(recorded(clips=2, frames=6))
    assert long.frames == 21 and render.previewed(long) == [0, 3, 6, 9, 11, 14, 17, 20, 21, 24, 27, 30, 32, 35, 38, 41]
    assert render.previewed(saliency(recorded(clips=1, frames=2))) == [0, 1, 2, 3, 4]
    assert render.previewed(saliency(replace(recorded(), frames=1))) == [0, 1, 2, 3, 4, 5]
    assert len(render.tiles(long, soft_masks(long))) == 16 * 2
    assert render.caption(long, 23, 1).endswith("  frame 3") and "frame" not in render.caption(replace(long, frames=1), 23, 1)


def test_the_explorer_gets_the_frames_that_are_shown(tmp_path):
    recording = recorded(clips=1, frames=6)
    shown = saliency(recording, "all")
    assert explore.save(tmp_path / "file", shown, recording=recording, layers="all") == render.previewed(shown)
    with explore_file(tmp_path / "file") as file:
        maps = file.get_tensor("maps")
    assert maps.shape == (4, 8, 3, 2, 4)  # all steps, then each alone
    first = saliency(recording, "all", 0.0, 0.0)
    assert (maps[1] == explore.as_levels(explore.rows(first)[render.previewed(shown)])).all()


def test_while_it_is_drawn_the_middle_frame_shows_in_whatever_space_there_is():
    defaults = replace(flux1.DEFAULTS, first_layer=0.0)
    recorder = Recorder(["cat"], ["sky"], "flux1", defaults, [1.0, 0.0], 2, (16, 32), frames=3, compression=4)
    scores = torch.randn(2, 1, 2, 3 * 2, generator=torch.Generator().manual_seed(0))
    recorder.add(1.0, {"cross-attention": scores})
    shown, whole = LiveSaliency(recorder).newest(), saliency(recorder.finish()["cross-attention"], "all")
    torch.testing.assert_close(shown.maps[0], whole.maps[4])


def explore_file(path):
    from safetensors import safe_open

    return safe_open(path, "np")
