"""Where a phrase's own tokens stand, with the real tokenizers and text encoders, the latter with few, random weights."""

import functools
import importlib
import re

import comfy.sd
import comfy.supported_models_base
import pytest
import torch
from comfy import sd1_clip
from comfy.text_encoders import flux, hunyuan_image, hunyuan_video, lumina2, qwen_image, qwen_vl, sd3_clip, wan
from comfy.text_encoders.flux import T5XXLTokenizer
from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.families.sd3 import comfyui as sd3_family
from concept_saliency.core.families.wan import comfyui as wan_family
from concept_saliency.nodes import host

try:
    from comfy.text_encoders import krea2, longcat_image, ovis, qwen3vl, z_image
except ImportError:  # not on this host
    z_image = None


def random_clip(tokenizer, model, key: str, tokenizer_data=None, layers=None, **more):
    """A text encoder of ComfyUI's with its own tokenizer and few, random weights. layers: as many as it needs, None for all."""
    config = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config |= {} if layers is None else {"num_hidden_layers": layers}
    clip = comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(tokenizer, model), tokenizer_data=tokenizer_data or {},
                         model_options={f"{key}_model_config": config, **more})
    generator = torch.Generator().manual_seed(0)
    for weight in clip.cond_stage_model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / (weight.shape or (1,))[-1] ** 0.5
    return clip


def klein_4b():
    return random_clip(flux.KleinTokenizer, flux.klein_te(model_type="qwen3_4b"), "qwen3_4b", layers=28)


def klein_9b():
    return random_clip(flux.KleinTokenizer8B, flux.klein_te(model_type="qwen3_8b"), "qwen3_8b", layers=28)


class Bytes:
    """Stands for the vocabulary of Flux.2 dev, which comes with its weights: a token for every byte and every [WORD] in brackets."""

    @classmethod
    def from_pretrained(cls, path, **kwargs):
        return cls()

    def __call__(self, text):
        parts = re.split(r"(\[/?[A-Z_]+\])", text)
        tokens = [[500 + len(part)] if number % 2 else [100 + byte for byte in part.encode()] for number, part in enumerate(parts)]
        return {"input_ids": [1, *sum(tokens, [])]}

    def get_vocab(self):
        return {}


def dev():
    def tokenizer(embedding_directory=None, tokenizer_data=None):
        return sd1_clip.SDTokenizer("", pad_with_end=False, embedding_size=5120, embedding_key="mistral3_24b", tokenizer_class=Bytes,
                                    has_end_token=False, pad_to_max_length=False, pad_token=11, start_token=1, max_length=99999999,
                                    min_length=1, pad_left=True, disable_weights=True)

    return random_clip(flux.Flux2Tokenizer, flux.flux2_te(), "mistral3_24b", {"mistral3_24b_tokenizer_class": tokenizer})


def qwen(tokenizer=qwen_image.QwenImageTokenizer, te=qwen_image.te, layers=2):
    with pytest.MonkeyPatch.context() as patch:  # of its eyes, which no phrase needs, one layer will do
        patch.setattr(qwen_vl, "Qwen2VLVisionTransformer", functools.partial(qwen_vl.Qwen2VLVisionTransformer, num_layers=1))
        return random_clip(tokenizer, te(), "qwen25_7b", layers=layers)


def longcat():
    return qwen(longcat_image.LongCatImageTokenizer, longcat_image.te)


def ovis_image():
    return random_clip(ovis.OvisTokenizer, ovis.te(), "qwen3_2b", layers=2)


def zimage():
    return random_clip(z_image.ZImageTokenizer, z_image.te(), "qwen3_4b", layers=3)


def sd3(clips=True, width=4096):
    """width: T5's, at which ComfyUI joins CLIP's tokens to it. It has one layer here."""
    config = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
    return random_clip(sd3_clip.SD3Tokenizer, sd3_clip.sd3_clip(clip_l=clips, clip_g=clips, t5=True), "clip_l", clip_g_model_config=config,
                       t5xxl_model_config={"d_model": width, "d_ff": 32, "d_kv": 16, "num_heads": 2, "num_layers": 1})
