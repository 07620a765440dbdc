"""Impact Pack's own code takes our SEGS, where Impact Pack is installed."""

import pytest
import torch
from concept_saliency.core.saliency import Saliency
from concept_saliency.nodes.saliency_to_segs import SEG, ConceptSaliencyToSEGS
from conftest import HOST

FOUND = sorted(p for p in HOST.glob("custom_nodes/*/modules/impact/core.py"))
pytestmark = pytest.mark.skipif(not FOUND, reason="Impact Pack is not installed in this ComfyUI")


@pytest.fixture(scope="module")
def core():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOUND[0].parent.parent))
        from impact import core

        yield core


@pytest.fixture
def segs():
    maps = torch.full((1, 2, 6, 8), 0.1)
    maps[0, 0, 1:3, 1:3] = maps[0, 0, 3:6, 5:8] = 0.9  # two cats
    maps[0, 1, 5, 0] = 0.8  # a dog
    made = Saliency(("cat", "dog"), maps, (96, 128), (96, 128), maps.amax((2, 3)), ("sky",), torch.full((1, 1, 6, 8), 0.3))
    return ConceptSaliencyToSEGS.execute(made, torch.rand(1, 96, 128, 3), 2.0).result[0][0]


def test_the_fields_and_their_types_are_impact_pack_s(core, segs):
    assert SEG._fields == core.SEG._fields and SEG._field_defaults == core.SEG._field_defaults
    theirs = core.mask_to_segs(core.segs_to_combined_mask(segs), False, 2.0, False, label="cat", is_contour=False)
    assert [s.label for s in segs[1]] == ["cat", "cat", "dog"] and theirs[0] == segs[0] and len(theirs[1]) == 3
    assert {tuple(map(int, s.bbox)) for s in theirs[1]} == {tuple(s.bbox) for s in segs[1]}, "the same islands, the same corners"
    for seg in segs[1]:
        assert seg.cropped_mask.ndim == theirs[1][0].cropped_mask.ndim == 2
        x1, y1, x2, y2 = seg.crop_region
        assert seg.cropped_mask.shape == (y2 - y1, x2 - x1)


def test_impact_pack_s_operations_run_on_them(core, segs):
    assert len(core.segs_to_masklist(segs)) == len(core.dilate_segs(segs, 3)[1]) == 3
    half = torch.zeros(96, 128)
    half[:, :64] = 1
    kept = core.segs_to_combined_mask(core.segs_bitwise_and_mask(segs, half))
    assert torch.equal(kept, core.segs_to_combined_mask(segs) * half) and kept.any()
    doubled = core.segs_scale_match(segs, (1, 192, 256, 3))
    assert doubled[0] == (192, 256) and doubled[1][0].cropped_image.shape[1:3] == doubled[1][0].cropped_mask.shape
