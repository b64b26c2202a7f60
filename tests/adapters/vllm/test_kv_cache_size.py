import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from extproc.adapters.vllm.kv_cache_size import KvCacheSize, ask_kv_cache_size, read_kv_cache_size
from extproc.errors import CalibrationError

INFO = (
    'vllm:cache_config_info{_block_size_resolved="True",block_size="32",cache_dtype="auto",engine="%d",'
    'kv_cache_memory_bytes="134217728",kv_cache_size_tokens="32768",num_cpu_blocks="None",'
    'num_gpu_blocks="1024",num_gpu_blocks_override="1024"} 1.0\n'
)
TEXT = "# TYPE vllm:cache_config_info gauge\n" + INFO % 0 + "vllm:num_requests_running 0.0\n"


@contextmanager
def answering(text: str) -> Iterator[str]:
    """A server with these metrics; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_labels_of_a_server_are_read() -> None:
    assert read_kv_cache_size(TEXT) == KvCacheSize(32_768, 32)


@pytest.mark.parametrize(
    "text",
    ["", "vllm:num_requests_running 0.0\n", TEXT + INFO % 1, TEXT.replace('num_gpu_blocks="1024"', "")],
    ids=["nothing", "other metrics", "two engines", "no blocks"],
)
def test_what_does_not_say_it_is_no_guess(text: str) -> None:
    assert read_kv_cache_size(text) is None


def test_a_server_is_asked() -> None:
    with answering(TEXT) as url:
        assert ask_kv_cache_size(url) == ask_kv_cache_size(f"{url}/") == KvCacheSize(32_768, 32)


def test_a_server_that_does_not_say_or_is_not_there_is_an_error() -> None:
    with answering("") as url, pytest.raises(CalibrationError, match="--kv-cache-tokens"):
        ask_kv_cache_size(url)
    with pytest.raises(CalibrationError, match="cannot be read"):
        ask_kv_cache_size(url)
