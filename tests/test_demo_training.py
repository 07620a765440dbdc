"""What the demo is trained and judged with: posed scenes, resuming, the recogniser."""

import numpy as np
import pytest
import torch

from concept_saliency.cli import evaluate_things as things
from concept_saliency.cli.evaluate import HELD_OUT
from concept_saliency.demo import train_flux
from concept_saliency.demo.muon import Muon
from concept_saliency.demo.pipeline import WEIGHTS, TinyFlux
from concept_saliency.demo.recogniser import CLASSES, is_whole, load_recogniser, read, things_in
from concept_saliency.demo.train_recogniser import as_tensors
from concept_saliency.demo.world import THINGS, make_scene, outline, prompt_of, vocabulary


def labels_of(scene) -> torch.Tensor:
    return as_tensors([scene])[1][0]


def test_posed_things_face_one_way_on_a_grid_and_the_same_seed_gives_the_same_again():
    boxes = {}
    for seed in range(40):
        scene = make_scene(seed, posed=True)
        assert np.array_equal(scene.image, make_scene(seed, posed=True).image)
        if len(scene.things) == 1:
            (thing,) = scene.things
            ys, xs = np.nonzero(scene.masks[thing])
            boxes.setdefault(thing, []).append((ys.min() % 32, xs.min() % 32, np.ptp(ys), np.ptp(xs)))
    repeated = [found for found in boxes.values() if len(found) > 1]
    assert repeated and all(np.ptp(found, axis=0).max() <= 1 for found in repeated), "but for a pixel at the picture's frame"


def test_training_asks_for_more_scenes_of_several_things_on_nameless_grounds_and_other_scenes_stay_as_they_are():
    some = [make_scene(seed, (48, 48), posed=True, counts=(0.0, 0.5, 0.5), nameless=1.0) for seed in range(40)]
    assert {len(scene.things) for scene in some} == {2, 3}
    assert all("background" in scene.caption.split() for scene in some if " " in scene.caption)
    for seed in range(20):
        usual, nameless = make_scene(seed, (48, 48)), make_scene(seed, (48, 48), nameless=1.0)
        assert np.array_equal(usual.image, nameless.image), "the words change, the picture does not"
    named = [scene for scene in (make_scene(seed, (48, 48), nameless=0.0) for seed in range(40)) if " " in scene.caption]
    assert all(scene.ground in scene.caption.split() for scene in named)


def test_prompts_are_captions_of_the_world():
    for prompt, asked in things.prompts(30, seed=1):
        assert set(prompt.split()) <= set(vocabulary()) and set(asked) <= set(THINGS) and len(set(asked)) == len(asked)
    assert prompt_of(("apple", "cat"), "snow") == "an apple and a cat on snow"


def test_training_goes_on_from_a_checkpoint_and_from_exported_weights(tmp_path):
    torch.manual_seed(0)
    training = train_flux.Training(torch.device("cpu"))
    training.begin_from(WEIGHTS)
    bundled = TinyFlux().flux.state_dict()
    assert all(torch.equal(value, bundled[name]) for name, value in training.flux.state_dict().items())
    batch = torch.randn(2, 16, 4, 4), torch.ones(2, 16, dtype=torch.int64), torch.tensor([0.2, 0.9])
    training.update(*batch, 1e-3, training.flux)
    training.save(tmp_path / "checkpoint.pt")
    again = train_flux.Training(torch.device("cpu"))
    again.load(tmp_path / "checkpoint.pt")
    losses = []
    for one in (training, again):
        torch.manual_seed(1)
        losses.append(one.update(*batch, 1e-3, one.flux))
    assert again.step == 2 and losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(training.weights().values(), again.weights().values()))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0), (torch.float32, 1.5e-3)])
def test_muon_is_pytorchs(dtype, tolerance):
    torch.manual_seed(0)
    begun = [torch.randn(shape) for shape in ((32, 96), (96, 32), (32, 96))]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in begun] for _ in range(2))
    optimisers = (Muon(ours, lr=0.02, weight_decay=0.01, dtype=dtype),
                  torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    for _ in range(4):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    assert all((a - b).abs().max() <= tolerance and (a - start).abs().mean() > 0.005 for a, b, start in zip(ours, theirs, begun))


def test_muon_is_for_matrices():
    with pytest.raises(ValueError, match=r"shapes \[\(3,\)\], expected matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 3))], lr=0.1)


def test_training_says_what_it_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_flux", "--out", str(tmp_path), "--init", str(tmp_path)])
    with pytest.raises(SystemExit):
        train_flux.main()
    told = capsys.readouterr().err
    assert all(f"{part}.safetensors" in told for part in ("codec", "flux", "text")) and "train_codec" in told


def test_noise_is_high_for_posed_scenes_and_low_for_the_others():
    posed = np.arange(1000) % 2 == 0
    levels = train_flux.noise_levels(np.random.default_rng(0), posed, 256)
    assert (levels[posed] > 0.6).float().mean() > 0.6 and levels[~posed].max() <= train_flux.LOW
    assert train_flux.noise_levels(np.random.default_rng(0), posed, 128)[posed].mean() < levels[posed].mean()


@pytest.mark.parametrize("thing", THINGS)
def test_an_outline_reaches_to_every_edge(thing):
    shape = outline(thing)
    assert all(line.any() for line in (shape[0], shape[-1], shape[:, 0], shape[:, -1]))


def test_whole_things_are_told_from_loose_parts():
    scene = next(s for s in map(make_scene, range(100)) if s.things == ("cat",))
    labels = labels_of(scene)
    assert things_in(labels) == {"cat"} and is_whole(labels, "cat")
    assert not is_whole(labels, "dragon"), "there is none"
    blot = torch.zeros_like(labels)
    blot[100:150, 20:240] = CLASSES.index("boat")
    assert things_in(blot) == {"boat"} and not is_whole(blot, "boat")
    twice = torch.maximum(labels, labels.roll(90, dims=1))
    assert not is_whole(twice, "cat")


def test_the_recogniser_reads_scenes_that_its_training_never_saw():
    scenes = [make_scene(seed) for seed in range(HELD_OUT + 950_000, HELD_OUT + 950_020)]
    images, labels = as_tensors(scenes)
    found = read(load_recogniser(), images)
    assert (found == labels).float().mean() > 0.97
    assert np.mean([things_in(f) == set(s.things) for f, s in zip(found, scenes)]) >= 0.9
