"""What reading a request body costs, by size and content: `python -m benchmarks.parse`.

The event loop waits meanwhile. Targets, held against the best round because the machine is shared: 300 us
for 64 KB, 20 ms for 10 MB, and 20 ms for whatever is compressed, unpacked and read. `json.loads` of the same
body in the same run tells how fast the machine is. The hostile bodies at the end have no target; they show
that no body stalls the loop for long.
"""

import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from extproc.request.api import CHAT, COMPLETION, MESSAGES, RESPONSES, TRANSCRIPTION, Api
from extproc.request.body import read_body
from extproc.request.body_facts import BodyFacts
from extproc.request.content import readable_content
from extproc.request.request import read_request
from extproc.request.token_ratio import TokenRatios

SIZES_BYTES = {"1 KB": 1_000, "64 KB": 64_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
TARGETS_US = {"64 KB": 300.0, "10 MB": 20_000.0}
PACKED_TARGET_US = 20_000.0
REPEATS = 15
MIN_ROUND_S = 0.002


def chat(*contents: object, ensure_ascii: bool = False) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    body = {"model": "model", "stream": True, "max_tokens": 64, "messages": messages}
    return json.dumps(body, ensure_ascii=ensure_ascii).encode()


def filled(text: str, size_bytes: int, *, escaped: bool = False) -> str:
    encoded_bytes = len(json.dumps(text)) - 2 if escaped else len(text.encode())
    return text * (size_bytes // encoded_bytes)


def image(size_bytes: int) -> list[object]:
    url = "data:image/png;base64," + "iVBORw0KGgo"[:8] * (size_bytes // 8)
    return [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]


def variants(size_bytes: int) -> Iterator[tuple[str, Api, bytes]]:
    words = "The quick brown fox jumps over it. "
    code = 'def f(x):\n    return {"a": x, "b": "hello"}\n'
    messages = [filled(code, 2000)] * max(1, size_bytes // 2400)
    ids = [10_000 + number % 90_000 for number in range(size_bytes // 7)]
    prompt = json.dumps({"model": "model", "stream": True, "prompt": ids}).encode()
    escaped = filled("漢字かな", size_bytes, escaped=True)
    yield "chat, one ASCII string", CHAT, chat(filled(words, size_bytes))
    yield "chat, \\uXXXX escapes", CHAT, chat(escaped, ensure_ascii=True)
    yield "chat, emoji", CHAT, chat(filled("😀🚀", size_bytes))
    yield "chat, messages of 2 KB of code", CHAT, chat(*messages)
    yield "chat, base64 image", CHAT, chat(image(size_bytes))
    yield "completion, token ids", COMPLETION, prompt
    yield "chat, half a surrogate pair", CHAT, chat(*messages, "\ud83d", ensure_ascii=True)
    yield "chat, escapes and half a pair", CHAT, chat(escaped, "\ud83d", ensure_ascii=True)
    yield "chat, calls of tools", CHAT, agents(messages)
    yield "chat, an odd message", CHAT, chat(*messages, 7)
    yield "form, an audio file", TRANSCRIPTION, form(size_bytes)
    yield "messages, blocks and tools", MESSAGES, anthropic(messages)
    yield "responses, a later turn", RESPONSES, responses(messages)


def agents(contents: Sequence[str]) -> bytes:
    """A chat in which every text is the argument of a tool, and its result another one."""
    turns: list[object] = []
    for number, text in enumerate(contents[::2]):
        call = {"id": str(number), "type": "function", "function": {"name": "run", "arguments": text}}
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append(
            {"role": "tool", "tool_call_id": str(number), "content": [{"type": "text", "text": text}]}
        )
    return json.dumps({"model": "model", "messages": turns}).encode()


def anthropic(contents: Sequence[str]) -> bytes:
    turns = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in contents]
    tools = [{"name": "find", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}]
    body = {"model": "model", "max_tokens": 64, "messages": turns, "tools": tools}
    return json.dumps({"system": [{"type": "text", "text": "Be brief."}], **body}).encode()


def responses(contents: Sequence[str]) -> bytes:
    turns = [{"role": "user", "content": [{"type": "input_text", "text": text}]} for text in contents]
    return json.dumps({"model": "model", "input": turns, "previous_response_id": "resp_1"}).encode()


def form(size_bytes: int) -> bytes:
    """A form with a file and the model behind it."""
    part = "\r\nContent-Disposition: form-data; name=%s\r\n\r\n"
    separator = "--------------------------d74496d66958873e"
    audio = bytes(range(256)) * (size_bytes // 256)
    file = f"{separator}{part}" % '"file"; filename="a.wav"'
    model = f"\r\n{separator}{part}m\r\n{separator}--\r\n" % '"model"'
    return file.encode() + audio + model.encode()


def packed() -> Iterator[tuple[str, bytes]]:
    """Compressed bodies: the largest that are unpacked, and a bomb."""
    text = filled('def f(x):\n    return {"a": x, "b": "hello"}\n', 1_000_000)
    noise = Random(1).randbytes(750_000).hex()
    yield "1 MB of code", gzip.compress(chat(text))
    yield "1.5 MB of hex digits", gzip.compress(chat(noise))
    yield "a bomb of 1 GB", gzip.compress(b"\0" * 1_000_000_000)


def read_packed(body: bytes) -> BodyFacts | None:
    content = readable_content(body, "gzip")
    return None if content is None else read_body(CHAT, content)


def hostile(size_bytes: int) -> Iterator[tuple[str, Api, bytes]]:
    yield "empty messages", CHAT, b'{"messages":[%s{}]}' % (b"{}," * (size_bytes // 3))
    yield "tiny messages", CHAT, chat(*["hi"] * (size_bytes // 33))
    yield "tiny prompts", COMPLETION, b'{"prompt":[%s""]}' % (b'"",' * (size_bytes // 3))
    yield "quotes in a string", COMPLETION, b'{"prompt":"%s"}' % (b'\\"' * (size_bytes // 2))
    yield "backslashes", COMPLETION, b'{"prompt":"%s"}' % (b"\\\\" * (size_bytes // 2))
    yield "nesting", CHAT, b'{"messages":%s' % (b"[" * size_bytes)
    yield "tiny fields", CHAT, b'{%s"model":"m"}' % (b'"a":0,' * (size_bytes // 6))
    yield "a long number", CHAT, b'{"max_tokens":%s}' % (b"9" * size_bytes)
    yield "binary", CHAT, b'{"model":' + bytes(range(256)) * (size_bytes // 256)


def duration_us(act: Callable[[], object]) -> tuple[float, float]:
    """The median and the best of some rounds, each long enough for the clock."""
    started_s = time.perf_counter()
    act()
    count = max(1, int(MIN_ROUND_S / (time.perf_counter() - started_s)))
    rounds_us = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        for _ in range(count):
            act()
        rounds_us.append((time.perf_counter() - started_s) / count * 1e6)
    rounds_us.sort()
    return rounds_us[REPEATS // 2], rounds_us[0]


def report(size: str, name: str, api: Api, body: bytes, target_us: float | None) -> None:
    median_us, best_us = duration_us(lambda: read_body(api, body))
    verdict = "" if target_us is None else "ok" if best_us <= target_us else "OVER"
    print(f"{size:>6}  {name:<32}{len(body):>11,}{median_us:>11,.1f}{best_us:>11,.1f}", end="")
    print(f"{json_loads_us(body):>13,.1f}  {verdict}")


def json_loads_us(body: bytes) -> float:
    """The best of three; NaN where the body is not JSON."""
    rounds_us = []
    for _ in range(3):
        started_s = time.perf_counter()
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return float("nan")
        rounds_us.append((time.perf_counter() - started_s) * 1e6)
    return min(rounds_us)


def main() -> None:
    print(f"{'':>6}  {'body':<32}{'bytes':>11}{'median us':>11}{'best us':>11}{'json.loads':>13}")
    for size, size_bytes in SIZES_BYTES.items():
        for name, api, body in variants(size_bytes):
            report(size, name, api, body, TARGETS_US.get(size))
    for size in ("64 KB", "10 MB"):
        for name, api, body in hostile(SIZES_BYTES[size]):
            report(size, name, api, body, None)
    for name, body in packed():
        median_us, best_us = duration_us(partial(read_packed, body))
        verdict = "ok" if best_us <= PACKED_TARGET_US else "OVER"
        print(f"{'gzip':>6}  {name:<32}{len(body):>11,}{median_us:>11,.1f}{best_us:>11,.1f}{verdict:>17}")
    headers = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    body, ratios = chat("hello " * 100), TokenRatios()
    median_us, best_us = duration_us(lambda: read_request(headers, body, ratios))
    print(f"{'1 KB':>6}  {'read_request, chat':<32}{len(body):>11,}{median_us:>11,.1f}{best_us:>11,.1f}")


if __name__ == "__main__":
    main()
