from benchmarks.same_digits import differences

BEFORE = {"runs": [{"refused": 3, "goodput": 0.91}], "slo_s": 2.0}


def test_equal_numbers_are_no_difference_and_added_fields_are_left_aside() -> None:
    after = {"runs": [{"refused": 3, "goodput": 0.91, "delay": 1.0}], "slo_s": 2.0, "more": 1}
    assert list(differences(BEFORE, after)) == []


def test_last_digit_counts() -> None:
    after = {"runs": [{"refused": 3, "goodput": 0.9100000000000001}], "slo_s": 2.0}
    assert list(differences(BEFORE, after)) == ["runs[0].goodput: 0.91 before, 0.9100000000000001 now"]


def test_missing_fields_and_runs_are_differences() -> None:
    assert len(list(differences(BEFORE, {"runs": [], "slo_s": None}))) == 2
