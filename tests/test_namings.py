"""Every family's namings say what core/families/naming.py asks for, in the same words."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import concept_saliency.core.families as families
from concept_saliency.core.families.naming import ComfyNaming, DiffusersNaming, PlacedNaming, ReadingNaming

PROTOCOLS = {"comfyui": ComfyNaming, "diffusers": DiffusersNaming}
NAMINGS = sorted((file.parent.name, file.stem) for file in Path(families.__file__).parent.glob("*/*.py") if file.stem in PROTOCOLS)


def said(protocol: type) -> dict[str, list[str] | None]:
    """What a protocol asks for: of functions the names of their parameters, None where the names are free."""
    functions = {name: list(inspect.signature(function).parameters.values())[1:] for name, function in inspect.getmembers(
        protocol, inspect.isfunction) if not name.startswith("_")}
    names = dict.fromkeys(name for base in protocol.__mro__ for name in getattr(base, "__annotations__", {}))
    return names | {name: None if any(p.kind is p.POSITIONAL_ONLY for p in parameters) else [p.name for p in parameters]
                    for name, parameters in functions.items()}


@pytest.mark.parametrize("family, library", NAMINGS)
def test_a_naming_says_all_that_is_asked_of_it(family, library):
    naming = import_module(f"concept_saliency.core.families.{family}.{library}")
    protocol = PROTOCOLS[library]
    if hasattr(naming, "reading"):
        protocol = ReadingNaming
    if library == "comfyui" and not getattr(naming, "BARE", False):
        protocol = PlacedNaming
    wanted = said(protocol)
    assert {"NAME", "DEFAULTS", "PATCH", "PIXELS", "begin", "block", "blocks", "fits"} <= set(wanted)
    for name, parameters in wanted.items():
        assert hasattr(naming, name), f"{name} is missing"
        if parameters is not None:
            there = inspect.signature(getattr(naming, name)).parameters
            assert list(there)[:len(parameters)] == parameters, name
            assert all(there[more].default is not inspect.Parameter.empty for more in list(there)[len(parameters):]), name
    assert naming.NAME in families.FAMILIES and set(naming.__all__) >= set(wanted)
