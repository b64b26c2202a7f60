import pytest

from extproc.h2.events import Fields
from extproc.h2.grpc_request import NotGrpcError, read_head
from extproc.h2.grpc_status import CallError


def fields(**changes: bytes | None) -> Fields:
    values = {":method": b"POST", ":path": b"/s/m", "content-type": b"application/grpc"}
    values |= {name.replace("_", "-"): value for name, value in changes.items()}
    return tuple((name.encode(), value) for name, value in values.items() if value is not None)


def test_a_call_has_a_path_and_no_deadline_unless_it_says_so() -> None:
    head = read_head(fields())
    assert (head.path, head.timeout_s) == ("/s/m", None)


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        (b"0S", 0.0),
        (b"2H", 7200.0),
        (b"3M", 180.0),
        (b"99999999S", 99999999.0),
        (b"50m", 0.05),
        (b"20u", 20e-6),
        (b"7n", 7e-9),
    ],
)
def test_a_deadline_is_read_in_every_unit(text: bytes, timeout_s: float) -> None:
    assert read_head(fields(grpc_timeout=text)).timeout_s == pytest.approx(timeout_s)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"123456789S", b"1.5S", b"-1S", b"1s", b"1S\n", b" 1S"])
def test_any_other_deadline_is_refused(text: bytes) -> None:
    with pytest.raises(CallError, match="grpc-timeout"):
        read_head(fields(grpc_timeout=text))


@pytest.mark.parametrize(
    "content_type", [None, b"", b"text/plain", b"application/grpc-web", b"application/json"]
)
def test_another_content_type_is_no_grpc(content_type: bytes | None) -> None:
    with pytest.raises(NotGrpcError) as raised:
        read_head(fields(content_type=content_type))
    assert raised.value.http_status == 415


def test_another_method_is_no_grpc() -> None:
    with pytest.raises(NotGrpcError) as raised:
        read_head(((b":method", b"GET"), (b":path", b"/")))
    assert raised.value.http_status == 405
