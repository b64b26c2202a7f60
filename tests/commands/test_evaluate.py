import json
import re
from pathlib import Path

import typer
from support.recorded_traces import BURST_GPT, written
from typer.testing import CliRunner, Result

from extproc.commands.evaluate import evaluate
from extproc.lab.evaluation.fleet_text import FLEETS
from extproc.lab.evaluation.workload_text import WORKLOADS
from extproc.lab.rivals.choice import POLICIES

WORKLOAD = "poisson:0.8x prompt=fixed:100 output=fixed:16 for=10"


def invoke(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_policies_are_compared_in_the_terminal_in_numbers_and_on_a_page(tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    options = ("--workload", WORKLOAD, "--policies", "layered,random", "--seeds", "2", "--routers", "2")
    result = invoke(*options, "--page", page, "--json", numbers)
    assert result.exit_code == 0, result.exception
    assert "layered" in result.stdout
    assert "random" in result.stdout
    written = json.loads(numbers.read_text())
    assert [each["policy"] for each in written["policies"]] == ["layered", "random"]
    assert [run["seed"] for run in written["runs"]] == [1, 2, 1, 2]
    assert written["runs"][0]["requests"] == written["runs"][2]["requests"] > 0
    html = page.read_text()
    assert html.count('src="data:image/png;base64,') == 3
    assert "layered, sim-3" in html


def test_counting_begins_later_and_the_estimate_is_judged_on_demand(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    options = ("--workload", WORKLOAD, "--policies", "layered,shedding-oracle", "--seeds", "1")
    result = invoke(*options, "--from", "5", "--delay-limit", "0.5", "--judge-estimate", "--json", numbers)
    assert result.exit_code == 0, result.exception
    assert "layered: decided by least_load" in result.stdout
    assert "of pairs in the right order" in result.stdout
    written = json.loads(numbers.read_text())
    assert (written["from_s"], written["delay_limit_s"]) == (5.0, 0.5)
    layered, oracle = written["policies"]
    assert layered["good"]["median"] > 0
    assert layered["delay_p99_s"]["median"] < 10
    assert oracle["pairwise_accuracy"] is None
    run = written["runs"][0]
    assert len(run["delay_quantiles_s"]) == 99
    assert run["layer_shares"]["least_load"] > 0
    assert run["estimate"]["pairs"] <= run["estimate"]["decisions"] <= run["requests"]


def test_nuisances_are_options_and_stand_in_the_heading_the_page_and_the_numbers(tmp_path: Path) -> None:
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    load = "poisson:3x prompt=fixed:100 output=fixed:16 for=10"
    nuisances = ("--ttft-noise", "0.2", "--speed-noise", "0.1", "--retries", "2", "--stalls", "5:0.5")
    more = ("--frozen-gauges", "6:2", "--cold-start", "3:2", "--policies", "shedding-oracle", "--seeds", "1")
    result = invoke("--workload", load, *nuisances, *more, "--page", page, "--json", numbers)
    assert result.exit_code == 0, result.exception
    for named in ("--ttft-noise 0.2", "--stalls 5:0.5", "--frozen-gauges 6:2", "--cold-start 3:2"):
        assert named in result.stdout
        assert named in page.read_text()
    assert "of those who came back gave up" in result.stdout
    written = json.loads(numbers.read_text())
    assert written["nuisances"]["stalls"] == {"period_s": 5.0, "length_s": 0.5}
    assert written["runs"][0]["attempts"] > written["runs"][0]["requests"]
    assert "expected PERIOD:LENGTH" in str(invoke("--stalls", "5").exception)


def test_counting_has_to_begin_before_the_end() -> None:
    result = invoke("--workload", WORKLOAD, "--policies", "random", "--seeds", "1", "--from", "10")
    assert "the workload lasts 10 s" in str(result.exception)


def test_a_trace_says_how_it_was_played_and_what_is_not_as_recorded(tmp_path: Path) -> None:
    name = written(tmp_path / "burst.txt", BURST_GPT)
    options = ("--fleet", "equal", "--policies", "random", "--seeds", "1", "--max-model-len", "1000")
    result = invoke("--workload", f"trace:{name}@0.5", *options)
    assert result.exit_code == 0, result.exception
    assert "trace of 3 requests in 113 s; played: 3 in" in result.stdout
    assert "50% of the capacity" in result.stdout
    assert "1 request(s), longer than the context of 1,000 tokens, were cut to it" in result.stdout
    assert "1 failed request(s) of the file were left out" in result.stdout
    result = invoke("--workload", f"trace:{name} for=50", *options)
    assert "played: 2 in 50 s, 0.04 requests/s" in result.stdout


def test_a_file_that_is_no_trace_is_refused_with_the_formats_that_are_known(tmp_path: Path) -> None:
    result = invoke("--workload", f"trace:{written(tmp_path / 'notes.csv', 'a,b')}", "--policies", "random")
    assert result.exit_code == 1
    assert "notes.csv: not a trace in a known format: it begins with 'a,b'" in str(result.exception)
    assert "TIMESTAMP,ContextTokens,GeneratedTokens" in str(result.exception)


def test_the_workload_is_shown_as_it_was_written() -> None:
    workload = "poisson:0.8x prompt=mix:50:100:0.5 output=fixed:16 for=2"
    result = invoke("--workload", workload, "--policies", "random", "--seeds", "1")
    assert f"workload {workload}" in result.stdout


def test_the_evaluated_policy_takes_its_settings_from_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "extproc.yaml"
    stages = {"least_load": {"score": "requests_in_flight"}, "guard": {"max_active": 2}}
    config.write_text(json.dumps({"backends": [{"name": "a", "url": "http://127.0.0.1:1"}], **stages}))

    def refused(*options: str | Path) -> int:
        numbers = tmp_path / "numbers.json"
        loaded = ("--workload", WORKLOAD.replace("0.8x", "1.5x"), "--policies", "layered", "--seeds", "1")
        result = invoke(*loaded, "--json", numbers, *options)
        assert result.exit_code == 0, result.exception
        count: int = json.loads(numbers.read_text())["runs"][0]["refused"]
        return count

    assert refused("--config", config) > 2 * refused()
    config.write_text(json.dumps(json.loads(config.read_text()) | {"admission": {"mode": "queue"}}))
    assert refused("--config", config) == refused("--config", config, "--admission", "queue")
    assert refused("--config", config) < refused("--config", config, "--admission", "reject")


def test_a_configuration_with_faults_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "extproc.yaml"
    config.write_text("least_load: {score: unknown}")
    result = invoke("--workload", WORKLOAD, "--policies", "layered", "--config", config)
    assert result.exit_code == 1
    assert "requests_in_flight" in str(result.exception)


def test_of_one_seed_no_range_is_shown(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = invoke("--workload", WORKLOAD, "--policies", "random", "--seeds", "1", "--page", page)
    assert result.exit_code == 0, result.exception
    assert "<td>0.0%" in page.read_text(), "none is refused"
    assert "0.0%-" not in page.read_text()


def test_a_model_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    for name in ("model.json", "absent.json"):
        result = invoke("--workload", WORKLOAD, "--policies", "layered", "--model-file", tmp_path / name)
        assert result.exit_code == 1
        assert result.exception is not None


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    result = invoke(
        "--workload", WORKLOAD, "--policies", "random", "--seeds", "1", "--page", tmp_path / "absent" / "page"
    )
    assert result.exit_code == 1
    assert "No such file" in str(result.exception)


def test_every_name_that_evaluate_takes_is_in_its_help() -> None:
    text = " ".join((evaluate.__doc__ or "").split())
    names = {*FLEETS, *WORKLOADS, *POLICIES}
    assert [name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)] == []
