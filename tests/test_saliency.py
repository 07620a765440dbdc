"""Recordings, and what is computed from them afterwards."""

import re
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from concept_saliency.core.families import flux1
from concept_saliency.core.masks import Shaping, mask, soft_masks
from concept_saliency.core.recording import Recorder, Recording
from concept_saliency.core.saliency import Saliency, parse_layers, saliency
from concept_saliency.core.stream import output_scores


@pytest.fixture
def recording() -> Recording:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 5, 2, 4, 3, 6, generator=generator)
    return Recording(("cat", "dog"), ("sky", "floor"), scores, (1.0, 0.75, 0.5, 0.25), (0.0, 0.25, 0.5, 0.75), (0, 1, 2, 3, 4), 5,
                     "output", "flux1", flux1.DEFAULTS, (44, 90))


def test_flux1_takes_the_softmax_in_every_layer_and_step_and_averages_after(recording):
    expected = recording.scores[1:3][:, [0, 4]].softmax(3).mean((0, 1))
    result = saliency(recording, "0,4", 0.25, 0.5)
    torch.testing.assert_close(torch.cat((result.maps, result.contrast_maps), 1), expected)
    averaged = replace(recording, defaults=replace(flux1.DEFAULTS, softmax_first=False, temperature=1000.0))
    torch.testing.assert_close(saliency(averaged, "all").maps, (recording.scores.mean((0, 1)) / 1000).softmax(1)[:, :2])


def test_auto_is_the_family_s_layers_in_proportion_and_its_window(recording):
    assert flux1.DEFAULTS.layers(19) == [15, 16, 17, 18]
    assert torch.equal(saliency(recording).maps, saliency(recording, "3,4").maps)
    late = replace(recording, defaults=replace(flux1.DEFAULTS, first_step=0.5))
    assert torch.equal(saliency(late).maps, saliency(recording, "auto", 0.5, 1.0).maps)
    very_late = replace(recording, defaults=replace(flux1.DEFAULTS, first_step=0.9))
    assert torch.equal(saliency(very_late).maps, saliency(recording, "auto", 0.75, 1.0).maps), "the last step seen is better than none"


def test_maps_come_out_at_the_size_of_the_picture_that_was_reduced_for_the_model(recording, tmp_path):
    whole = recording.at_size((132, 270))
    assert (whole.image_size, whole.seen_size) == ((132, 270), (44, 90)) and whole.at_size((44, 90)) == recording
    whole.save(tmp_path / "whole")
    maps, small = saliency(Recording.load(tmp_path / "whole")), saliency(recording)
    assert (maps.image_size, maps.extent) == ((132, 270), (144, 288)) and torch.equal(maps.maps, small.maps)
    assert soft_masks(maps).shape == (2, 2, 132, 270)
    with pytest.raises(ValueError, match="a picture of .44, 900. pixels has .3, 57. tokens"):
        replace(whole, seen_size=(44, 900))


@pytest.mark.parametrize("text, expected", [("all", [0, 1, 2, 3, 4]), ("1-3", [1, 2, 3]), ("3, 1", [1, 3]), ("-2:", [3, 4]), ("-1", [4]),
                                            (":2", [0, 1]), ("0,2-3", [0, 2, 3]), ("AUTO", [3, 4])])
def test_layers(text, expected):
    assert parse_layers(text, range(5), [3, 4]) == expected


@pytest.mark.parametrize("text", ["", "5", "0-9", "4-2", "x", "1.5", "-9", "1-", "--1", ",", "99999999999999999999"])
def test_bad_layers_name_the_range(text):
    with pytest.raises(ValueError, match="layers are 0 to 4"):
        parse_layers(text, range(5), [3, 4])


@given(st.text(alphabet="0123456789-:,autol ", max_size=12))
def test_any_layer_text_parses_or_is_refused_clearly(text):
    try:
        rows = parse_layers(text, range(5), [3, 4])
    except ValueError as error:
        assert "layers are 0 to 4" in str(error)
        return
    assert rows and set(rows) <= set(range(5)) and rows == sorted(rows)


