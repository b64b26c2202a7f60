"""The values of a series in the text of a scrape, without reading anything else of it.

vLLM prints about 48 KB, ten times a second per backend; parsing all of it is what makes other routers
spend cores on scraping. The bytes are searched for the few names instead. The format is Prometheus' text
exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

MAX_SERIES = 1024
"""A server with more engines is not believed, nor one with more lines of names that only begin alike."""


def series(lines: bytes, names: tuple[bytes, ...]) -> list[float]:
    """Return the values of the first name that has any; NaN stands for a value that is no number.

    `lines` begin with a line break. A name may have one label, `name{label="value"}`: then the series that
    have it are meant, whatever other labels they have.
    """
    for each in names:
        name, _, label = each.partition(b"{")
        values = _values(lines, b"\n" + name, label[:-1])
        if values:
            return values
    return []


def _values(lines: bytes, needle: bytes, label: bytes) -> list[float]:
    values = []
    looks = 0
    at = lines.find(needle)
    while at >= 0:
        looks += 1
        if looks > MAX_SERIES:
            return [float("nan")]
        rest = at + len(needle)
        end = lines.find(b"\n", rest)
        line = lines[rest : end if end >= 0 else len(lines)]
        if line[:1] in {b"{", b" "} and (not label or _has(line, label)):
            values.append(value_of(line))
        at = lines.find(needle, rest)
    return values


def _has(line: bytes, label: bytes) -> bool:
    labels = line[: line.rfind(b"}")]
    return labels.startswith(b"{" + label) or b"," + label in labels


def value_of(line: bytes) -> float:
    """Return the number behind the labels, a timestamp behind it ignored; NaN where there is none."""
    fields = line[line.rfind(b"}") + 1 :].split(None, 2)
    try:
        return float(fields[0])
    except (IndexError, ValueError):
        return float("nan")
