import subprocess
import sys


def test_a_model_that_is_told_the_truth_decides_the_medium_zone() -> None:
    options = ["--fleet", "local", "--workload", "two-class@1.2", "--seeds", "1"]
    command = [sys.executable, "-m", "benchmarks.true_corrections", *options]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    decided = {line.split(":")[0]: line for line in shown if ": decided by" in line}
    assert "predict" in decided["layered"]
    assert "predict" not in decided["layered-no-model"]
    assert 0.0 < float(shown[-1].rpartition(" ")[2]) < 1.0
