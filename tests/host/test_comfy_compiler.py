"""ComfyUI's own compiler (0.34 and newer, CUDA only), by stand-ins for what of it reaches a pack.

It records what a transformer allocates in one call and lays the same memory out for the next: what we allocate meanwhile is
paused, so that the record is the model's own and nothing we keep lies in it. Blocks that it replays as CUDA graphs call no hook.
Source: comfy/model_prefetch.py of ComfyUI 0.38.
"""

import sys
import threading
import types

import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy.patcher_extension import WrappersMP
from concept_saliency.nodes import capture, compiled
from concept_saliency.nodes.concept_saliency import ConceptSaliency
from oracle import of
from torch.utils._python_dispatch import TorchDispatchMode


class Compiler(TorchDispatchMode):
    """Stands for the malloc graph of one call of the transformer: notes what is allocated, and whether it is paused then."""

    def __init__(self):
        super().__init__()
        self.paused, self.pauses, self.records, self.storages = False, 0, [], {}

    def pause_malloc_graph(self, sync=False):
        return self.Pause(self)

    class Pause:
        """As in the host, pauses do not nest: the end of an inner one ends the outer one."""

        def __init__(self, compiler):
            self.compiler = compiler

        def __enter__(self):
            self.compiler.paused, self.compiler.pauses = True, self.compiler.pauses + 1

        def __exit__(self, *exception):
            self.compiler.paused = False

    def forward(self, usual):
        """The transformer's forward, wrappers and all, while allocations are recorded."""
        def recorded(*args, **kwargs):
            self.records.append([])
            self.storages.clear()  # what is older than this call may lie where something lay in the last one
            with self:
                return usual(*args, **kwargs)
        return recorded

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {storage(t) for t in tensors((args, kwargs))}
        for made in tensors(result):
            if storage(made) not in given:
                self.storages[storage(made)] = self.paused
                if not self.paused:
                    self.records[-1].append((str(function), *made.shape))
        return result


