"""The concept stream's options, beside what the golden values cover."""

import pytest
import torch

from concept_saliency.demo.pipeline import TinyFlux


@pytest.fixture(scope="module")
def tiny() -> TinyFlux:
    return TinyFlux()


def scores(tiny: TinyFlux, concepts: str, **options) -> torch.Tensor:
    """Layers x concepts x height x width of one picture of a fixed seed."""
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return tiny.record(picture, concepts, "", **options)["output"].scores[0, :, 0]


def test_without_self_attention_a_concept_does_not_depend_on_its_rivals(tiny):
    alone, beside = scores(tiny, "cat", self_attention=False), scores(tiny, "cat, sand", self_attention=False)
    torch.testing.assert_close(alone[:, 0], beside[:, 0])
    assert not torch.allclose(scores(tiny, "cat")[:, 0], scores(tiny, "cat, sand")[:, 0], rtol=1e-3)
