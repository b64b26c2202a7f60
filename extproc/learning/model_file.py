"""The model file: one JSON document, so that a rename publishes a model whole and `cp` is a hot swap.

It holds the manifest, the trees, a self-test (rows and what they must give) and a SHA-256 over its canonical
content. There is no pickle: a file is numbers, and cannot run code.

The guarantees. A truncated or damaged file is found by the checksum, which does not protect against
intent: a writer of a file can write its checksum. Against a hostile file there are bounds on every part;
so any bytes at all either load or raise ModelFileError, within bounded time and memory. Not guaranteed: that
an accepted model is right. Bad trees are found in use: they have a say only where they predict better than
the plain estimate.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from extproc.errors import ModelFileError
from extproc.learning.features import FEATURES
from extproc.learning.manifest import FORMAT_VERSION, Manifest, check_manifest
from extproc.learning.predictor import Predictor
from extproc.learning.trees import Trees, check_trees

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest model that `trees` allows needs some 0.1 MiB; a self-test of long rows is the rest."""

_SELF_TEST_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Feature rows and the corrections that the loaded model must give for them."""

    rows: Annotated[tuple[tuple[float, ...], ...], Meta(min_length=1, max_length=64)]
    log_corrections: Annotated[tuple[float, ...], Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The content of a model file."""

    manifest: Manifest
    self_test: SelfTest
    trees: Trees


@dataclass(frozen=True, slots=True)
class _Sealed(ModelFile):
    checksum: str


@dataclass(frozen=True, slots=True)
class _Format:
    manifest: "_FormatVersion"


@dataclass(frozen=True, slots=True)
class _FormatVersion:
    format_version: int


def model_version(trees: Trees, trained_at: str) -> str:
    """Return a short id of a model: the same trees made at the same time have the same one."""
    return hashlib.sha256(trained_at.encode() + msgspec.json.encode(trees)).hexdigest()[:12]


def dump(model_file: ModelFile) -> bytes:
    """Return the bytes of a model file: the same content always gives the same ones."""
    sealed = _Sealed(model_file.manifest, model_file.self_test, model_file.trees, _checksum(model_file))
    return msgspec.json.format(msgspec.json.encode(sealed), indent=1) + b"\n"


def load(data: bytes) -> Predictor:
    """Return the predictor in a model file; whatever the bytes are, raises nothing but ModelFileError."""
    model_file = _decode(data)
    check_manifest(model_file.manifest, FEATURES)
    check_trees(model_file.trees)
    predictor = Predictor(model_file.manifest, model_file.trees)
    _run_self_test(predictor, model_file.self_test)
    return predictor


def _decode(data: bytes) -> ModelFile:
    if len(data) > MAX_FILE_BYTES:
        raise ModelFileError(f"{len(data)} bytes; a model file has at most {MAX_FILE_BYTES}")
    try:
        version = msgspec.json.decode(data, type=_Format).manifest.format_version
        if version != FORMAT_VERSION:
            raise ModelFileError(f"format version {version}; {FORMAT_VERSION} is read: train a new model")
        sealed = msgspec.json.decode(data, type=_Sealed)
        model_file = ModelFile(sealed.manifest, sealed.self_test, sealed.trees)
        checksum = _checksum(model_file)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"not a whole model file: {error}") from error
    if sealed.checksum != checksum:
        raise ModelFileError("the checksum does not match the content")
    return model_file


def _checksum(model_file: ModelFile) -> str:
    canonical = msgspec.json.encode(model_file, order="sorted")
    return hashlib.sha256(canonical).hexdigest()


def _run_self_test(predictor: Predictor, self_test: SelfTest) -> None:
    if any(len(row) != len(FEATURES) for row in self_test.rows):
        raise ModelFileError("a row of the self-test does not have one value per feature")
    if len(self_test.rows) != len(self_test.log_corrections):
        raise ModelFileError("the self-test does not have one prediction per row")
    predicted = predictor.log_corrections(np.array(self_test.rows, dtype=np.float64))
    error = float(np.abs(predicted - np.array(self_test.log_corrections)).max())
    if not error <= _SELF_TEST_TOLERANCE:
        raise ModelFileError(f"the self-test disagrees by {error:g} in log seconds")
