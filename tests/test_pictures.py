"""Reading pictures, and the size in which the model is shown them."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from concept_saliency.core.pictures import MEGAPIXEL, Unreadable, as_tensor, in_folder, model_size, read, resized

SIDES = st.integers(1, 20_000)


@pytest.mark.parametrize("size, expected", [
    ((1024, 1024), (1024, 1024)), ((832, 1216), (832, 1216)), ((640, 1536), (640, 1536)), ((672, 1568), (672, 1568)),
    ((75, 100), (75, 100)), ((3000, 4000), (864, 1152)), ((4032, 3024), (1152, 864)), ((1000, 1500), (832, 1248)),
    ((1080, 1920), (720, 1280)), ((2048, 2048), (1024, 1024)), ((1, 2**20), (16, 2**16))])
def test_sizes_people_use(size, expected):
    assert model_size(*size) == expected


@given(SIDES, SIDES, st.sampled_from([0.25, 1.0, 2.0]))
def test_any_size(height, width, megapixels):
    """Never beyond the limit, whole tokens, as near the picture's aspect as these allow, and the same turned round."""
    found = model_size(height, width, megapixels)
    assert model_size(width, height, megapixels) == found[::-1]
    tokens = [math.ceil(side / 16) for side in found]
    assert tokens[0] * tokens[1] * 256 <= 1.05 * megapixels * MEGAPIXEL
    if found != (height, width):
        assert all(side % 16 == 0 for side in found)
        if max(height, width) <= 16 * min(height, width):
            assert found[0] * found[1] >= 0.75 * megapixels * MEGAPIXEL
            assert abs(math.log(found[0] * width / (found[1] * height))) < 0.02
    assert model_size(height, width, 0) == (height, width)


def test_however_small_the_limit_a_token_is_left():
    assert model_size(100, 200, 1e-4) == model_size(200, 100, 1e-4) == (16, 16)
    assert model_size(100, 100, 2 * 256 / MEGAPIXEL) == (16, 16), "two tokens are allowed, but one is square"


@pytest.mark.parametrize("megapixels", [-1.0, math.nan, math.inf])
def test_a_limit_that_is_none(megapixels):
    with pytest.raises(ValueError, match="expected 0 .the picture's own size. or more"):
        model_size(64, 64, megapixels)


def test_resized_without_aliasing():
    """A chequerboard of single pixels becomes grey, not one of its colours; values stay in 0..1."""
    board = torch.ones(256, 256)
    board[::2, ::2] = board[1::2, 1::2] = 0
    small = resized(board.expand(1, 3, -1, -1), (64, 64))
    assert small.shape == (1, 3, 64, 64) and (small[..., 4:-4, 4:-4] - 0.5).abs().max() < 0.02
    lines = torch.zeros(1, 1, 64, 256)
    lines[..., ::8] = 1
    pairs = resized(lines, (16, 64)).unflatten(-1, (-1, 2)).mean(-1)
    assert (pairs[..., 1:-1] - 1 / 8).abs().max() < 0.001, "fine lines are neither lost nor brighter"
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 1
    assert resized(edge, (32, 48)).min() >= 0 and resized(edge, (32, 48)).max() <= 1
    assert resized(edge, (64, 64)) is edge


@pytest.fixture
def picture() -> Image.Image:
    """A ramp from black to white, wider than high."""
    ramp = np.linspace(0, 255, 40).round().astype(np.uint8)
    return Image.fromarray(np.repeat(ramp[None], 24, axis=0))


@pytest.mark.parametrize("name", ["grey16.png", "grey16.tif", "big-endian.tif", "float.tif", "grey16.pgm"])
def test_more_than_eight_bits_are_read_as_what_they_show(picture, tmp_path, name):
    values = np.asarray(picture)
    if name == "float.tif":
        Image.fromarray(values.astype(np.float32) / 255).save(tmp_path / name)
    elif name == "big-endian.tif":
        Image.frombytes("I;16B", picture.size, (values.astype(">u2") * 257).tobytes()).save(tmp_path / name)
    else:
        Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / name)
    found = read(tmp_path / name)
    assert found.mode == "RGB" and np.abs(np.asarray(found.convert("L")).astype(int) - values).max() <= 1


def tiff(bits: int, photometric: int, packed: bytes, size: tuple[int, int]) -> bytes:
    """A TIFF of one strip of grey, as scanners write it; Pillow writes no such ones."""
    entries = [(256, 4, size[0]), (257, 4, size[1]), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 122), (277, 3, 1),
               (278, 4, size[1]), (279, 4, len(packed))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + packed


@pytest.mark.parametrize("bits, photometric", [(16, 1), (16, 0), (12, 1)])
def test_what_scanners_write(picture, tmp_path, bits, photometric):
    """12 bits, and white as 0."""
    values = np.asarray(picture).astype(np.uint32) * (2**bits - 1) // 255
    values = values if photometric else 2**bits - 1 - values
    pairs = values.reshape(-1, 2)
    packed = values.astype("<u2").tobytes() if bits == 16 else b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    (tmp_path / "scan.tif").write_bytes(tiff(bits, photometric, packed, picture.size))
    assert np.abs(np.asarray(read(tmp_path / "scan.tif").convert("L")).astype(int) - np.asarray(picture)).max() <= 1


