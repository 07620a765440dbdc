"""Capture on diffusers beside everything else that is put on a model: other pipelines, processors, LoRA, offloading, caches."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from diffusers.models.transformers.transformer_flux import FluxAttnProcessor  # noqa: E402
from tiny_diffusers import CONCEPTS, capture, check_same, draw, hooks, one_thread, tiny  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

from concept_saliency.headless.image import record_image  # noqa: E402

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
PICTURE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
MASK = (torch.arange(96) < 48).float().expand(1, 1, 64, 96)


@pytest.fixture
def pipe():
    return tiny()


def recorded(pipe, **how):
    """The scores of a picture."""
    with warnings.catch_warnings(), capture(pipe, CONCEPTS) as recordings:
        warnings.simplefilter("error")
        draw(pipe, **how)
    return recordings.latest.scores


@pytest.mark.parametrize("kind, how, steps", [
    ("FluxImg2ImgPipeline", {"image": PICTURE, "strength": 0.5, "num_inference_steps": 4}, 2),
    ("FluxInpaintPipeline", {"image": PICTURE, "mask_image": MASK, "strength": 0.5, "num_inference_steps": 4}, 2),
    ("FluxFillPipeline", {"image": PICTURE, "mask_image": MASK}, 3),
    ("FluxKontextPipeline", {"image": PICTURE, "max_area": 64 * 96, "_auto_resize": False}, 3),
])
def test_pipelines_of_every_kind(kind, how, steps):
    pipe = tiny(getattr(diffusers, kind), in_channels=384 if "Fill" in kind else 64)
    recording = check_same(pipe, **how)
    assert len(recording.sigmas) == steps and recording.progress == pytest.approx([i / steps for i in range(steps)])


def test_references_have_no_place_in_the_map_but_are_seen():
    pipe = tiny(diffusers.FluxKontextPipeline)
    how = dict(max_area=64 * 96, _auto_resize=False, num_inference_steps=1)
    first, second = (recorded(pipe, image=image, **how) for image in (PICTURE, PICTURE.flip(3)))
    assert first.shape == second.shape == (1, 3, 1, 8, 4, 6) and not torch.equal(first, second)


def test_a_processor_that_was_there_goes_on(pipe):
    plain, called = recorded(pipe), []

    class Own(FluxAttnProcessor):
        def __call__(self, attn, *args, **kwargs):
            called.append(attn)
            return super().__call__(attn, *args, **kwargs)

    own = Own()
    pipe.transformer.set_attn_processor(own)
    assert torch.equal(recorded(pipe), plain)
    assert len(called) == 3 * 5 and all(p is own for p in pipe.transformer.attn_processors.values())
    check_same(pipe)


def test_hooks_that_were_there_go_on_and_stay(pipe):
    seen = []
    for module in (pipe.transformer, pipe.transformer.transformer_blocks[1].attn.to_v):
        module.register_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    check_same(pipe)
    assert len(seen) == 2 * 3 * 2 and hooks(pipe.transformer) == 2


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends(pipe, backend):
    plain = recorded(pipe)
    pipe.transformer.set_attention_backend(backend)
    check_same(pipe)
    torch.testing.assert_close(recorded(pipe), plain, rtol=1e-4, atol=1e-4)


def test_fused_projections(pipe):
    plain = recorded(pipe)
    with capture(pipe, CONCEPTS) as recordings:
        pipe.transformer.fuse_qkv_projections()
        for block in pipe.transformer.transformer_blocks:  # diffusers keeps them, but uses them no more
            block.attn.add_q_proj = block.attn.to_v = None
        draw(pipe)
    torch.testing.assert_close(recordings.latest.scores, plain, rtol=1e-4, atol=1e-4)
    check_same(pipe)


def test_lora(pipe):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    plain = recorded(pipe)
    with capture(pipe, CONCEPTS) as recordings:
        draw(pipe)
        pipe.transformer.add_adapter(peft.LoraConfig(r=4, init_lora_weights=False, target_modules=[
            "to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "norm1_context.linear"]))
        draw(pipe)
        pipe.transformer.disable_adapters()
        draw(pipe)
    before, adapted, disabled = (recording.scores for recording in recordings)
    assert torch.equal(before, plain) and torch.equal(disabled, plain) and not torch.equal(adapted, plain)
    pipe.transformer.enable_adapters()
    check_same(pipe, joint_attention_kwargs={"scale": 0.5})
    with_lora = recorded(pipe)
    assert torch.equal(with_lora, adapted), "put on before or after, a LoRA is seen the same way"
    pipe.transformer.set_adapters("default", 1.0)
    pipe.fuse_lora(components=["transformer"])
    torch.testing.assert_close(recorded(pipe), with_lora, rtol=1e-3, atol=1e-3)


class Quantised(torch.nn.Module):
    """A linear layer whose weights nobody else can read."""

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.stored, self.scale, self.offset = (linear.weight / scale).round().to(torch.int8), scale, linear.bias

    def forward(self, x):
        return torch.nn.functional.linear(x, self.stored.to(x.dtype) * self.scale, self.offset)


def test_quantised_layers(pipe):
    plain = recorded(pipe, num_inference_steps=1)
    for name, module in list(pipe.transformer.named_modules()):
        if isinstance(module, torch.nn.Linear):
            pipe.transformer.set_submodule(name, Quantised(module))
    check_same(pipe)
    torch.testing.assert_close(recorded(pipe, num_inference_steps=1), plain, rtol=0.2, atol=0.2)


def test_weights_stored_in_eight_bits(pipe):
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    check_same(pipe)


def test_offloading(pipe):
    """accelerate's own hooks, with the CPU in the place of an accelerator: between calls the weights are not there."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    plain = recorded(pipe)
    accelerate.cpu_offload(pipe.transformer, execution_device="cpu")
    assert pipe.transformer.context_embedder.weight.device.type == "meta"
    assert torch.equal(recorded(pipe), plain)
    check_same(pipe)
    assert pipe.transformer.context_embedder.weight.device.type == "meta"


