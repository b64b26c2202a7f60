"""How well a twin predicts a server: the same recorded load on both, their figures side by side."""

import msgspec
import numpy as np

from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile
from extproc.lab.twin.calibration import Fit, check_fits
from extproc.lab.twin.recording import Floats, Recording, Timings, replay

TOLERANCE = 0.2
"""The demands on a twin: TTFT and throughput within a fifth of the server's."""


class Figure(msgspec.Struct, frozen=True):
    """One figure of both."""

    server: float
    twin: float

    @property
    def error(self) -> float:
        """By which share the twin's is larger."""
        return self.twin / self.server - 1

    @property
    def texts(self) -> tuple[str, str, str]:
        """The server's, the twin's and the error, as they are shown."""
        return f"{self.server:.3g}", f"{self.twin:.3g}", f"{self.error:+.1%}"


class Agreement(msgspec.Struct, frozen=True):
    """The figures of one recorded load.

    `token_s` is the median time of a token after the first. `tokens_per_s` is all output over the time in
    which any request was in flight. Both lists of TTFTs are those of the completed requests, in the order
    of their arrivals.
    """

    name: str
    requests: int
    given_up: int
    ttft_p50_s: Figure
    ttft_p90_s: Figure
    tokens_per_s: Figure
    token_s: Figure
    server_ttfts_s: list[float]
    twin_ttfts_s: list[float]

    @property
    def is_within(self) -> bool:
        """Whether everything that is asked of a twin is within TOLERANCE."""
        asked = (self.ttft_p50_s, self.ttft_p90_s, self.tokens_per_s)
        return all(abs(figure.error) <= TOLERANCE for figure in asked)

    def shown(self) -> tuple[tuple[str, Figure], ...]:
        """Return the figures in the order in which they are shown, each with its title and unit."""
        return (
            ("TTFT p50, s", self.ttft_p50_s),
            ("TTFT p90, s", self.ttft_p90_s),
            ("output tokens/s", self.tokens_per_s),
            ("ms per token", Figure(self.token_s.server * 1e3, self.token_s.twin * 1e3)),
        )


class Calibration(msgspec.Struct, frozen=True):
    """A profile, and how its twin did on each load; of the loads, the first is the one it was fitted to.

    `fit` is None where the profile was given, so that nothing was fitted to any load.
    """

    profile: EngineProfile
    limits: EngineLimits
    fit: Fit | None
    agreements: tuple[Agreement, ...]

    @property
    def is_within(self) -> bool:
        """Whether the twin is within TOLERANCE on every load that nothing was fitted to."""
        checked = self.agreements if self.fit is None else self.agreements[1:]
        return all(each.is_within for each in checked)


def agreement(name: str, recording: Recording, profile: EngineProfile, limits: EngineLimits) -> Agreement:
    """Replay the recording; raises CalibrationError for a request that the limits do not allow."""
    check_fits(recording, limits)
    twin = replay(recording, profile, limits)
    server = Timings(recording.ttft_s, recording.duration_s)
    done = recording.is_complete
    return Agreement(
        name=name,
        requests=int(done.sum()),
        given_up=int((~done).sum()),
        ttft_p50_s=_figure(np.percentile(server.ttft_s[done], 50), np.percentile(twin.ttft_s[done], 50)),
        ttft_p90_s=_figure(np.percentile(server.ttft_s[done], 90), np.percentile(twin.ttft_s[done], 90)),
        tokens_per_s=_figure(_tokens_per_s(recording, server), _tokens_per_s(recording, twin)),
        token_s=_figure(_token_s(recording, server), _token_s(recording, twin)),
        server_ttfts_s=server.ttft_s[done].tolist(),
        twin_ttfts_s=twin.ttft_s[done].tolist(),
    )


def _figure(server: np.floating, twin: np.floating) -> Figure:
    return Figure(float(server), float(twin))


def _tokens_per_s(recording: Recording, timings: Timings) -> np.floating:
    done = recording.is_complete
    began_s, ended_s = recording.at_s[done], (recording.at_s + timings.duration_s)[done]
    busy_until_s = np.maximum.accumulate(ended_s)
    busy_s = busy_until_s - np.maximum(began_s, np.append(0.0, busy_until_s[:-1]))
    return np.float64(recording.output_tokens[done].sum() / np.maximum(busy_s, 0.0).sum())


def _token_s(recording: Recording, timings: Timings) -> np.floating:
    decode_s: Floats = (timings.duration_s - timings.ttft_s) / np.maximum(1, recording.output_tokens - 1)
    return np.float64(np.median(decode_s[recording.is_complete]))