def test_maps_line_up_with_the_picture_when_the_grid_reaches_beyond_it(recording):
    one = saliency(recording)
    assert (one.extent, one.image_size) == ((48, 96), (44, 90))
    pixels = soft_masks(one)
    assert pixels.shape == (2, 2, 44, 90) and pixels.min() >= 0 and pixels.max() <= 1
    full = torch.nn.functional.interpolate(one.maps, (48, 96), mode="bilinear")
    assert torch.equal(pixels, full[..., :44, :90])
    assert soft_masks(one.at_size((88, 180))).shape == (2, 2, 88, 180) and one.at_size((88, 180)).extent == (96, 192)


def test_masks():
    cat = torch.tensor([[0.9, 0.6], [0.05, 0.05]])
    maps = torch.stack((cat, 0.1 * torch.ones(2, 2)))[None]
    sky = (1 - maps.sum(1, keepdim=True)).clamp(0)
    one = Saliency(("cat", "the dog"), maps, (2, 2), (2, 2), maps.amax((2, 3)), ("sky",), sky)
    top = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert torch.equal(mask(one), top) and torch.equal(mask(one, "CAT", "argmax"), top)
    assert torch.equal(mask(one, "cat", "absolute", 0.7), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    assert torch.equal(mask(one, "cat", shaping=Shaping(invert=True)), 1 - top)
    assert not mask(one, "the dog", "argmax").any(), "a concept that wins nowhere has an empty mask"
    assert torch.equal(mask(one, "the dog + cat", "absolute", 0.7), mask(one, "cat", "absolute", 0.7))
    with pytest.raises(ValueError, match="no concept 'horse'.*1 cat, 2 the dog"):
        mask(one, "horse")
    with pytest.raises(ValueError, match="expected one of auto, mean, otsu"):
        mask(one, "cat", "magic")


def test_recorder_averages_calls_at_one_noise_level_and_thins_long_runs():
    recorder = Recorder(["a"], [], "flux1", flux1.DEFAULTS, [1.0, 0.5, 0.0], 2, (16, 32))
    for value in (1.0, 3.0):
        recorder.add(0.5, {"output": torch.full((2, 1, 1, 2), value)})
    recorder.add(1.0, {"output": torch.zeros(2, 1, 1, 2)})
    recording = recorder.finish()["output"]
    assert recording.sigmas == (1.0, 0.5) and recording.progress == (0.0, 0.5)
    assert recording.scores.shape == (2, 2, 1, 1, 1, 2) and (recording.scores[1] == 2).all()
    long = Recorder(["a"], [], "flux1", flux1.DEFAULTS, torch.linspace(1, 0, 11), 2, (16, 32), max_bytes=100)
    assert long.wants(1.0)
    long.add(1.0, {"output": torch.zeros(2, 1, 1, 2)})
    kept = [s for s in torch.linspace(1, 0, 11)[:-1].tolist() if long.wants(s)]
    assert len(kept) == 5 and "one step in 2" in long.notes[0]


def test_files_come_back_equal(recording, tmp_path):
    path = tmp_path / "r.safetensors"
    recording.save(path)
    again = Recording.load(path)
    assert torch.equal(again.scores, recording.scores)
    assert {**vars(again), "scores": 0} == {**vars(recording), "scores": 0}
    one = saliency(recording)
    one.save(path)
    again = Saliency.load(path)
    assert torch.equal(again.maps, one.maps) and again.concepts == one.concepts and again.extent == one.extent


def test_numbers_that_the_model_got_wrong_are_named(recording):
    recording.scores[1, 2, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="computed NaN.*bfloat16"):
        saliency(recording, layers="2")
    assert torch.isfinite(saliency(recording, layers="3-4").maps).all()


def test_recordings_of_the_wrong_shape_or_type_or_with_nan_are_refused(recording, tmp_path):
    with pytest.raises(ValueError, match="scores have shape"):
        replace(recording, concepts=("cat",))
    with pytest.raises(ValueError, match="torch.float16, expected torch.float32"):
        replace(recording, scores=recording.scores.half())
    replace(recording, scores=recording.scores * float("nan")).save(tmp_path / "nan")
    with pytest.raises(ValueError, match="not finite"):
        Recording.load(tmp_path / "nan")


def test_differences_between_concepts_survive_half_precision():
    generator = torch.Generator().manual_seed(0)
    common, own = torch.randn(1, 1, 512, generator=generator), torch.randn(1, 4, 512, generator=generator)
    concepts, image = (20 * common + own).bfloat16(), (20 * common + torch.randn(1, 64, 512, generator=generator)).bfloat16()
    exact = torch.bmm(concepts.double(), image.double().transpose(1, 2))  # near 200 000
    rounded = torch.bmm(concepts, image.transpose(1, 2)).double()
    mine = output_scores(concepts, image).double()

    def error(scores):
        return ((scores - scores.mean(1, keepdim=True)) - (exact - exact.mean(1, keepdim=True))).abs().max()

    assert error(mine) < error(rounded) / 20
    assert output_scores((10 * concepts).half(), image.half()).isfinite().all(), "float16 ends at 65504"


@pytest.mark.parametrize("depth", [1, 2, 3, 19, 57])
def test_the_advice_about_layers_can_be_taken(depth):
    """Whatever the error suggests to write is accepted, and names layers that there are."""
    with pytest.raises(ValueError, match=f"layers are 0 to {depth - 1}\\. Write for example: ") as refused:
        parse_layers("seven", range(depth), range(depth))
    examples = re.split(", | or ", str(refused.value).partition("example: ")[2])
    assert len(examples) == 5 and all(parse_layers(example, range(depth), range(depth)) for example in examples)


@pytest.mark.parametrize("maps", [torch.full((1, 1, 4, 4), 1.5), torch.full((1, 1, 4, 4), -0.5), torch.zeros(1, 1, 4, 4).double(),
                                  torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 0, 4), torch.zeros(0, 1, 4, 4)])
