from support.fault_table import END, FAULTS, README, FaultTable, recorded


def test_the_table_has_every_fault_and_says_what_is_expected() -> None:
    lines = recorded(README.read_text(encoding="utf-8"))
    assert list(lines) == list(FAULTS)
    assert all(f"| {expected} |" in lines[fault] for fault, expected in FAULTS.items())


def test_a_run_replaces_the_rows_of_what_it_tried(tmp_path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    table = FaultTable()
    fault, other = list(FAULTS)[:2]
    table.add(fault, 0, 4711, 2.25)
    table.write(copy)
    text = copy.read_text(encoding="utf-8")
    assert f"| {fault} | {FAULTS[fault]} | 0 of 4711 | 2.2 s |" in text
    assert recorded(text)[other] == recorded(README.read_text(encoding="utf-8"))[other]
    assert text.endswith(README.read_text(encoding="utf-8").split(END)[1])
