import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.request.body_facts import InputSize
from extproc.request.token_ratio import (
    DEFAULT_TOKENS_PER_BYTE,
    LONGEST_CONTEXT,
    MAX_MODELS,
    MAX_SERVERS,
    MAX_TOKENS_PER_BYTE,
    MIN_TOKENS_PER_BYTE,
    CounterWindow,
    RatioSample,
    TokenRatios,
)

KB = InputSize(text_bytes=1000)


def learn(ratios: TokenRatios, model: str, tokens: float, text_bytes: float) -> None:
    """Fold in a window of many short texts."""
    ratios.learn(RatioSample(model, tokens, text_bytes, text_bytes / 100))


def settled(ratio: float) -> TokenRatios:
    """Ratios after much text of many requests."""
    ratios = TokenRatios()
    learn(ratios, "m", ratio * 10_000_000, 10_000_000)
    return ratios


def test_default_ratio_is_used_until_something_was_learned() -> None:
    assert TokenRatios().tokens_per_byte("m") == DEFAULT_TOKENS_PER_BYTE
    assert TokenRatios().tokens_per_byte(None) == DEFAULT_TOKENS_PER_BYTE


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        (InputSize(), 0),
        (InputSize(text_bytes=1), 1),
        (InputSize(text_bytes=400), 100),
        (InputSize(exact_tokens=7), 7),
        (InputSize(text_bytes=1, exact_tokens=7), 7),
        (InputSize(text_bytes=40, exact_tokens=7, media_tokens=100), 117),
    ],
)
def test_estimate_adds_exact_media_and_text_tokens(size: InputSize, tokens: int) -> None:
    assert TokenRatios().estimate("m", size) == tokens


HUGE = InputSize(text_bytes=10_000_000, exact_tokens=10_000_000, media_tokens=10_000_000)


def test_no_prompt_is_estimated_above_the_context_of_its_model() -> None:
    ratios = TokenRatios()
    ratios.longest_prompts = {"m": 8192}
    assert ratios.estimate("m", HUGE) == 8192
    assert ratios.estimate("m", InputSize(text_bytes=400)) == 100


def test_each_prompt_of_a_batch_may_fill_the_context() -> None:
    ratios = TokenRatios()
    ratios.longest_prompts = {"m": 512}
    assert ratios.estimate("m", InputSize(text_bytes=1_000_000, prompts=100)) == 51_200


def test_where_no_server_says_how_long_its_context_is_an_estimate_is_bounded_all_the_same() -> None:
    assert TokenRatios().estimate(None, HUGE) == LONGEST_CONTEXT


def test_learning_one_model_leaves_the_others_alone() -> None:
    ratios = TokenRatios()
    learn(ratios, "a", 100_000, 100_000)
    assert ratios.tokens_per_byte("a") > 0.9
    assert ratios.tokens_per_byte("b") == DEFAULT_TOKENS_PER_BYTE


def test_larger_samples_weigh_more() -> None:
    ratios = TokenRatios()
    learn(ratios, "m", 50_000, 100_000)
    learn(ratios, "m", 1_000, 1_000)
    assert ratios.tokens_per_byte("m") == pytest.approx(0.5, abs=0.02)


def test_cutting_text_into_smaller_samples_changes_nothing_much() -> None:
    whole, cut = TokenRatios(), TokenRatios()
    learn(whole, "m", 40_000, 100_000)
    for _ in range(100):
        learn(cut, "m", 400, 1_000)
    assert cut.tokens_per_byte("m") == pytest.approx(whole.tokens_per_byte("m"), rel=0.01)


def test_ratio_follows_a_change_of_language() -> None:
    ratios = TokenRatios()
    for _ in range(1000):
        learn(ratios, "m", 2_500, 10_000)
    for _ in range(400):
        learn(ratios, "m", 5_000, 10_000)
    assert ratios.tokens_per_byte("m") == pytest.approx(0.5, rel=0.02)


def test_one_prompt_of_rare_characters_hardly_moves_a_settled_ratio() -> None:
    ratios = settled(0.25)
    ratios.learn(RatioSample("m", 1_630_000, 1_000_000, 1_000_000))
    assert ratios.tokens_per_byte("m") == pytest.approx(0.25, rel=0.05)


def test_one_prompt_among_a_few_others_hardly_moves_it_either() -> None:
    ratios = settled(0.25)
    ratios.learn(RatioSample("m", 1_630_000 + 400_000, 1_000_000 + 1_600_000, 1_000_000))
    assert ratios.tokens_per_byte("m") == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize("lie", [2.0, 1 / 64])
def test_a_server_that_lies_about_its_tokens_is_outvoted_by_two_others(lie: float) -> None:
    ratios = TokenRatios()
    for _ in range(100):
        ratios.learn(RatioSample("m", lie * 40_000, 40_000, 400), "liar")
        for honest in ("a", "b"):
            ratios.learn(RatioSample("m", 12_000, 40_000, 400), honest)
    assert ratios.tokens_per_byte("m") == pytest.approx(0.3, rel=0.05)
    for number in range(2 * MAX_SERVERS):
        ratios.learn(RatioSample("m", 12_000, 40_000, 400), number)
    assert ratios.tokens_per_byte("m") == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("rare", [1.63, 0.026])