def test_maps_that_are_wrong_in_one_thing_are_refused(maps):
    """Too high, too low, of another type, for another number of concepts, without rows, without a picture."""
    rivals = torch.zeros(len(maps), 0, *maps.shape[2:])
    with pytest.raises(ValueError):
        Saliency(("cat",), maps, (64, 64), (64, 64), torch.full((len(maps), 1), 0.5), (), rivals)


def cat(given: torch.Tensor, **options) -> Saliency:
    """Of a cat alone; one pixel a token."""
    size = tuple(given.shape[2:])
    about = dict(concepts=("cat",), maps=given, image_size=size, extent=size, presence=torch.full((1, 1), 0.5), contrast=(),
                 contrast_maps=torch.zeros(1, 0, *size))
    return Saliency(**(about | options))


def test_rounding_may_carry_a_share_a_ten_thousandth_beyond_0_and_1_and_no_farther():
    for value, fits in ((1.00005, True), (-0.00005, True), (1.0002, False), (-0.0002, False)):
        for wrong in ({"maps": torch.full((1, 1, 4, 4), value)}, {"presence": torch.full((1, 1), value)}):
            if fits:
                assert cat(torch.zeros(1, 1, 4, 4), **wrong).concepts == ("cat",)
            else:
                with pytest.raises(ValueError, match="reach from .* to .*, expected 0 to 1"):
                    cat(torch.zeros(1, 1, 4, 4), **wrong)


@pytest.mark.parametrize("wrong, said", [
    ({"presence": torch.zeros(2, 1)}, "presence have shape"), ({"presence": torch.zeros(1)}, "presence have shape"),
    ({"presence": torch.zeros(1, 2)}, "presence have shape"), ({"contrast_maps": torch.zeros(1, 1, 4, 4)}, "contrast_maps have shape"),
    ({"contrast_maps": torch.zeros(1, 0, 4, 5)}, "contrast_maps have shape"), ({"contrast": ("sky",)}, "contrast_maps have shape"),
    ({"maps": torch.zeros(())}, "maps have shape"),
    ({"maps": torch.zeros(1, 1, 4, 4, 1), "contrast_maps": torch.zeros(1, 0, 4, 4, 1)}, "expected pictures"),
    ({"maps": torch.zeros(1, 1, 4), "contrast_maps": torch.zeros(1, 0, 4)}, "expected pictures x concepts x height x width"),
    ({"extent": (4, 3)}, "less than image_size"), ({"extent": (3, 4)}, "less than image_size"), ({"concepts": ()}, "concepts are"),
    ({"frames": 0}, "clips of 0 frames"), ({"frames": 2}, "1 pictures are clips of 2 frames"), ({"frames": 1.0}, "clips of 1.0 frames"),
    ({"extent": (4, 0)}, "extent is"), ({"image_size": (0, 4)}, "image_size is")])
