"""docs/api.md, the page about what Python callers use."""

import importlib.util
from pathlib import Path

import pytest

import concept_saliency

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs" / "make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_docstrings_say(maker):
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == maker.page(), "python docs/make_api.py writes it anew"


def test_what_the_package_offers_is_on_it(maker):
    page = maker.page()
    for name in set(concept_saliency.__all__) - {"__version__"}:
        assert f"### {name}\n" in page
    assert "Raises ValueError" in page and "### Recordings.latest\n" in page and "### Saliency.load\n" in page
    assert max(map(len, page.splitlines())) <= 140


def test_nothing_public_goes_without_a_word(maker, tmp_path, monkeypatch):
    (tmp_path / "silent.py").write_text('"""A module."""\ndef silent():\n    pass\n')
    monkeypatch.setattr(maker, "ROOT", tmp_path)
    monkeypatch.setattr(maker, "PUBLIC", {"silent.py": ["silent"]})
    with pytest.raises(ValueError, match="silent says nothing about itself"):
        maker.page()