def test_group_offloading(pipe):
    plain = recorded(pipe)
    pipe.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(recorded(pipe), plain)
    check_same(pipe)


def test_steps_that_a_cache_skips_are_not_recorded(pipe):
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
    plain = draw(pipe, num_inference_steps=4)
    with pytest.warns(UserWarning, match="a cache skips blocks") as said, capture(pipe, CONCEPTS) as recordings:
        watched = draw(pipe, num_inference_steps=4)
    assert torch.equal(plain, watched) and recordings.latest.progress == (0.0,)
    assert len([w for w in said if "a cache skips blocks" in str(w.message)]) == 1, "said once"


def test_a_processor_that_leaves_out_the_attention_s_layers(pipe):
    class Foreign(FluxAttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
            return hidden_states if encoder_hidden_states is None else (hidden_states, encoder_hidden_states)

    pipe.transformer.set_attn_processor(Foreign())
    with pytest.warns(UserWarning, match="are not recorded"), capture(pipe, CONCEPTS) as recordings:
        draw(pipe)
    with pytest.raises(ValueError, match="Nothing was recorded of run -1"):
        recordings.latest


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["transformer_blocks.1.attn.to_q", "single_transformer_blocks.0", "vae"])
def test_nothing_is_left_after_an_exception(pipe, monkeypatch, error, place):
    def fail(*args, **kwargs):
        raise error("on purpose")

    plain = draw(pipe)
    broken = pipe.vae.decoder if place == "vae" else pipe.transformer.get_submodule(place)
    with monkeypatch.context() as patch:
        patch.setattr(broken, "forward", fail)
        with pytest.raises(error, match="on purpose"), capture(pipe, CONCEPTS):
            draw(pipe)
    assert hooks(pipe.transformer) == 0 and torch.equal(draw(pipe), plain)
    with monkeypatch.context() as patch, capture(pipe, CONCEPTS) as recordings:
        patch.setattr(broken, "forward", fail)
        with pytest.raises(error, match="on purpose"):
            draw(pipe)
        if error is ValueError:
            assert hooks(pipe.transformer) == 2, "only those that wait for the next call"
        patch.undo()
        assert torch.equal(draw(pipe), plain) and len(recordings.latest.sigmas) == 3
    assert hooks(pipe.transformer) == 0