def test_a_first_prompt_of_rare_characters_is_outvoted_by_twenty_usual_ones(rare: float) -> None:
    ratios = TokenRatios()
    ratios.learn(RatioSample("m", rare * 1_000_000, 1_000_000, 1_000_000))
    for _ in range(20):
        ratios.learn(RatioSample("m", 1000, 4000, 4000))
    assert ratios.tokens_per_byte("m") == pytest.approx(0.25, rel=0.2)


def test_requests_that_are_windows_of_their_own_teach_an_unusual_language() -> None:
    ratios = TokenRatios()
    for _ in range(100):
        ratios.learn(RatioSample("m", 3600, 4000, 4000))
    assert ratios.tokens_per_byte("m") == pytest.approx(0.9, rel=0.05)


@pytest.mark.parametrize(
    ("tokens", "text_bytes"), [(-500, 1000), (0, 1000), (3000, 1000), (10, 0), (float("nan"), 9)]
)
def test_implausible_sample_is_ignored(tokens: float, text_bytes: float) -> None:
    ratios = TokenRatios()
    learn(ratios, "m", tokens, text_bytes)
    assert ratios.tokens_per_byte("m") == DEFAULT_TOKENS_PER_BYTE


@given(st.lists(st.tuples(st.floats(allow_nan=False, width=32), st.floats(allow_nan=False, width=32))))
def test_ratio_stays_within_its_range(samples: list[tuple[float, float]]) -> None:
    ratios = TokenRatios()
    for tokens, text_bytes in samples:
        learn(ratios, "m", tokens, text_bytes)
    assert MIN_TOKENS_PER_BYTE * 0.999 <= ratios.tokens_per_byte("m") <= MAX_TOKENS_PER_BYTE * 1.001


def test_model_learned_of_least_recently_is_forgotten_first() -> None:
    ratios = TokenRatios()
    for number in range(MAX_MODELS):
        learn(ratios, f"m{number}", 10_000, 10_000)
    learn(ratios, "m0", 10_000, 10_000)
    learn(ratios, "new", 10_000, 10_000)
    assert ratios.tokens_per_byte("m0") > 0.5
    assert ratios.tokens_per_byte("new") > 0.5
    assert ratios.tokens_per_byte("m1") == DEFAULT_TOKENS_PER_BYTE


def opened(total: float = 0) -> CounterWindow:
    window = CounterWindow()
    assert window.counter(total, 0) is None
    return window


def serve(window: CounterWindow, count: int, model: str | None = "m", size: InputSize = KB) -> None:
    for _ in range(count):
        window.sent(model, size)
        window.finished(size)


def test_text_served_between_two_scrapes_is_a_sample() -> None:
    window = opened(total=70)
    serve(window, 3)
    assert window.counter(970, 0) == RatioSample("m", 900, 3000, 1000)
    serve(window, 4)
    assert window.counter(1970, 0) == RatioSample("m", 1000, 4000, 1000)


def test_first_scrape_only_opens_a_window() -> None:
    window = CounterWindow()
    serve(window, 50)
    assert window.counter(10_000, 0) is None


def test_token_ids_are_taken_off() -> None:
    window = opened()
    serve(window, 1, size=InputSize(text_bytes=4000, exact_tokens=500))
    assert window.counter(1500, 0) == RatioSample("m", 1000, 4000, 4000)


def test_window_of_less_than_2_kb_stays_open() -> None:
    window = opened()
    serve(window, 1)
    assert window.counter(300, 0) is None
    serve(window, 2)
    assert window.counter(900, 0) == RatioSample("m", 900, 3000, 1000)


def test_text_in_flight_at_the_closing_keeps_the_window_open() -> None:
    window = opened()
    serve(window, 10)
    window.sent("m", KB)
    assert window.counter(3300, 0) is None
    window.finished(KB)
    assert window.counter(3300, 0) == RatioSample("m", 3300, 11_000, 1000)


def test_text_in_flight_at_the_opening_asks_for_a_longer_window() -> None:
    window = CounterWindow()
    window.sent("m", KB)
    window.counter(0, 0)
    window.finished(KB)
    serve(window, 19)
    assert window.counter(6000, 0) is None
    serve(window, 1)
    assert window.counter(6300, 0) == RatioSample("m", 6300, 20_000, 1000)


@pytest.mark.parametrize("size", [InputSize(exact_tokens=250), InputSize(media_tokens=250)])
def test_ids_and_media_in_flight_at_the_closing_count_as_text_of_as_many_tokens(size: InputSize) -> None:
    window = opened()
    serve(window, 10)
    window.sent("m", size)
    assert window.counter(3000, 0) is None


