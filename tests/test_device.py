"""Where the model runs: on the CPU, and on a CUDA GPU where there is one (the same tests, with what only that device can get wrong)."""

import gc
import weakref

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from tiny_diffusers import CONCEPTS, capture, check_same, draw, one_thread, tiny

from concept_saliency.core import recording

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
RUNS = {"cpu": 10, "cuda": 50}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_GPU)])
def pipe(request):
    return tiny().to(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION,
                                     SDPBackend.CUDNN_ATTENTION], ids=str)
def test_the_same_picture_with_every_attention_of_pytorch(pipe, backend, dtype):
    pipe.to(dtype)
    pipe.transformer.forward = sdpa_kernel(backend)(pipe.transformer.forward)  # what else the pipeline has need not know it
    try:
        draw(pipe, num_inference_steps=1)
    except RuntimeError as error:
        pytest.skip(f"{pipe.device} has no {backend.name} for {dtype}: {error}")
    check_same(pipe)


def test_scores_have_arrived_when_they_are_read(pipe, monkeypatch):
    """After two runs back to back, and after one that failed: as if every copy had been waited for."""

    def late(scores):
        if scores.is_cuda:
            torch.cuda._sleep(50_000_000)  # so that whoever reads too early reads what was there before
        return sent(scores)

    def fail(*_):
        raise KeyError("in the middle")

    found, sent = [], recording.to_host
    for send in (late, lambda scores: scores.cpu().clone()):
        monkeypatch.setattr(recording, "to_host", send)
        with capture(pipe, CONCEPTS, cross_attention=True) as recordings:
            draw(pipe)
            draw(pipe, seed=1)
            with pytest.raises(KeyError, match="in the middle"):
                draw(pipe, seed=2, callback_on_step_end=fail)
            draw(pipe, seed=3)
        found.append([r.scores for space in ("output", "cross-attention") for r in recordings.in_space(space)])
    assert len(found[0]) == len(found[1]) == 8 and all(map(torch.equal, *found))
    assert all(scores.device.type == "cpu" and scores.abs().sum() > 0 for scores in found[0])


def in_use(pipe) -> int:
    """What tensors take: bytes of the GPU, or on the CPU how many there are."""
    gc.collect()
    if pipe.device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def test_nothing_is_left_after_many_runs(pipe):
    draw(pipe, num_inference_steps=1)
    before, alive = in_use(pipe), []
    for seed in range(RUNS[pipe.device.type]):
        with capture(pipe, CONCEPTS) as recordings:
            draw(pipe, seed, num_inference_steps=1)
            alive.append(weakref.ref(recordings.latest.scores))
        del recordings
    assert in_use(pipe) == before and not [one for one in alive if one() is not None]