def test_an_early_stop(pipe):
    def stop(pipe, step, timestep, given):
        pipe._interrupt = step == 1
        return given

    recording = check_same(pipe, num_inference_steps=4, callback_on_step_end=stop)
    assert recording.progress == pytest.approx((0, 0.25))


def test_two_at_once(pipe):
    plain = draw(pipe)
    with capture(pipe, "cat, moon") as first, capture(pipe, "dog") as second:
        assert torch.equal(draw(pipe), plain)
    assert first.latest.concepts == ("cat", "moon") and second.latest.concepts == ("dog",)
    assert hooks(pipe.transformer) == 0


@torch.no_grad()
def test_threads_on_one_transformer(pipe):
    """Each thread's calls are seen as they are seen alone; and nothing is left, though a call outlasts the block."""
    pipe.transformer.set_attention_backend("native")  # diffusers' choice is global, and _native_math no thing for threads
    embeds, pooled, text_ids = pipe.encode_prompt("a cat", max_sequence_length=8)
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.), torch.arange(6.))
    inside, go_on = threading.Barrier(5), threading.Event()

    def hold() -> None:
        inside.wait(60)
        go_on.wait(60)

    @torch.no_grad()
    def picture(seed: int) -> torch.Tensor:
        tokens = torch.randn(1, 24, 64, generator=torch.Generator().manual_seed(seed))
        for level in (0.9, 0.6, 0.3):
            tokens = pipe.transformer(tokens, embeds, pooled, torch.tensor([level]), ids, text_ids, torch.tensor([3.5])).sample
        return tokens

    plain = [picture(seed) for seed in range(4)]
    with capture(pipe, CONCEPTS) as alone:
        for seed in range(4):
            picture(seed)
    with ThreadPoolExecutor(4) as pool:
        with capture(pipe, CONCEPTS) as together:
            watched = list(pool.map(picture, range(4)))
        assert hooks(pipe.transformer) == 0
        assert all(map(torch.equal, plain, watched)) and [len(r.sigmas) for r in together] == [3] * 4
        for recording in together:
            assert any(torch.equal(recording.scores, other.scores) for other in alone)

        handle = pipe.transformer.transformer_blocks[1].register_forward_pre_hook(lambda block, args: hold())
        with capture(pipe, CONCEPTS):
            late = [pool.submit(picture, seed) for seed in range(4)]
            inside.wait(60)
            handle.remove()
        assert hooks(pipe.transformer) == 0
        go_on.set()
        assert all(torch.equal(plain[seed], late[seed].result(60)) for seed in range(4))
    assert hooks(pipe.transformer) == 0


COMPILED = {"wrapped": lambda t, how: torch.compile(t, **how), "in place": lambda t, how: t.compile(**how) or t,
            "block by block": lambda t, how: t.compile_repeated_blocks(**how) or t}


