"""Fits an engine profile to a recorded load: the machine on which the twin's requests go as the server's did.

The load is replayed through the engine model, and the profile's times are moved until the logarithms of TTFT
and of the time from there to the end agree best: nonlinear least squares, with a loss that lets outliers go
(Triggs et al., "Bundle adjustment", 2000). Relative errors count alike whether a request took milliseconds or
minutes, but for one thing: in a queue near saturation a machine that is slower by 1 % makes requests wait by
5 or 10 % longer, and the speed of real machines wanders by more than that. So the fit is repeated with each
error divided by what a change of speed does to it, and becomes one of speed. Parameters that the load
does not separate stay near its first guess, held by a weak prior.

How far to trust a single time is shown by fitting each half of the requests for itself, in stretches that
take turns, as requests of one queue err together: times that replace each other come out differently.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from extproc.errors import CalibrationError
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.twin.profile_file import Origin, ProfileFile
from extproc.lab.twin.recording import Floats, Recording, replay

FITTED = (
    "base_step_s",
    "prefill_token_s",
    "attention_pair_s",
    "decode_sequence_s",
    "kv_token_s",
    "request_s",
    "request_token_s",
)
"""The times of `EngineProfile` that are found out."""

_FIRST_ERROR = 0.2
"""Guessed: of a request, as a logarithm, in the first round; larger ones begin to count less."""
_SPEED_ERROR = 0.1
"""Guessed: the same of the machine's speed, in the further rounds."""
_PRIOR_LOG_SD = 3.0  # guessed: a factor of 20 either way
_STEPS = (0.2, 0.1, 0.1)
"""Changes of a logarithm by which each round finds its slopes: small ones see iterations, not speed."""
_MAX_ITERATIONS = 15
_TOLERANCE = 1e-3
_STRETCHES = 10


@dataclass(frozen=True, slots=True)
class Fit:
    """A profile, and how good it is.

    `halves_differ` is by which share each time differs between fits to two halves of the requests, and
    `typical_error` the median over all requests of |log(twin / server)|, of TTFTs and decoding times.
    """

    profile: EngineProfile
    halves_differ: Mapping[str, float]
    typical_error: float


def fit_profile(
    recording: Recording, limits: EngineLimits, report: Callable[[float], None] = lambda _: None
) -> Fit:
    """Return the profile under which the twin agrees best; `report` gets the share of finished work.

    Raises CalibrationError for requests that the limits do not allow.
    """
    check_fits(recording, limits)
    stretch = np.arange(len(recording.at_s)) * _STRETCHES // len(recording.at_s)
    is_odd = stretch[recording.is_complete] % 2 == 1
    found: list[_Problem] = []
    for turn, fitted_to in enumerate((np.ones_like(is_odd), is_odd, ~is_odd)):
        found.append(_Problem(recording, limits, fitted_to))
        for number, step in enumerate(_STEPS):
            found[-1].solve(step)
            report((turn + (number + 1) / len(_STEPS)) / 3)
    whole, *halves = found
    differences = np.abs(np.expm1(halves[0].logs - halves[1].logs))
    return Fit(
        profile=whole.profile(whole.logs),
        halves_differ=dict(zip(FITTED, differences.tolist(), strict=True)),
        typical_error=float(np.median(np.abs(whole.errors(whole.logs)))),
    )


def fitted_profile(name: str, recording: Recording, limits: EngineLimits, fit: Fit) -> ProfileFile:
    """Return the file of a profile that was fitted to the load of this name."""
    origin = Origin(
        samples=name,
        backend=recording.backend,
        first_at_s=recording.began_s,
        requests=len(recording.at_s),
        typical_error=fit.typical_error,
        halves_differ=fit.halves_differ,
    )
    return ProfileFile(profile=fit.profile, limits=limits, origin=origin)


def check_fits(recording: Recording, limits: EngineLimits) -> None:
    """Check that each request fits into the KV cache; raises CalibrationError."""
    largest = int((recording.prompt_tokens + recording.output_tokens).max())
    capacity = limits.kv_cache_blocks * limits.block_size
    if largest > capacity:
        raise CalibrationError(f"a request of {largest} tokens does not fit a KV cache of {capacity}")


def _first_guess(recording: Recording) -> dict[str, float]:
    """Guess orders of magnitude: most of a token's time is the step's, the fastest prefills did not wait."""
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
        "request_token_s": 0.05 * prefill_s,
    }


class _Problem:
    """`logs` are the logarithms of FITTED; `_spread` is what each request's error is measured by, `(2 n,)`.

    It is endless for requests that are not `fitted_to`: they are load, and nothing else.
    """

    def __init__(self, recording: Recording, limits: EngineLimits, fitted_to: npt.NDArray[np.bool_]) -> None:
        self._recording = recording
        self._limits = limits
        self._guess = np.log([_first_guess(recording)[name] for name in FITTED])
        self.logs: Floats = self._guess
        self._not_fitted = np.repeat(np.where(fitted_to, 1.0, np.inf), 2)
        self._spread = _FIRST_ERROR * self._not_fitted

    def solve(self, step: float) -> None:
        """Go on from `logs` to the best ones, then measure errors by what speed does to them there."""
        found = least_squares(
            self._residuals,
            self.logs,
            jac=lambda logs: self._slopes(logs, step),
            loss="soft_l1",
            max_nfev=_MAX_ITERATIONS,
            xtol=_TOLERANCE,
            ftol=_TOLERANCE,
        )
        self.logs = found.x
        by_speed = np.abs(self._error_slopes(self.logs, step).sum(axis=1))
        self._spread = _SPEED_ERROR * np.maximum(1.0, by_speed) * self._not_fitted

    def profile(self, logs: Floats) -> EngineProfile:
        """Return the machine with these times."""
        times = dict(zip(FITTED, np.exp(logs).tolist(), strict=True))
        return EngineProfile(**times, kv_cache_tokens=self._limits.kv_cache_tokens)

    def errors(self, logs: Floats) -> Floats:
        """Return logarithms of twin over server: TTFT and decoding time of each request in turn, `(2 n,)`."""
        recording, done = self._recording, self._recording.is_complete
        twin = replay(recording, self.profile(logs), self._limits)
        ttft = np.log(twin.ttft_s[done] / recording.ttft_s[done])
        twin_s, server_s = (each.duration_s[done] - each.ttft_s[done] for each in (twin, recording))
        is_decoding = (recording.output_tokens[done] > 1) & (server_s > 0)
        decoding = np.log(np.where(is_decoding, twin_s, 1.0) / np.where(is_decoding, server_s, 1.0))
        return np.column_stack([ttft, decoding]).ravel()

    def _residuals(self, logs: Floats) -> Floats:
        return np.append(self.errors(logs) / self._spread, (logs - self._guess) / _PRIOR_LOG_SD)

    def _slopes(self, logs: Floats, step: float) -> Floats:
        return np.vstack(
            [self._error_slopes(logs, step) / self._spread[:, None], np.eye(len(logs)) / _PRIOR_LOG_SD]
        )

    def _error_slopes(self, logs: Floats, step: float) -> Floats:
        changes = step * np.eye(len(logs))
        both_ways = [self.errors(logs + change) - self.errors(logs - change) for change in changes]
        return np.column_stack(both_ways) / (2 * step)
