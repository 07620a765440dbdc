"""Matrix: blocks. The concepts go on through single-stream blocks, beside whatever else is done to these."""

import comfy.sd
import pytest
import torch
from conftest import SmallFlux
from oracle import check as checked
from oracle import traces
from test_matrix_conditioning import CELLS
from test_matrix_models import FP8
from test_matrix_neighbours import CHAINS, Control, patched_inputs


@pytest.mark.parametrize("cell", CELLS)
def test_conditioning(flux, check, cell):
    prompts, settings = CELLS[cell](flux)
    assert check(sample=lambda m: flux.sample(m, positive=prompts, **settings), prompts=prompts, blocks="all").singles == 2


@pytest.mark.parametrize("chain", CHAINS)
def test_chain(flux, apply, chain):
    checked(apply, CHAINS[chain](flux.patcher, []), lambda m: flux.sample(m, cfg=3.0), flux.conditioning(1), blocks="all")


def test_controlnet(flux, check):
    positive = flux.conditioning(1, control=Control(), control_apply_to_uncond=True)
    check(sample=lambda m: flux.sample(m, positive=positive, cfg=2.0), prompts=positive, blocks="all")


def test_one_more_text_token_from_a_patch(flux, apply):
    """Where the text ends in a single block is what the double blocks were given: all of them see the same tokens as the picture's."""
    model, seen = patched_inputs(flux.patcher, []), []
    checked(apply, model, flux.sample, flux.conditioning(1), compare=False, blocks="all")
    for blocks in ("double", "all"):
        mine, runs = apply(model=model, blocks=blocks)
        flux.sample(mine)
        seen.append(runs.find(None)[0].recordings["output"].scores)
    assert torch.equal(seen[0], seen[1][:, :seen[0].shape[1]])
    plain, runs = apply(blocks="all")
    flux.sample(plain)
    without = runs.find(None)[0].recordings["output"].scores[:, 4]
    assert torch.nn.functional.cosine_similarity(seen[1][:, 4].flatten(), without.flatten(), dim=0) > 0.9, "the same tokens, another text"


def test_two_nodes_that_go_differently_far(flux, apply):
    first, first_runs = apply("cat", blocks="double and first single")
    recording = checked(apply, first, flux.sample, flux.conditioning(1), concepts="dog, sun", ours=1, compare=False, blocks="all")
    flux.sample(first)
    assert (recording.depth, first_runs.find(None)[0].recordings["output"].depth) == (6, 5)


def test_lora_and_eight_bits_in_single_blocks(golden, flux, apply, check):
    generator = torch.Generator().manual_seed(7)
    up, down = (torch.randn(*shape, generator=generator) * 0.05 for shape in ((1792, 4), (4, 256)))
    lora = {f"diffusion_model.single_blocks.0.linear1.lora_{name}.weight": value for name, value in (("up", up), ("down", down))}
    with_lora, _ = comfy.sd.load_lora_for_models(flux.patcher, None, lora, 1.0, 0.0)
    changed, plain = check(with_lora, blocks="all").scores, check(blocks="all").scores
    assert (changed[:, 4] - plain[:, 4]).abs().max() > 0.1, "the LoRA does something"
    small = SmallFlux(golden("flux1_dev_like"), dtype=FP8, computed=torch.float32)
    check(small.patcher, small.sample, blocks="all")


@pytest.mark.parametrize("place", ["the block", "our look at it"])
def test_nothing_is_left_when_a_single_block_fails(flux, apply, monkeypatch, place):
    model, runs = apply(blocks="all")
    block = flux.patcher.model.diffusion_model.single_blocks[1]
    with monkeypatch.context() as patches:
        part = block.linear2 if place == "the block" else block.norm
        patches.setattr(part, "forward", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flux.sample(model)
    assert not traces(flux.patcher) and not runs._runs
    checked(apply, flux.patcher, flux.sample, flux.conditioning(1), blocks="all")
