"""What a model file says about the model in it: for what it was made, from what, and how good it is.

The sidecar reads it to know when to trust the model: inside the training range, and as long as its running
error stays near the promised one. Bounds are part of the types, so decoding a file checks them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from extproc.errors import ModelFileError
from extproc.learning.features import ZoneBounds
from extproc.learning.log_line import LogLine

FORMAT_VERSION = 3
TARGET = "log_ttft_s"

Share = Annotated[float, Meta(ge=0, le=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
LARGEST_OFFSET = 10.0
"""In log seconds: no machine is 20,000 times slower than another."""
Offset = Annotated[float, Meta(ge=-LARGEST_OFFSET, le=LARGEST_OFFSET)]


@dataclass(frozen=True, slots=True)
class HeldOutErrors:
    """How the model did on the newest samples, which it was not made from.

    Errors are relative to the observed TTFT, with each backend's own correction applied and learned on the
    way, as in serving; `pairwise_accuracy` is None where there were too few pairs to compare.
    """

    median_relative_error: NonNegative
    share_within_20_percent: Share
    median_abs_log_error: NonNegative
    mean_abs_log_error: NonNegative
    pairwise_accuracy: Share | None


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Zone-2 samples by what they were used for."""

    train: Count
    held_out: Count


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's: whether this model may be used, and what was compared on how many newest samples.

    Errors are mean absolute log errors of the model and of the one that it was held against, the incumbent,
    if there was one; to win, the model had to be better by the `margin`, a share of the incumbent's error.
    """

    is_accepted: bool
    reason: Annotated[str, Meta(max_length=500)]
    error: NonNegative
    incumbent_error: NonNegative | None
    incumbent_version: Name | None
    margin: Share
    samples: Count


@dataclass(frozen=True, slots=True)
class Manifest:
    """`trained_at` is ISO 8601 in UTC; from `medium_load` on, TTFT was mostly out of the low zone.

    `medium_load` is None where the samples did not show such a load. `offsets` are what sets the backends
    apart, in log seconds, by name: a correction starts there.
    """

    format_version: int
    model_version: Name
    features: Annotated[tuple[Name, ...], Meta(max_length=64)]
    monotone: Annotated[tuple[int, ...], Meta(max_length=64)]
    target: str
    zone_bounds: ZoneBounds
    training_range: dict[Name, tuple[float, float]]
    held_out_errors: HeldOutErrors
    samples: SampleCounts
    trained_at: str
    offsets: Annotated[dict[Name, Offset], Meta(max_length=10_000)]
    medium_load: NonNegative | None
    line: LogLine
    verdict: Verdict


def check_manifest(manifest: Manifest, features: Sequence[str], monotone: Sequence[int]) -> None:
    """Raise ModelFileError where the manifest is not that of a model for these features."""
    if list(manifest.features) != list(features):
        raise ModelFileError(f"made for the features {list(manifest.features)}; served are {list(features)}")
    if list(manifest.monotone) != list(monotone):
        raise ModelFileError(f"monotone is {list(manifest.monotone)}; {list(monotone)} is required")
    if manifest.target != TARGET:
        raise ModelFileError(f"predicts {manifest.target!r:.50}; {TARGET!r} is served")
    if not manifest.zone_bounds.low_s < manifest.zone_bounds.saturated_s:
        raise ModelFileError("zone_bounds: low_s is not below saturated_s")
    if set(manifest.training_range) != set(features):
        raise ModelFileError("training_range does not name each feature once")
    for name, (low, high) in manifest.training_range.items():
        if low > high:
            raise ModelFileError(f"training_range of {name} is empty")
    _check_time(manifest.trained_at)


def _check_time(trained_at: str) -> None:
    try:
        offset = datetime.fromisoformat(trained_at).utcoffset()
    except ValueError as error:
        raise ModelFileError("trained_at is not an ISO 8601 time") from error
    if offset is None or offset:
        raise ModelFileError("trained_at is not in UTC")
