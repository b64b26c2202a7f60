"""A few requests in each published format of traces, written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
2024-05-10 02:00:02.509930+02:00,76,15
"""
BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,API log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
OWN = """at_s,prompt_tokens,output_tokens
12.5,200,20
10,100,10
"""
MOONCAKE_ROWS = (
    {"timestamp": 0, "input_length": 1300, "output_length": 52, "hash_ids": [46, 47, 48]},
    {"timestamp": 1500, "input_length": 1024, "output_length": 26, "hash_ids": [46, 47]},
    {"timestamp": 3000, "input_length": 1600, "output_length": 9, "hash_ids": [46, 47, 49, 50]},
    {"timestamp": 3000, "input_length": 500, "output_length": 3, "hash_ids": [51]},
)


def json_lines(rows: Sequence[object]) -> str:
    """Rows as JSONL."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


MOONCAKE = json_lines(MOONCAKE_ROWS)


def written(path: Path, text: str) -> str:
    """Write a file; its name."""
    path.write_text(text, encoding="utf-8")
    return str(path)
