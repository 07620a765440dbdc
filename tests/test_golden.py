"""The method reproduces the authors' own numbers."""

import pytest
import torch

from concept_saliency.core.families import flux1
from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.recording import Recorder
from concept_saliency.core.saliency import saliency
from concept_saliency.core.stream import ConceptStream
from concept_saliency.demo.flux import Flux, FluxConfig


@pytest.mark.parametrize("name", ["flux1_dev_like", "flux1_schnell_like"])
@torch.no_grad()
def test_flux1_concept_outputs_scores_and_heatmaps(golden, name):
    data = golden(name)
    config, grid = data.about["config"], tuple(data.about["grid"])
    model = Flux(FluxConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}))
    model.load_state_dict(data.weights())
    guidance = torch.tensor([data.about["guidance"]]) if config["guidance_embed"] else None
    count, depth = data["concepts"].shape[1], config["depth"]
    sigmas = data.about["timesteps"]
    recorder = Recorder([f"c{i}" for i in range(count)], [], flux1.NAME, flux1.DEFAULTS, [*sigmas, 0.0], depth,
                        (grid[0] * 16, grid[1] * 16))
    for step, sigma in enumerate(sigmas):
        t = torch.tensor([sigma])
        stream = ConceptStream(comfyui, model, data["concepts"], t, guidance)
        outputs = []
        predicted = model(data[f"step{step}.img"], data["txt"], t, grid, data["pooled"], guidance,
                          watch=lambda *seen: outputs.append(stream.watch(*seen)))
        scores = torch.stack(stream.scores["output"])
        data.assert_close(predicted, f"step{step}.pred")
        data.assert_close(torch.stack(outputs), f"step{step}.concept_out")
        data.assert_close(scores, f"step{step}.scores")
        recorder.add(sigma, {"output": scores})
        plain = model(data[f"step{step}.img"], data["txt"], t, grid, data["pooled"], guidance)
        assert torch.equal(predicted, plain), "watching must not change the prediction by one bit"
    recording = recorder.finish()["output"]
    data.assert_close(saliency(recording, layers="-2:").maps, "heatmaps_last2_all_steps")


def test_segmentation_metrics(golden):
    from concept_saliency.core.metrics import SegmentationMetrics

    data, total = golden("segmentation_metrics"), SegmentationMetrics()
    for i, expected in enumerate(data.about["per_image"]):
        one = SegmentationMetrics()
        for metrics in (one, total):
            metrics.add(data["coefficients"][i], data["labels"][i])
        assert one.pixel_accuracy == pytest.approx(expected["pixel_accuracy"], abs=1e-6)
        assert one.mean_iou == pytest.approx(expected["mean_iou"], abs=1e-6)
        assert one.mean_average_precision == pytest.approx(expected["average_precision"], abs=1e-6)
    assert total.pixel_accuracy == pytest.approx(data.about["total"]["pixel_accuracy"], abs=1e-6)
    assert total.mean_iou == pytest.approx(data.about["total"]["mean_iou"], abs=1e-6)
    assert total.mean_average_precision == pytest.approx(data.about["total"]["mean_average_precision"], abs=1e-6)
