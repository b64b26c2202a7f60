"""The model file of the repository, and the same model under another version."""

from dataclasses import replace
from pathlib import Path

import msgspec

from extproc.learning.model_file import ModelFile, dump

SHIPPED_MODEL = Path(__file__).parents[2] / "models" / "zone2_predictor.json"


def shipped_model() -> ModelFile:
    """Return the shipped model, for tests to change."""
    return msgspec.json.decode(SHIPPED_MODEL.read_bytes(), type=ModelFile)


def renamed(version: str) -> bytes:
    """Return the shipped model under another version."""
    model = shipped_model()
    return dump(replace(model, manifest=replace(model.manifest, model_version=version)))