def lumina():
    def tokenizer(embedding_directory=None, tokenizer_data=None):
        return sd1_clip.SDTokenizer("", pad_with_end=False, embedding_size=2304, embedding_key="gemma2_2b", tokenizer_class=Bytes,
                                    has_end_token=False, pad_to_max_length=False, max_length=99999999, min_length=1)

    return random_clip(lumina2.LuminaTokenizer, lumina2.te(), "gemma2_2b", {"gemma2_2b_tokenizer_class": tokenizer}, layers=3)


def krea():
    with pytest.MonkeyPatch.context() as patch:  # of its eyes, which no phrase needs, one layer will do
        small = dict(hidden_size=32, intermediate_size=32, depth=1, deepstack_visual_indexes=[0])
        patch.setitem(qwen3vl.QWEN3VL_VISION, "qwen3vl_4b", small)
        return random_clip(krea2.Krea2Tokenizer, krea2.te(), "qwen3vl_4b")


class Llama(Bytes):
    """The same for HunyuanVideo's, whose file not every copy of ComfyUI has; with the tokens at which its template is cut."""

    KNOWN = {"<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eot_id|>": 128009, "user": 882, "\n\n": 271}

    def __call__(self, text):
        parts = re.split("(" + "|".join(map(re.escape, self.KNOWN)) + ")", text)
        return {"input_ids": [128000, *sum(([self.KNOWN[part]] if part in self.KNOWN else [100 + byte for byte in part.encode()]
                                            for part in parts), [])]}


def hunyuan():
    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hunyuan_video, "LlamaTokenizerFast", Llama)
        return random_clip(hunyuan_video.HunyuanVideoTokenizer, hunyuan_video.hunyuan_video_clip(), "llama", layers=4,
                           clip_l_model_config=small)


def hunyuan15():
    return qwen(hunyuan_video.HunyuanVideo15Tokenizer, functools.partial(hunyuan_image.te, byt5=False), layers=4)


def hunyuan_image21():
    return qwen(hunyuan_image.HunyuanImageTokenizer, functools.partial(hunyuan_image.te, byt5=False), layers=4)


TEXTS = {"flux2 klein 4b": (klein_4b, "flux2", "qwen3_4b"), "flux2 klein 9b": (klein_9b, "flux2", "qwen3_8b"),
         "flux2 dev": (dev, "flux2", "mistral3_24b"), "z-image": (zimage, "z_image", "qwen3_4b"),
         "lumina 2": (lumina, "lumina2", "gemma2_2b"), "krea 2": (krea, "krea2", "qwen3vl_4b"),
         "ovis-image": (ovis_image, "ovis_image", "qwen3_2b"), "longcat-image": (longcat, "longcat_image", "qwen25_7b"),
         "qwen-image": (qwen, "qwen_image", "qwen25_7b"), "sd3": (sd3, "sd3", "l"),
         "hunyuan image": (hunyuan_image21, "hunyuan_image", "qwen25_7b"),
         "hunyuan video": (hunyuan, "hunyuan_video", "llama"), "hunyuan video 1.5": (hunyuan15, "hunyuan_video15", "qwen25_7b")}


