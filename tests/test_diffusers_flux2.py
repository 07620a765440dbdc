"""Flux.2 in diffusers: golden values through its own class, a whole pipeline, and what is refused."""

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
if not hasattr(diffusers, "Flux2Transformer2DModel"):
    pytest.skip("diffusers before 0.36 has no Flux.2", allow_module_level=True)

from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel  # noqa: E402
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers  # noqa: E402
from tiny_diffusers import hooks, one_thread, tokenizer  # noqa: E402, F401
from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: E402

import concept_saliency  # noqa: E402
from concept_saliency.core.families import flux2  # noqa: E402
from concept_saliency.headless.image import record_image  # noqa: E402
from concept_saliency.headless.inputs import phrase_encoder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPLATE = "{% for m in messages %}red sand {{ m.content }} sky{% endfor %}{% if add_generation_prompt %} and moon{% endif %}"


@torch.no_grad()
def test_golden_values(golden):
    data = golden("flux2_like")
    config, (rows, columns) = data.about["config"], data.about["grid"]
    model = Flux2Transformer2DModel(num_layers=config["depth"], num_single_layers=config["depth_single_blocks"], attention_head_dim=128,
                                    num_attention_heads=config["num_heads"], joint_attention_dim=config["context_in_dim"])
    model.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(data.weights()))
    model.eval()
    text = torch.cartesian_prod(*[torch.arange(n) for n in (1, 1, 1, data["txt"].shape[1])])
    places = torch.cartesian_prod(*[torch.arange(n) for n in (1, rows, columns, 1)])
    vectors = {f"c{i}": vector[None] for i, vector in enumerate(data["concepts"][0])}
    calls = [dict(hidden_states=data[f"step{step}.img"], encoder_hidden_states=data["txt"], timestep=torch.tensor([t]),
                  guidance=torch.tensor([data.about["guidance"]]), img_ids=places, txt_ids=text)
             for step, t in enumerate(data.about["timesteps"])]
    plain, before = [model(**call).sample for call in calls], hooks(model)
    with concept_saliency.capture(model, list(vectors), encode=vectors.__getitem__, contrast="", cross_attention=True) as recordings:
        watched = [model(**call).sample for call in calls]
    assert hooks(model) == before and len(recordings) == 1
    for step in range(len(calls)):
        assert torch.equal(plain[step], watched[step])
        data.assert_close(watched[step], f"step{step}.pred")
        for space, name in (("output", "scores"), ("cross-attention", "cross_scores")):
            data.assert_close(recordings.in_space(space).latest.scores[step].flatten(-2), f"step{step}.{name}")
    assert (recordings.latest.family, recordings.latest.defaults) == (flux2.NAME, flux2.DEFAULTS)


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    words = tokenizer()
    words.chat_template = TEMPLATE
    text = Qwen3Config(vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
                       num_key_value_heads=1, head_dim=8)
    vae = AutoencoderKLFlux2(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                             block_out_channels=(4,) * 4, layers_per_block=1, latent_channels=32, norm_num_groups=1)
    transformer = Flux2Transformer2DModel(num_layers=3, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
                                          joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False)
    pipe = Flux2KleinPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae.eval(), text_encoder=Qwen3ForCausalLM(text).eval(),
                              tokenizer=words, transformer=transformer.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **how) -> torch.Tensor:
    return pipe(prompt="a cat and a dog", height=64, width=96, num_inference_steps=3, max_sequence_length=16, output_type="pt",
                generator=torch.Generator().manual_seed(0), **how).images


@pytest.mark.parametrize("how", [{}, dict(guidance_scale=1.0), dict(num_images_per_prompt=2)], ids=str)
def test_the_picture_does_not_change(pipe, how):
    plain = draw(pipe, **how)
    before = hooks(pipe.transformer), hooks(pipe.text_encoder)  # the latter its own
    with concept_saliency.capture(pipe, "cat, red dog|moon", contrast="sky") as recordings:
        watched = draw(pipe, **how)
    assert torch.equal(plain, watched) and (hooks(pipe.transformer), hooks(pipe.text_encoder)) == before
    assert len(recordings) == 1 and recordings.latest.scores.shape == (3, 3, len(plain), 3, 4, 6)
    assert recordings.latest.image_size == (64, 96) and recordings.latest.saliency().maps.shape == (len(plain), 2, 4, 6)


@torch.no_grad()
def test_a_phrases_own_tokens_are_found_in_the_template(pipe):
    encode = phrase_encoder(pipe)
    whole = {phrase: pipe.encode_prompt(phrase)[0][0] for phrase in ("cat", "dog")}
    assert torch.equal(whole["cat"][:2], whole["dog"][:2]), "the template's tokens before the phrase know nothing of it"
    for phrase, vectors in whole.items():
        assert torch.equal(encode(phrase), vectors[2:3].float())
    assert not torch.allclose(encode("cat"), encode("dog"), rtol=1e-2)
    assert encode("red dog").shape == (2, 48)


def test_what_cannot_be_done_is_said(pipe):
    with pytest.raises(ValueError, match="flux2 pipeline; existing pictures of it can be read in ComfyUI alone"):
        record_image(pipe, torch.rand(1, 3, 64, 64), "cat")
    bare = Flux2KleinPipeline(**(pipe.components | {"text_encoder": None}))
    with pytest.raises(ValueError, match="has no text_encoder and tokenizer"):
        phrase_encoder(bare)
    with pytest.raises(ValueError, match="This is a AutoencoderKLFlux2, which cannot be looked into. Supported: Flux.1.*, Flux.2"):
        with concept_saliency.capture(pipe.vae, "cat", encode=pipe):
            pass