def test_spoiled_window_teaches_nothing() -> None:
    window = opened()
    serve(window, 9)
    window.spoil()
    assert window.counter(2700, 0) is None
    serve(window, 9)
    assert window.counter(5400, 0) == RatioSample("m", 2700, 9000, 1000)


def test_foreign_load_at_either_end_teaches_nothing() -> None:
    window = opened()
    serve(window, 9)
    assert window.counter(9000, 1.0) is None
    serve(window, 9)
    assert window.counter(18_000, 0) is None
    serve(window, 9)
    assert window.counter(20_700, 0) == RatioSample("m", 2700, 9000, 1000)


def test_restarted_server_teaches_nothing() -> None:
    window = opened(total=50_000)
    serve(window, 9)
    assert window.counter(100, 0) is None
    serve(window, 9)
    assert window.counter(2800, 0) == RatioSample("m", 2700, 9000, 1000)


def test_restart_that_the_opening_does_not_show_teaches_nothing() -> None:
    window = opened(total=100)
    serve(window, 1)
    window.counter(400, 0)
    serve(window, 9)
    assert window.counter(350, 0) is None


@pytest.mark.parametrize("model", ["other", None])
def test_window_with_more_than_one_model_teaches_nothing(model: str | None) -> None:
    window = opened()
    serve(window, 9)
    serve(window, 1, model)
    assert window.counter(3000, 0) is None
    serve(window, 9)
    assert window.counter(5700, 0) == RatioSample("m", 2700, 9000, 1000)


def test_unknown_model_is_not_forgotten_within_the_window() -> None:
    window = opened()
    serve(window, 1, None)
    serve(window, 9)
    assert window.counter(3000, 0) is None


def test_media_teach_nothing_while_they_are_in_flight() -> None:
    image = InputSize(text_bytes=10, media_tokens=225)
    window = opened()
    window.sent("m", image)
    serve(window, 9)
    assert window.counter(4000, 0) is None
    window.finished(image)
    serve(window, 100)
    assert window.counter(34_000, 0) is None
    serve(window, 9)
    assert window.counter(36_700, 0) == RatioSample("m", 2700, 9000, 1000)


class SimulatedServer:
    """Requests wait and are then counted; scrapes see the counter, and what others sent."""

    def __init__(self, tokens_per_byte: float, concurrency: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tokens_per_byte = tokens_per_byte
        self.concurrency = concurrency
        self.total = 0.0
        self.in_flight: list[InputSize] = []
        self.counted: list[InputSize] = []
        self.window = CounterWindow()
        self.ratios = TokenRatios()

    def run(self, requests: int) -> None:
        for _ in range(requests):
            while len(self.in_flight) + len(self.counted) >= self.concurrency:
                self.advance()
            size = InputSize(text_bytes=int(self.rng.lognormal(7, 1)))
            self.window.sent("m", size)
            self.in_flight.append(size)
            if self.rng.random() < 0.2:
                self.scrape(foreign=0)

    def advance(self) -> None:
        """A request is counted at its prefill's end, or a counted one ends."""
        if self.in_flight and (not self.counted or self.rng.random() < 0.5):
            size = self.in_flight.pop(int(self.rng.integers(len(self.in_flight))))
            self.total += round(size.text_bytes * self.tokens_per_byte * self.rng.uniform(0.9, 1.1))
            self.counted.append(size)
        elif self.counted:
            self.window.finished(self.counted.pop(0))

    def scrape(self, foreign: float) -> None:
        sample = self.window.counter(self.total, foreign)
        if sample is not None:
            self.ratios.learn(sample)

    def restart(self) -> None:
        self.total = 0.0
        for size in self.in_flight + self.counted:
            self.window.finished(size)
            self.window.spoil()
        self.in_flight.clear()
        self.counted.clear()

    def serve_others(self, requests: int) -> None:
        """Foreign load, as big as it likes, seen by the scrapes while it lasts."""
        self.scrape(foreign=1)
        for _ in range(requests):
            self.total += int(self.rng.integers(1, 20_000))
            self.advance()
            self.scrape(foreign=1)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 1.5), st.integers(1, 64), st.integers(0, 2**32))
def test_ratio_converges_with_requests_in_flight(tokens_per_byte: float, concurrency: int, seed: int) -> None:
    server = SimulatedServer(tokens_per_byte, concurrency, seed)
    server.run(requests=100 * concurrency + 2000)
    assert server.ratios.tokens_per_byte("m") == pytest.approx(tokens_per_byte, rel=0.1)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 1.5), st.integers(1, 16), st.integers(0, 2**32))
def test_restarts_and_foreign_load_teach_nothing_wrong(
    tokens_per_byte: float, concurrency: int, seed: int
) -> None:
    server = SimulatedServer(tokens_per_byte, concurrency, seed)
    for _ in range(6):
        server.run(requests=60 * concurrency)
        server.serve_others(requests=3)
        server.run(requests=20 * concurrency)
        server.restart()
    assert server.ratios.tokens_per_byte("m") == pytest.approx(tokens_per_byte, rel=0.15)