def test_saliency_that_does_not_fit_together_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        cat(torch.zeros(1, 1, 4, 4), **wrong)


def test_pictures_are_counted_with_the_frames_of_their_clips():
    two = cat(torch.zeros(2, 1, 4, 4), presence=torch.zeros(2, 1), contrast_maps=torch.zeros(2, 0, 4, 4))
    assert (two.counted, replace(two, frames=2).counted) == ("2", "2 (2 frames a clip)")


def test_saliency_cannot_be_changed_for_all_nodes_that_were_given_it():
    with pytest.raises(FrozenInstanceError):
        cat(torch.zeros(1, 1, 4, 4)).concepts = ("dog",)


def test_maps_are_enlarged_from_the_tokens_middles_along_straight_lines():
    """Two tokens over four pixels, whose middles are at 1 and 3: a quarter of the way at 1.5, and flat outside of them."""
    one = cat(torch.tensor([[[[0.0, 1.0]]]]), image_size=(1, 4), extent=(2, 4))
    torch.testing.assert_close(one.pixels(one.maps)[0, 0], torch.tensor([[0.0, 0.25, 0.75, 1.0]]))
    over = cat(torch.tensor([[[[-0.00005, 1.00005]]]]), image_size=(1, 2), extent=(1, 2))
    assert over.pixels(over.maps).flatten().tolist() == [0, 1]


def test_what_reaches_beyond_the_picture_grows_with_it(recording):
    """48 x 96 pixels of tokens over 44 x 90: three times as large, and as a picture of 100 x 101, 48 * 100 / 44 and 96 * 101 / 90."""
    one = saliency(recording)
    assert one.at_size((132, 270)).extent == (144, 288) and one.at_size((100, 101)).extent == (109, 108)
    assert one.index("dog") == 1


def test_a_window_of_the_run_is_taken_as_it_is_and_its_ends_count(recording):
    late = replace(recording, defaults=replace(flux1.DEFAULTS, first_step=0.5))
    for start, end, steps in ((0.0, 0.5, [0, 1, 2]), (0.25, 1.0, [1, 2, 3]), (0.25, 0.25, [1]), (0.3, 0.6, [2])):
        expected = recording.scores[steps][:, [3, 4]].softmax(3).mean((0, 1))[:, :2]
        torch.testing.assert_close(saliency(late, start=start, end=end).maps, expected)
    with pytest.raises(ValueError, match="No recorded step lies between 0.8 and 1, .* Recorded steps began at: 0.00, 0.25, 0.50, 0.75"):
        saliency(recording, start=0.8)


def test_layers_are_known_by_their_numbers_where_only_some_were_recorded():
    assert parse_layers("all", [2, 5], [5]) == [0, 1] and parse_layers("5", [2, 5], [5]) == [1] and parse_layers("-1", [2, 5], [5]) == [1]
    assert parse_layers("-4, auto", [2, 5], [5]) == [0, 1] and parse_layers(":1", [2, 5], [5]) == [0]
    with pytest.raises(ValueError, match=r"'5-9999' ask for \[6\]\."):
        parse_layers("5-9999", [2, 5], [5])
    advice = "This model's layers are 0 to 5\\. Write for example: auto, all, 2-5, 0,5 or -4:"
    with pytest.raises(ValueError, match=rf"ask for \[3, 4\]\. {advice}"):
        parse_layers("2-5", [2, 5], [5])
    with pytest.raises(ValueError, match=r"ask for none\."):
        parse_layers("5:", range(5), [3, 4])
