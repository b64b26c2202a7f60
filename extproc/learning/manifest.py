"""A model file's description of its model: for what it was made, from what, and how good it is.

A sidecar shows it, and believes none of it: whether the model helps it measures itself. Bounds are part of
the types, so decoding a file checks them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from extproc.errors import ModelFileError
from extproc.learning.features import ZoneBounds

FORMAT_VERSION = 4
TARGET = "log_ttft_over_estimate"

Share = Annotated[float, Meta(ge=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class HeldOutErrors:
    """How the corrected estimate did on the newest samples, which the model was not made from.

    Errors are relative to the observed TTFT; `pairwise_accuracy` is None where there were too few pairs.
    """

    median_relative_error: NonNegative
    share_within_20_percent: Share
    median_abs_log_error: NonNegative
    mean_abs_log_error: NonNegative
    pairwise_accuracy: Share | None


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples by what they were used for."""

    train: Count
    held_out: Count


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's: whether this model may be used, and what was compared on how many newest samples.

    Errors are mean absolute log errors: of the estimate as the model corrects it, of the plain estimate, and
    of the incumbent, if there was one. To win, the model had to be better than either by the `margin`, a
    share of the other's error.
    """

    is_accepted: bool
    reason: Annotated[str, Meta(max_length=500)]
    error: NonNegative
    plain_error: NonNegative
    incumbent_error: NonNegative | None
    incumbent_version: Name | None
    margin: Share
    samples: Count


@dataclass(frozen=True, slots=True)
class Manifest:
    """`trained_at` is ISO 8601 in UTC; `zone_bounds` are those of the estimates that it was judged on."""

    format_version: int
    model_version: Name
    features: Annotated[tuple[Name, ...], Meta(max_length=64)]
    target: str
    zone_bounds: ZoneBounds
    held_out_errors: HeldOutErrors
    samples: SampleCounts
    trained_at: str
    verdict: Verdict


def check_manifest(manifest: Manifest, features: Sequence[str]) -> None:
    """Raise ModelFileError where the manifest is not that of a model for these features."""
    if list(manifest.features) != list(features):
        raise ModelFileError(f"made for the features {list(manifest.features)}; served are {list(features)}")
    if manifest.target != TARGET:
        raise ModelFileError(f"predicts {manifest.target!r:.50}; {TARGET!r} is served")
    if not manifest.zone_bounds.low_s < manifest.zone_bounds.saturated_s:
        raise ModelFileError("zone_bounds: low_s is not below saturated_s")
    _check_time(manifest.trained_at)


def _check_time(trained_at: str) -> None:
    try:
        offset = datetime.fromisoformat(trained_at).utcoffset()
    except ValueError as error:
        raise ModelFileError("trained_at is not an ISO 8601 time") from error
    if offset is None or offset:
        raise ModelFileError("trained_at is not in UTC")