def storage(tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tensors(thing) -> list:
    """Every tensor that can be reached from what is ours, but not through the model."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, dict):
        return tensors(list(thing.values()))
    if isinstance(thing, (list, tuple)):
        return [t for part in thing for t in tensors(part)]
    if isinstance(thing, threading.local) or type(thing).__module__.startswith("concept_saliency"):
        return tensors(vars(thing))
    return []


@pytest.fixture
def compiler(monkeypatch):
    stand_in = Compiler()
    module = sys.modules.get("comfy.model_prefetch") or types.ModuleType("comfy.model_prefetch")
    monkeypatch.setitem(sys.modules, "comfy.model_prefetch", module)
    monkeypatch.setattr(module, "pause_malloc_graph", stand_in.pause_malloc_graph, raising=False)
    return stand_in


@pytest.fixture
def kept(compiler, monkeypatch):
    """Whether each tensor that is ours after a look was allocated in this call of the model, and then whether paused."""
    found, usual = [], capture.Capture.look

    def look(self, *args):
        usual(self, *args)
        assert not compiler.paused, "the model goes on unrecorded"
        found.append([compiler.storages[storage(t)] for t in tensors(self) if storage(t) in compiler.storages])

    monkeypatch.setattr(capture.Capture, "look", look)
    return found


def test_the_record_is_the_models_own_and_nothing_kept_lies_in_it(flux, apply, compiler, kept, monkeypatch):
    plain = flux.sample(flux.patcher)
    monkeypatch.setattr(Flux, "forward", compiler.forward(Flux.forward))
    assert torch.equal(flux.sample(flux.patcher), plain)
    expected, compiler.records = compiler.records, []
    assert len(expected) == 3 and all(expected) and not compiler.pauses
    model, runs = apply(cross_attention=True)
    assert torch.equal(flux.sample(model), plain)
    assert compiler.records == expected, "with the pack the model allocates otherwise"
    depth = len(flux.patcher.model.diffusion_model.double_blocks)
    assert len(kept) == 3 * depth and all(map(all, kept))
    assert [len(look) for look in kept[:depth]] == [2 + 2 * (i + 1) for i in range(depth)], "states, modulation, two scores a block"
    assert len(runs.find(None)[0].recordings["output"].sigmas) == 3


def test_what_is_kept_lies_apart_even_where_a_layer_pauses_by_itself(flux, apply, compiler, kept, monkeypatch):
    """As layers of 4-bit weights do, which keep a table: with the end of their pause ours has ended too."""
    plain = flux.sample(flux.patcher)
    expected, expected_runs = apply()
    flux.sample(expected)
    transformer = flux.patcher.model.diffusion_model

    def pausing(usual):
        def forward(*args, **kwargs):
            with compiler.pause_malloc_graph():
                pass
            return usual(*args, **kwargs)
        return forward

    for layer in (transformer.txt_in, transformer.time_in, *(m for b in transformer.double_blocks for m in (b.txt_attn.qkv, b.txt_mlp))):
        monkeypatch.setattr(layer, "forward", pausing(layer.forward))
    monkeypatch.setattr(Flux, "forward", compiler.forward(Flux.forward))
    kept.clear()
    model, runs = apply()
    assert torch.equal(flux.sample(model), plain)
    assert len(kept) == 3 * len(transformer.double_blocks) and all(map(all, kept))
    assert torch.equal(*(r.find(None)[0].recordings["output"].scores for r in (runs, expected_runs)))


def test_on_a_host_without_it_nothing_is_asked_of_it(flux, apply, monkeypatch):
    monkeypatch.delitem(sys.modules, "comfy.model_prefetch", raising=False)
    model, runs = apply()
    assert torch.equal(flux.sample(model), flux.sample(flux.patcher))
    with compiled.unrecorded():
        assert runs.find(None)[0].recordings


def replayed(model, steps, blocks):
    """A MODEL whose `blocks` call no hooks in some steps, as if replayed; what they compute is the same."""
    calls = []

    def wrapper(executor, x, timestep, context, y, guidance, ref_latents, control, options, **kwargs):
        calls.append(float(options["sigmas"][0]))
        if len(calls) - 1 in steps:
            replace = options.get("patches_replace", {})
            dit = {key: patch for key, patch in replace.get("dit", {}).items() if key[1] not in blocks}
            options = {**options, "patches_replace": {**replace, "dit": dit}}
        return executor(x, timestep, context, y, guidance, ref_latents, control, options, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "replayed", wrapper)
    return model


@pytest.mark.parametrize("blocks", [range(4), [0], [1], [3]], ids=["all", "first", "second", "last"])
@pytest.mark.parametrize("steps", [[1], [0, 2]])
def test_steps_whose_blocks_were_not_seen_are_reported_and_never_guessed(flux, apply, steps, blocks):
    model, runs = apply()
    plain, whole = flux.sample(model), runs.find(None)[0].recordings["output"]
    model, runs = apply()
    assert torch.equal(flux.sample(replayed(model, steps, blocks)), plain)
    run = runs.find(None)[0]
    seen = [i for i in range(3) if i not in steps]
    assert torch.equal(run.recordings["output"].scores, whole.scores[seen])
    assert run.recordings["output"].sigmas == tuple(whole.sigmas[i] for i in seen)
    [note] = run.notes
    assert note.startswith(f"{len(steps)} of 3 steps are not recorded") and "--disable-cuda-graphs" in note
    assert of(model).run is None


def test_a_run_of_which_nothing_was_seen_says_why(flux, apply):
    model, runs = apply()
    flux.sample(replayed(model, range(3), range(4)))
    with pytest.raises(ValueError, match="nothing was recorded. 3 of 3 steps are not recorded.*CUDA graphs"):
        ConceptSaliency.execute(runs, "auto", 0.0, 1.0, "output", 0.0)


def test_nothing_of_ours_goes_into_a_cuda_graph(flux, apply, monkeypatch):
    """A replay would do again what was captured. The stand-in is torch's own answer while block 2 of the second step runs."""
    plain, steps, capturing, looks = flux.sample(flux.patcher), [], [], []
    block = flux.patcher.model.diffusion_model.double_blocks[2]
    usual, watch = block.forward, capture.ConceptStream.watch

    def captured(*args, **kwargs):
        steps.append(None)
        if len(steps) == 2:
            capturing.append(True)
        try:
            return usual(*args, **kwargs)
        finally:
            capturing.clear()

    def watched(self, *args):
        looks.append(bool(capturing))
        return watch(self, *args)

    model, runs = apply()
    monkeypatch.setattr(block, "forward", captured)
    monkeypatch.setattr(capture.ConceptStream, "watch", watched)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: bool(capturing))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: bool(capturing))
    assert torch.equal(flux.sample(model), plain)
    assert len(steps) == 3 and len(looks) == 4 + 2 + 4 and not any(looks)
    assert len(runs.find(None)[0].recordings["output"].sigmas) == 2 and runs.find(None)[0].notes[0].startswith("1 of 3 steps")
