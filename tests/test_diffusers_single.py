"""Single-stream blocks in diffusers: a plain second computation, pictures that stay the same, one partial pass."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from host.reference import DoubleStream  # noqa: E402
from test_diffusers import converted  # noqa: E402
from test_single_stream import close, folded, reference  # noqa: E402
from tiny_diffusers import CONCEPTS, capture, draw, hooks, one_thread, tiny  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.headless.image import record_image  # noqa: E402

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PICTURE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
FLUX2 = DoubleStream(patch=1, text_axes=(3,), concept_at=510, reference_scale=10.0, global_modulation=True, gated=True)


def golden_model(data) -> torch.nn.Module:
    config = data.about["config"]
    sizes = dict(num_layers=config["depth"], num_single_layers=config["depth_single_blocks"], attention_head_dim=128,
                 num_attention_heads=config["num_heads"], joint_attention_dim=config["context_in_dim"])
    if "pooled" in data.tensors:
        model = diffusers.FluxTransformer2DModel(**sizes, pooled_projection_dim=config["vec_in_dim"],
                                                 guidance_embeds=config["guidance_embed"])
        model.load_state_dict(converted(data.weights(), config["hidden_size"]))
        return model
    if not hasattr(diffusers, "Flux2Transformer2DModel"):
        pytest.skip("diffusers before 0.36 has no Flux.2")
    from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

    model = diffusers.Flux2Transformer2DModel(**sizes)
    model.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(data.weights()))
    return model


@pytest.mark.parametrize("how", ["plain", "fused", "reference"])
@pytest.mark.parametrize("name", ["flux1_dev_like", "flux1_schnell_like", "flux2_like"])
@torch.no_grad()
def test_the_plain_computation(golden, name, how):
    """reference: another picture stands after the one that is drawn, as in Kontext."""
    data = golden(name)
    model, (rows, columns), words = golden_model(data), data.about["grid"], data["txt"].shape[1]
    if how == "fused":
        model.fuse_qkv_projections()
    one, guided = "pooled" in data.tensors, data.about["config"].get("guidance_embed", True)
    places = torch.cartesian_prod(*map(torch.arange, (1, rows, columns) if one else (1, rows, columns, 1)))
    text = torch.zeros(words, 3) if one else torch.cartesian_prod(*map(torch.arange, (1, 1, 1, words)))
    call = dict(hidden_states=data["step0.img"], encoder_hidden_states=data["txt"], timestep=torch.tensor(data.about["timesteps"][:1]),
                guidance=torch.tensor([data.about["guidance"]]) if guided else None, img_ids=places, txt_ids=text)
    call |= {"pooled_projections": data["pooled"]} if one else {}
    kind, channels, references = (DoubleStream(patch=2), 16, ()) if one else (FLUX2, 128, ())
    if how == "reference":
        tokens = torch.randn(1, 2 * 3, data["step0.img"].shape[-1], generator=torch.Generator().manual_seed(0))
        references = [folded(tokens, (2, 3), channels, kind.patch)]
        far = torch.cartesian_prod(*map(torch.arange, (1, 2, 3) if one else (1, 2, 3, 1)))
        far[:, 0] = int(kind.reference_scale)
        call |= dict(hidden_states=torch.cat((data["step0.img"], tokens), dim=1), img_ids=torch.cat((places, far)))
    plain, vectors = model(**call).sample, dict(zip("abcdefg", data["concepts"][0]))
    with capture(model, list(vectors), encode=lambda phrase: vectors[phrase][None], contrast="", cross_attention=True,
                 blocks="all") as recordings:
        assert torch.equal(model(**call).sample, plain)
    assert hooks(model) == 0
    for space, expected in reference(data, kind, channels, references).items():
        close(recordings.in_space(space).latest.scores[0, :, 0].flatten(-2), expected)


@pytest.fixture
def pipe():
    return tiny()


@pytest.mark.parametrize("how", [{}, {"prompt": ["a cat", "a dog"]}, {"height": 128, "width": 32},
                                 {"true_cfg_scale": 3.0, "negative_prompt": "moon"}], ids=str)
def test_pictures_stay_the_same(pipe, how):
    plain = draw(pipe, **how)
    with capture(pipe, CONCEPTS) as paper, capture(pipe, CONCEPTS, blocks="all") as recordings:
        assert torch.equal(draw(pipe, **how), plain)
    most, fewest = recordings.latest, paper.latest
    assert hooks(pipe.transformer) == 0 and (most.depth, most.singles, fewest.depth, fewest.singles) == (5, 2, 3, 0)
    assert torch.equal(most.scores[:, :3], fewest.scores) and most.saliency().maps.shape == fewest.saliency().maps.shape


@pytest.mark.parametrize(("blocks", "singles"), [("double", 0), ("double and first single", 1), ("all", 2)])
def test_the_pass_over_a_picture_stops_in_the_last_block_that_is_needed(pipe, blocks, singles):
    called, told = [], []
    for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks):
        block.register_forward_pre_hook(lambda block, args: called.append(type(block).__name__))
    last = (pipe.transformer.single_transformer_blocks[singles - 1] if singles else pipe.transformer.transformer_blocks[-1])
    last.register_forward_hook(lambda *seen: pytest.fail("the last block went on to its end"))
    before = hooks(pipe.transformer)
    found = record_image(pipe, PICTURE, CONCEPTS, blocks=blocks, progress=lambda steps: told.append(len(steps)) or steps)["output"]
    assert called == ["FluxTransformerBlock"] * 3 + ["FluxSingleTransformerBlock"] * singles and told == [3 + singles]
    assert hooks(pipe.transformer) == before and (found.depth, found.singles) == (3 + singles, singles)
    maps = concept_saliency.saliency_of_image(pipe, PICTURE, CONCEPTS, blocks=blocks)
    assert torch.equal(maps.maps, found.saliency().maps)


def test_beside_compiled_blocks_and_after_a_failure(pipe):
    torch._dynamo.reset()
    with capture(pipe, CONCEPTS, blocks="all") as recordings:
        draw(pipe)
    pipe.transformer.compile_repeated_blocks(backend="eager")
    plain = draw(pipe)
    with capture(pipe, CONCEPTS, blocks="all") as beside:
        assert torch.equal(draw(pipe), plain)
    torch.testing.assert_close(beside.latest.scores, recordings.latest.scores, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="blocks is 'some', expected auto, double"), capture(pipe, CONCEPTS, blocks="some"):
        pass
    with pytest.raises(RuntimeError, match="on purpose"), capture(pipe, CONCEPTS, blocks="all"):
        pipe.transformer.norm_out.register_forward_pre_hook(fail)
        draw(pipe)
    assert hooks(pipe.transformer) == 1  # the one of this test
    torch._dynamo.reset()


def fail(*args):
    raise RuntimeError("on purpose")
