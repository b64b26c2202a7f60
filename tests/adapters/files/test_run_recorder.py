from contextlib import closing
from pathlib import Path

from msgspec.structs import replace
from support.clean_sample import SAMPLE

from extproc.adapters.files.run_recorder import RunRecorder
from extproc.adapters.files.sample_reading import read_samples


def record(path: Path, *runs: tuple[float, ...]) -> None:
    with closing(RunRecorder(path)) as recorder:
        for run in runs:
            for at_s in run:
                recorder.record(replace(SAMPLE, at_s=at_s))
            recorder.end_run()


def test_runs_lie_one_behind_the_other_also_in_a_store_that_was_there(tmp_path: Path) -> None:
    record(tmp_path / "samples.db", (0.0, 5.0), (0.0,))
    record(tmp_path / "samples.db", (1.0,))
    assert read_samples(tmp_path / "samples.db", ("at_s",))["at_s"].tolist() == [3600, 3605, 7205, 10806]


def test_a_run_without_samples_leaves_the_store_as_it_is(tmp_path: Path) -> None:
    record(tmp_path / "samples.db", (), (2.0,))
    assert read_samples(tmp_path / "samples.db", ("at_s",))["at_s"].tolist() == [3602]