@pytest.fixture
def fresh():
    """No compiled code of another test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures(fresh.__name__)
@pytest.mark.parametrize("form, backend", [*((form, "eager") for form in COMPILED), ("block by block", "aot_eager")])
def test_compiled_transformers(pipe, form, backend):
    """The compiled code draws, before, within and after, and is never compiled again for us; what is seen is what is seen without it."""
    seen, count, how = recorded(pipe), counters["stats"], {"joint_attention_kwargs": {"scale": 1.0}}
    pipe.transformer = COMPILED[form](pipe.transformer, {"backend": backend})
    plain = draw(pipe)
    compiled_so_far = count["unique_graphs"]
    with capture(pipe, CONCEPTS) as recordings:
        assert torch.equal(draw(pipe), plain)
        assert hooks(pipe.transformer) == (0 if form == "in place" else 1 if form == "wrapped" else 2)
    assert hooks(pipe.transformer) == 0 and torch.equal(draw(pipe), plain)
    torch.testing.assert_close(recordings.latest.scores, seen, rtol=1e-4, atol=1e-4)
    assert count["unique_graphs"] == compiled_so_far > 0
    with capture(pipe, CONCEPTS) as recordings:
        draw(pipe, **how)
    torch.testing.assert_close(recordings.latest.scores, seen, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="on purpose"), capture(pipe, CONCEPTS):
        draw(pipe, callback_on_step_end=fail)
    assert hooks(pipe.transformer) == 0 and torch.equal(draw(pipe), plain)


def fail(*args, **kwargs):
    raise RuntimeError("on purpose")


@pytest.mark.usefixtures(fresh.__name__)
@pytest.mark.parametrize("form", COMPILED)
def test_a_picture_that_exists_and_a_compiled_transformer(pipe, form):
    plain = record_image(pipe, PICTURE, CONCEPTS)["output"].scores
    pipe.transformer = COMPILED[form](pipe.transformer, {"backend": "eager"})
    picture = draw(pipe)
    compiled_so_far = counters["stats"]["unique_graphs"]
    assert torch.equal(record_image(pipe, PICTURE, CONCEPTS)["output"].scores, plain)
    assert torch.equal(draw(pipe), picture) and counters["stats"]["unique_graphs"] == compiled_so_far
    assert hooks(pipe.transformer) == 0


@pytest.mark.usefixtures(fresh.__name__)
def test_code_that_inductor_made_draws_the_same_picture(pipe):
    seen = recorded(pipe, num_inference_steps=1)
    pipe.transformer.compile_repeated_blocks(fullgraph=True)
    plain = draw(pipe)
    with capture(pipe, CONCEPTS) as recordings:
        assert torch.equal(draw(pipe), plain)
    assert torch.equal(draw(pipe), plain)
    torch.testing.assert_close(recordings.latest.scores[:1], seen, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures(fresh.__name__)
def test_what_cannot_be_seen_beside_compiled_code_is_refused(pipe):
    with pytest.raises(ValueError, match="compiled by torch.compile while it was captured"), capture(pipe, CONCEPTS):
        pipe.transformer.compile(backend="eager")
        draw(pipe)
    assert hooks(pipe.transformer) == 0
    pipe = tiny()
    pipe.transformer.compile_repeated_blocks(backend="eager")
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=1e6))
    with pytest.raises(ValueError, match="and has a step cache"), capture(pipe, CONCEPTS):
        draw(pipe)
    assert hooks(pipe.transformer) == 0


def test_refusals(pipe):
    for model, how, message in (
            (pipe.vae, {"encode": pipe}, "This is a AutoencoderKL, which cannot be looked into"),
            ("flux", {"encode": pipe}, "This is a str"),
            (pipe.transformer, {}, "Give the pipeline in its place, or encode=pipe"),
            (pipe, {"encode": "t5"}, "encode is 't5', expected a pipeline"),
            (pipe, {"start": 0.7, "end": 0.2}, "expected 0 <= start <= end <= 1"),
            (pipe, {"token": "last"}, "token is 'last'"),
            (tiny(text_encoder_2=None, tokenizer_2=None), {}, "has no text_encoder_2 and tokenizer_2")):
        with pytest.raises(ValueError, match=message), capture(model, CONCEPTS, **how):
            pass
    pipe.transformer.hf_device_map = {"transformer_blocks": 0, "single_transformer_blocks": 1}
    with pytest.raises(ValueError, match="on several devices"), capture(pipe, CONCEPTS):
        pass