@pytest.mark.parametrize("bits", [12, 16])
def test_every_grey_is_the_nearest_of_256(tmp_path, bits):
    """Not one is a step darker; black is 0 and white is 255."""
    values = np.arange(2**bits).reshape(64, -1)
    a, b = values.reshape(-1, 2).T
    packed = values.astype("<u2") if bits == 16 else np.stack((a >> 4, (a & 15) << 4 | b >> 8, b & 255), axis=1).astype(np.uint8)
    (tmp_path / "scan.tif").write_bytes(tiff(bits, 1, packed.tobytes(), values.shape[::-1]))
    found = np.asarray(read(tmp_path / "scan.tif").convert("L")).astype(float)
    assert np.abs(found - values / (2**bits - 1) * 255).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("values, message", [
    (np.full((4, 4), -0.5, dtype=np.float32), "numbers from -0.5 to -0.5"),
    (np.full((4, 4), 1.5, dtype=np.float32), "numbers from 1.5 to 1.5"),
    (np.full((4, 4), 200, dtype=np.float32), "numbers from 200 to 200, expected 0 .black. to 1"),
    (np.full((4, 4), np.nan, dtype=np.float32), "numbers from nan to nan"),
    (np.full((4, 4), 70_000, dtype=np.int32), "32-bit whole numbers")])
def test_numbers_whose_white_nobody_knows_are_refused_by_name(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "scan.tif")
    with pytest.raises(Unreadable, match=f"scan.tif' cannot be read as a picture: .*{message}"):
        read(tmp_path / "scan.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_pictures_are_upright(picture, tmp_path, orientation, kind):
    """As a camera stores them: the pixels turned, the way back in EXIF; with 8 bits and with 16."""
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the transposition that a camera held so has done
    turned = picture.transpose(Image.Transpose(stored[orientation])) if orientation > 1 else picture
    if kind == "png":
        turned = Image.fromarray(np.asarray(turned).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x112] = orientation
    turned.save(tmp_path / f"photo.{kind}", exif=exif)
    found = read(tmp_path / f"photo.{kind}")
    assert found.size == (40, 24)
    assert np.abs(np.asarray(found.convert("L")).astype(int) - np.asarray(picture)).max() < 12
    with Image.open(tmp_path / f"photo.{kind}") as opened:
        assert torch.equal(as_tensor(opened), as_tensor(found)), "the same for a picture that the caller opened"


def test_transparency_is_dropped_and_says_nothing(picture, tmp_path, recwarn):
    coloured = picture.convert("RGB")
    coloured.putalpha(100)
    coloured.save(tmp_path / "a.png")
    coloured.quantize(64).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert np.abs(np.asarray(read(tmp_path / name).convert("L")).astype(int) - np.asarray(picture)).max() < 12
    assert not recwarn.list


def test_files_in_a_folder_are_all_named(picture, tmp_path):
    """Whatever looks like a picture is there, though it cannot be read; a linked folder too, and no circle of links."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    picture.save(tmp_path / "in" / "deep" / "A.JPG")
    picture.save(tmp_path / "in" / "phone.jfif", "JPEG")
    picture.save(tmp_path / "elsewhere" / "c.webp")
    (tmp_path / "in" / "iphone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    found, left_out = in_folder(tmp_path / "in")
    assert [p.relative_to(tmp_path / "in").as_posix() for p in found] == [
        "deep/A.JPG", "gone.png", "iphone.heic", "linked/c.webp", "phone.jfif"] and not left_out
    assert in_folder(tmp_path / "in", lambda sub: sub.name == "deep")[1] == [tmp_path / "in" / "deep"]
    assert read(tmp_path / "in" / "phone.jfif").size == (40, 24)
    with pytest.raises(Unreadable, match="gone.png' cannot be read as a picture: it is a link to 'nowhere.png', which is not there"):
        read(tmp_path / "in" / "gone.png")
    with pytest.raises(Unreadable, match="iphone.heic' cannot .* in a format that is not known here; save it as PNG or JPEG"):
        read(tmp_path / "in" / "iphone.heic")
    with pytest.raises(ValueError, match="cannot be listed: Not a directory"):
        in_folder(tmp_path / "in" / "notes.txt")


def test_a_link_that_leads_back_hides_nothing(picture, tmp_path):
    for name in "abcde":
        (tmp_path / name).mkdir()
        (tmp_path / name / "back").symlink_to(tmp_path)
        picture.save(tmp_path / name / "a.png")
    assert len(in_folder(tmp_path)[0]) == 5


def test_a_link_to_a_damaged_picture_is_not_said_to_lead_nowhere(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    (tmp_path / "link.png").symlink_to(tmp_path / "damaged.png")
    with pytest.raises(Unreadable, match="link.png' cannot be read as a picture: it is damaged"):
        read(tmp_path / "link.png")