@pytest.mark.parametrize("name", TEXTS)
@torch.no_grad()
def test_a_phrases_own_tokens_are_found_in_the_template(name):
    build, family, key = TEXTS[name]
    if family == "hunyuan_video15" and not hasattr(hunyuan_video, "HunyuanVideo15Tokenizer"):
        pytest.skip("not on this host")
    if (family == "flux2" and not hasattr(flux, "KleinTokenizer")) or (
            family in ("z_image", "krea2", "ovis_image", "longcat_image") and z_image is None):
        pytest.skip("not on this host")
    clip = build()
    naming = importlib.import_module(f"concept_saliency.core.families.{family}.comfyui")
    encode = host.phrase_encoder(clip, naming)

    def whole(text):
        tokens = clip.tokenize(text, **naming.TOKENIZE)
        return clip.encode_from_tokens(tokens)[0].float(), [token for token, *_ in tokens[key][0]]

    (cats, cat_row), (dogs, dog_row) = whole("cat"), whole("dog")
    places = [i for i, (a, b) in enumerate(zip(cat_row, dog_row)) if a != b]
    behind = 5 if family == "longcat_image" else 0
    cut = max(0, len(cat_row) - len(cats) - behind)  # of the template, after it was encoded; SD3 has T5's row after CLIP's
    first, count = places[0] - cut, len(places)
    if family in ("z_image", "lumina2"):  # whose prompts begin where concepts are put
        assert places[0] + 1 == importlib.import_module(f"concept_saliency.core.families.{family}").CONCEPT_POSITION
    assert places[0] > 0 and first >= 0 and places == list(range(places[0], places[-1] + 1))
    assert torch.equal(cats[:first], dogs[:first]), "the template's tokens before the phrase know nothing of it"
    for phrase, vectors in (("cat", cats), ("dog", dogs)):
        assert torch.equal(encode(phrase), vectors[first:first + count])
    assert not torch.allclose(encode("cat"), encode("dog"), rtol=1e-2)
    for phrase in ("a (red:1.3) cat", "cats"):  # weights are text
        vectors, row = whole(phrase)
        own = encode(phrase)
        assert torch.equal(own, vectors[first:first + len(own)])
        after = dog_row[places[-1] + 1:]
        if family == "longcat_image":  # which fills up before the template's end
            after = after[len(own) - count:]
        while after[-1:] == dog_row[-1:]:  # padding, if there is any
            after.pop()
        assert row[cut + first + len(own):][:len(after)] == after, "then the template goes on"


@torch.no_grad()
def test_of_an_sd3_that_was_loaded_without_clip_t5s_own_tokens_are_taken():
    clip = sd3(clips=False, width=32)
    encode, tokenizer = host.phrase_encoder(clip, sd3_family), T5XXLTokenizer().tokenizer
    for phrase in ("cat", "a (red:1.3) cat"):
        count = len(tokenizer(phrase)["input_ids"]) - 1
        vectors = clip.encode_from_tokens(clip.tokenize(phrase, disable_weights=True))[0]
        assert torch.equal(encode(phrase), vectors[:count].float()) and len(vectors) == 77


def test_t5s_own_tokens_are_those_before_the_end():
    class T5:
        """Its tokenizer, and a vector of two for every token: its number and its place."""

        def tokenize(self, text, **how):
            return {"l": [[(0, 1.0)]], "t5xxl": whole.tokenize_with_weights(text, **how)}

        def encode_from_tokens(self, tokens):
            return torch.tensor([[[token, i] for i, (token, *_) in enumerate(tokens["t5xxl"][0])]])

    whole = T5XXLTokenizer()
    encode, tokenizer = host.phrase_encoder(T5(), comfyui), whole.tokenizer
    for phrase in ("cat", "the red car", "a (red:1.3) cat", "Pekingese"):
        numbers = tokenizer(phrase)["input_ids"][:-1]
        assert encode(phrase).tolist() == [[number, i] for i, number in enumerate(numbers)]
    assert len(encode("")) == 0


@torch.no_grad()
def test_of_a_wan_umt5s_own_tokens_are_those_before_the_end():
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["a cat", "the red dog (red:1.3)", "cats and dogs"] * 9), vocab_size=40,
                                             model_writer=model, model_type="char", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                                             hard_vocab_limit=False, minloglevel=2)
    config = {"d_model": 32, "d_ff": 32, "d_kv": 16, "num_heads": 2, "num_layers": 1}
    clip = random_clip(wan.WanT5Tokenizer, wan.te(), "umt5xxl", {"spiece_model": model.getvalue()}, umt5xxl_model_config=config)
    encode, pieces = host.phrase_encoder(clip, wan_family), sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for phrase in ("cat", "a (red:1.3) cat"):
        vectors = clip.encode_from_tokens(clip.tokenize(phrase, disable_weights=True))[0]
        assert torch.equal(encode(phrase), vectors[:len(pieces.encode(phrase))].float()) and len(vectors) == 512
    assert not torch.allclose(encode("cat"), encode("dog"), rtol=1e-2)
