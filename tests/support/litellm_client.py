"""What litellm gets of a server, as JSON; run by a Python that has litellm, with the base URL and a model."""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable
from typing import Any

import litellm

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400).decode()
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
HELLO = [{"role": "user", "content": "hello"}]
SEEN = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


async def said(asking: Awaitable[Any]) -> Any:
    """The text of an answer, the number of vectors, or the status of an error."""
    try:
        answer = await asking
    except Exception as error:
        return getattr(error, "status_code", repr(error))
    if isinstance(answer, dict):
        return answer["content"][0]["text"]
    if hasattr(answer, "__aiter__"):
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
    if hasattr(answer, "output"):
        return answer.output[0].content[0].text
    if hasattr(answer, "data"):
        return len(answer.data)
    choice = answer.choices[0]
    return choice.text if hasattr(choice, "text") else choice.message.content


async def ask(url: str, model: str) -> dict[str, Any]:
    """One of each kind; a stream that is given up comes last."""
    at = {"api_base": f"{url}/v1", "api_key": "none"}
    chat = {"model": f"hosted_vllm/{model}", "max_tokens": 5, "temperature": 0.0, **at}
    text = {**chat, "model": f"text-completion-openai/{model}"}
    message = {"model": f"anthropic/{model}", "api_base": url, "api_key": "none", "temperature": 0.0}
    brief = {"max_output_tokens": 5, "temperature": 0.0, **at}
    asking = {
        "chat": litellm.acompletion(messages=HELLO, **chat),
        "stream": litellm.acompletion(messages=HELLO, stream=True, **chat),
        "image": litellm.acompletion(messages=SEEN, **chat),
        "tools": litellm.acompletion(messages=HELLO, tools=TOOLS, **chat),
        "text": litellm.atext_completion(prompt="hello", **text),
        "vectors": litellm.aembedding(model=f"hosted_vllm/{model}", input=["a", "b"], **at),
        "response": litellm.aresponses(model=f"openai/{model}", input="hello", **brief),
        "message": litellm.anthropic.messages.acreate(messages=HELLO, max_tokens=5, **message),
        "missing": litellm.acompletion(messages=HELLO, **{**chat, "model": "hosted_vllm/nobodys"}),
    }
    answers = {kind: await said(each) for kind, each in asking.items()}
    given_up = await litellm.acompletion(messages=HELLO, stream=True, **{**chat, "max_tokens": 4000})
    await anext(given_up)
    await given_up.aclose()
    return answers


if __name__ == "__main__":
    litellm.num_retries = 0
    print(json.dumps(asyncio.run(ask(*sys.argv[1:]))))
