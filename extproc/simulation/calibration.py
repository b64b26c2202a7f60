"""Fits an engine profile to a recorded load: the machine on which the twin's requests go as the server's did.

The load is replayed through the engine model, and the profile's times are moved until the logarithms of TTFT
and of the time from there to the end agree best: nonlinear least squares, with a loss that lets outliers go
(Triggs et al., "Bundle adjustment", 2000, for the loss). Relative errors count alike whether a request waited
for milliseconds or minutes. What the load does not tell apart stays near its first guess, held by a weak
prior.

Requests of one queue err together, so the standard errors are those of groups in a row, not of single
requests (Liang and Zeger, 1986).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from extproc.errors import CalibrationError
from extproc.simulation.limits import EngineLimits
from extproc.simulation.profile import EngineProfile
from extproc.simulation.recording import Floats, Recording
from extproc.simulation.replay import replay

FITTED = (
    "base_step_s",
    "prefill_token_s",
    "attention_pair_s",
    "decode_sequence_s",
    "kv_token_s",
    "request_s",
)
"""The times of `EngineProfile` that are found out."""

_TYPICAL_ERROR = 0.2  # guessed: of one request, as a logarithm; larger ones begin to count less
_PRIOR_LOG_SD = 3.0  # guessed: a factor of 20 either way
_STEP = 0.03  # of a logarithm; smaller ones see the engine's steps instead of its speed
_MAX_ITERATIONS = 20
_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Fit:
    """A profile, the standard error of each of its times as a share of it, and the error of a request.

    `typical_error` is the median over all requests of |log(twin / server)|, of TTFTs and decoding times.
    """

    profile: EngineProfile
    standard_errors: Mapping[str, float]
    typical_error: float


def fit_profile(
    recording: Recording, limits: EngineLimits, report: Callable[[float], None] = lambda _: None
) -> Fit:
    """The profile under which the twin agrees best; `report` is told the error of a request as it falls.

    Raises CalibrationError for requests that the limits do not allow.
    """
    check_fits(recording, limits)
    guess = np.log([_first_guess(recording)[name] for name in FITTED])

    def residuals(logs: Floats) -> Floats:
        errors = _errors(recording, _profile(logs, limits), limits)
        return np.append(errors / _TYPICAL_ERROR, (logs - guess) / _PRIOR_LOG_SD)

    def slopes(logs: Floats) -> Floats:
        report(float(np.median(np.abs(residuals(logs)[: -len(FITTED)]))) * _TYPICAL_ERROR)
        steps = np.eye(len(logs)) * _STEP
        return np.column_stack([(residuals(logs + step) - residuals(logs - step)) for step in steps]) / (
            2 * _STEP
        )

    found = least_squares(
        residuals, guess, jac=slopes, loss="soft_l1", max_nfev=_MAX_ITERATIONS, xtol=1e-3, ftol=1e-4
    )
    profile = _profile(found.x, limits)
    errors = _standard_errors(slopes(found.x), residuals(found.x))
    return Fit(
        profile=profile,
        standard_errors=dict(zip(FITTED, errors.tolist(), strict=True)),
        typical_error=float(np.median(np.abs(_errors(recording, profile, limits)))),
    )


def check_fits(recording: Recording, limits: EngineLimits) -> None:
    """Raises CalibrationError for a request that the KV cache could not hold."""
    largest = int((recording.prompt_tokens + recording.output_tokens).max())
    capacity = limits.kv_cache_blocks * limits.block_size
    if largest > capacity:
        raise CalibrationError(f"a request of {largest} tokens does not fit a KV cache of {capacity}")


def _first_guess(recording: Recording) -> dict[str, float]:
    """Orders of magnitude: most of a token's time is the step's, the fastest prefills did not wait."""
    is_complete = recording.is_complete
    ttft_s = recording.ttft_s[is_complete]
    decode_s = np.maximum(recording.duration_s[is_complete] - ttft_s, 1e-5)
    token_s = float(np.median(decode_s / np.maximum(1, recording.output_tokens[is_complete] - 1)))
    prefill_s = float(np.percentile(ttft_s / recording.prompt_tokens[is_complete], 10))
    context = float(np.median(recording.prompt_tokens))
    return {
        "base_step_s": 0.5 * token_s,
        "prefill_token_s": 0.5 * prefill_s,
        "attention_pair_s": 0.1 * prefill_s / context,
        "decode_sequence_s": 0.1 * token_s,
        "kv_token_s": 0.02 * token_s / context,
        "request_s": 0.1 * float(ttft_s.min()),
    }


def _profile(logs: Floats, limits: EngineLimits) -> EngineProfile:
    times = dict(zip(FITTED, np.exp(logs).tolist(), strict=True))
    return EngineProfile(**times, kv_cache_tokens=limits.kv_cache_tokens)


def _errors(recording: Recording, profile: EngineProfile, limits: EngineLimits) -> Floats:
    """Logarithms of twin over server: TTFT and decoding time of each request in turn, `(2 n,)`."""
    twin, done = replay(recording, profile, limits), recording.is_complete
    ttft = np.log(twin.ttft_s[done] / recording.ttft_s[done])
    decoding = (recording.output_tokens[done] > 1) & (recording.duration_s[done] > recording.ttft_s[done])
    decode = np.zeros(len(ttft))
    decode[decoding] = np.log(
        (twin.duration_s[done] - twin.ttft_s[done])[decoding]
        / (recording.duration_s[done] - recording.ttft_s[done])[decoding]
    )
    return np.column_stack([ttft, decode]).ravel()


def _standard_errors(slopes: Floats, residuals: Floats) -> Floats:
    """Of logarithms, which are shares; from the sandwich of groups of neighbours."""
    weights = (1 + residuals**2) ** -0.5  # the derivative of the loss
    bread = np.linalg.inv((slopes * weights[:, None]).T @ slopes)
    pulls = slopes * (weights * residuals)[:, None]
    by_group = np.array([group.sum(axis=0) for group in np.array_split(pulls[: -len(FITTED)], _GROUPS)])
    return np.sqrt(np.diag(bread @ (by_group.T @ by_group) @ bread))
