"""What litellm gets of a server, printed as JSON; run by a Python that has litellm, with the base URL."""

import asyncio
import base64
import json
import sys
from typing import Any

import litellm

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400).decode()
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
HELLO = [{"role": "user", "content": "hello"}]
SEEN = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


async def ask(url: str) -> dict[str, Any]:
    """One of each kind; a stream that is given up comes last."""
    at = {"api_base": f"{url}/v1", "api_key": "none"}
    chat = {"model": "hosted_vllm/sim", "max_tokens": 5, **at}
    whole = await litellm.acompletion(messages=HELLO, **chat)
    stream = await litellm.acompletion(messages=HELLO, stream=True, **chat)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    image = await litellm.acompletion(messages=SEEN, **chat)
    tools = await litellm.acompletion(messages=HELLO, tools=TOOLS, **chat)
    text = await litellm.atext_completion(
        model="text-completion-openai/sim", prompt="hello", max_tokens=5, **at
    )
    vectors = await litellm.aembedding(model="hosted_vllm/sim", input=["a", "b"], **at)
    response = await litellm.aresponses(model="openai/sim", input="hello", max_output_tokens=5, **at)
    message = await litellm.anthropic.messages.acreate(
        model="anthropic/sim", messages=HELLO, max_tokens=5, api_base=url, api_key="none"
    )
    given_up = await litellm.acompletion(messages=HELLO, stream=True, **{**chat, "max_tokens": 4000})
    await anext(given_up)
    await given_up.aclose()
    try:
        await litellm.acompletion(messages=HELLO, **{**chat, "model": "hosted_vllm/nobodys"})
        missing = 200
    except litellm.NotFoundError as error:
        missing = error.status_code
    return {
        "chat": whole.choices[0].message.content,
        "stream": "".join(pieces),
        "image": image.choices[0].message.content,
        "tools": tools.choices[0].message.content,
        "text": text.choices[0].text,
        "vectors": len(vectors.data),
        "response": response.output[0].content[0].text,
        "message": message["content"][0]["text"],
        "missing": missing,
    }


if __name__ == "__main__":
    litellm.num_retries = 0
    print(json.dumps(asyncio.run(ask(sys.argv[1]))))
