import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extproc.learning.dataset import Observations
from extproc.learning.features import FEATURES, ZoneBounds
from extproc.learning.window import MAX_ROWS, MAX_STRATA, Window

ZONE = ZoneBounds(low_s=1.0, saturated_s=10.0)

Row = tuple[float, str, float]
rows_of_a_fleet = st.lists(
    st.tuples(
        st.integers(0, 30).map(float), st.sampled_from(["a", "b", "c"]), st.sampled_from([0.1, 2.0, 20.0])
    ),
    max_size=40,
)


def observed(*rows: Row) -> Observations:
    """Observations of (at_s, backend, ttft_s), in the order of time as `clean_observations` has them."""
    rows = tuple(sorted(rows, key=lambda row: row[0]))
    fleet = tuple(sorted({backend for _, backend, _ in rows}))
    features = np.zeros((len(rows), len(FEATURES)))
    features[:, FEATURES.index("turns_s")] = [ttft_s for _, _, ttft_s in rows]
    return Observations(
        at_s=np.array([at_s for at_s, _, _ in rows], dtype=np.float64),
        features=features,
        ttft_s=np.array([ttft_s for _, _, ttft_s in rows], dtype=np.float64),
        backend=np.array([fleet.index(backend) for _, backend, _ in rows], dtype=np.intp),
        fleet=fleet,
    )


def rows_in(observations: Observations) -> list[Row]:
    return [
        (at_s, observations.fleet[backend], ttft_s)
        for at_s, backend, ttft_s in zip(
            observations.at_s.tolist(), observations.backend, observations.ttft_s.tolist(), strict=True
        )
    ]


def window_of(
    *batches: Observations,
    rows_per_stratum: int = 100,
    max_strata: int = MAX_STRATA,
    max_rows: int = MAX_ROWS,
) -> Window:
    window = Window(ZONE, rows_per_stratum, max_strata=max_strata, max_rows=max_rows)
    for batch in batches:
        window.add(batch)
    return window


def test_hours_of_idle_traffic_do_not_push_out_the_busy_minutes() -> None:
    busy = observed(*((float(n), "a", 2.0) for n in range(50)))
    window = window_of(busy, rows_per_stratum=60)
    for start in range(100, 50_000, 5_000):
        window.add(observed(*((float(n), "a", 0.1) for n in range(start, start + 5_000))))
    kept = window.observations()
    assert rows_in(kept)[:50] == rows_in(busy)
    assert len(kept) == 50 + 60
    assert kept.at_s[50:].min() == 50_100 - 60


def test_a_backend_of_much_traffic_does_not_push_out_another() -> None:
    window = window_of(
        observed((1.0, "quiet", 2.0)),
        observed(*((float(n), "loud", 2.0) for n in range(2, 500))),
        rows_per_stratum=5,
    )
    kept = window.observations()
    assert kept.fleet == ("loud", "quiet")
    assert rows_in(kept)[0] == (1.0, "quiet", 2.0)
    assert len(kept) == 6


def test_batches_are_merged_in_the_order_of_time_with_one_fleet() -> None:
    window = window_of(observed((3.0, "b", 0.1), (1.0, "b", 2.0)), observed((2.0, "a", 20.0)))
    kept = window.observations()
    assert rows_in(kept) == [(1.0, "b", 2.0), (2.0, "a", 20.0), (3.0, "b", 0.1)]
    assert kept.fleet == ("a", "b")


def test_features_stay_with_their_row() -> None:
    first, second = observed((2.0, "a", 2.0)), observed((1.0, "b", 2.0))
    first.features[0, :5] = [1, 2, 3, 0.4, 5]
    kept = window_of(first, second).observations()
    assert kept.features.tolist() == [second.features[0].tolist(), first.features[0].tolist()]


def test_duplicates_are_kept_once_and_counted() -> None:
    window = window_of(observed((1.0, "a", 2.0)), observed((1.0, "a", 2.0), (1.0, "b", 2.0), (1.0, "a", 0.1)))
    assert len(window.observations()) == 3
    assert window.duplicates == 1


def test_an_empty_window_has_no_observations() -> None:
    empty = window_of(observed()).observations()
    assert len(empty) == 0
    assert empty.fleet == ()
    assert empty.features.shape == (0, len(FEATURES))


@given(rows_of_a_fleet, st.integers(1, 4), st.lists(st.integers(0, 40), max_size=5))
def test_the_newest_of_every_stratum_are_kept_however_they_come(
    rows: list[Row], rows_per_stratum: int, cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(rows)]
    batches = [observed(*rows[start:end]) for start, end in itertools.pairwise(edges) if start < end]
    kept = window_of(*batches, rows_per_stratum=rows_per_stratum).observations()
    wanted = set()
    for stratum in {row[1:] for row in rows}:
        wanted |= set(sorted({row for row in rows if row[1:] == stratum})[-rows_per_stratum:])
    assert sorted(rows_in(kept)) == sorted(wanted)
    assert (np.diff(kept.at_s) >= 0).all()


def test_beyond_the_limit_the_strata_that_were_fed_least_recently_are_dropped() -> None:
    old = observed(*((float(n), f"old-{n}", 2.0) for n in range(3)))
    window = window_of(old, observed((9.0, "a", 2.0)), max_strata=4)
    window.add(observed((10.0, "old-0", 2.0)))
    window.add(observed(*((20.0 + n, f"new-{n}", 2.0) for n in range(2))))
    assert window.observations().fleet == ("a", "new-0", "new-1", "old-0")


def test_thousands_of_backend_names_take_no_more_than_the_largest_window() -> None:
    window = window_of(observed((0.0, "a", 2.0)), rows_per_stratum=5_000)
    for batch in range(20):
        window.add(observed(*((float(n), f"poison-{batch}-{n}", 2.0) for n in range(1_000))))
    assert len(window.observations()) == MAX_STRATA


def test_no_fleet_is_so_large_that_the_window_outgrows_its_limit() -> None:
    rows = [(float(n), f"vllm-{n % 7}", 2.0) for n in range(7_000)]
    window = window_of(observed((0.5, "rare", 2.0)), observed(*rows), rows_per_stratum=900, max_rows=1_000)
    kept = window.observations()
    counts = np.bincount(kept.backend)
    assert 500 <= len(kept) <= 1_000
    assert counts[kept.fleet.index("rare")] == 1
    assert kept.at_s[-1] == 6_999.0
