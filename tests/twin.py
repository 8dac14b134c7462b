"""The addon's reading of HTTP/1, on its own: the same texts as in tools/bottle-egress/strict."""

import pathlib
import sys

root = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(root / "tools/bottle-egress/mitmproxy"), str(root / "target/twin/lib")]

import bottle
import h11
from mitmproxy.proxy.layers.http._http1 import ReceiveBuffer


def fault(act, *arguments):
    try:
        act(*arguments)
    except (bottle.Fault, h11.RemoteProtocolError) as error:
        return str(error)
    return None


def texts(file, test):
    """The string literals of a test in Rust."""
    text = (root / "tools/bottle-egress/strict" / file).read_text().split(f"fn {test}()")[1]
    text = text.split("#[test]")[0]
    for line in text.splitlines():
        line = line.strip().removesuffix(",")
        if line.startswith('"') and line.endswith('"'):
            yield line[1:-1].encode().decode("unicode_escape").encode("latin-1")


def read(body, cut):
    """What a body is, arriving in two parts, and what is left behind it."""
    buf, reader, data = ReceiveBuffer(), bottle.Chunks(), b""
    for part in (body[:cut], body[cut:]):
        buf += part
        while (event := reader(buf)) and isinstance(event, h11.Data):
            data += event.data
    assert isinstance(event, h11.EndOfMessage), body
    return data, bytes(buf)


count = 0
for text in texts("head.rs", "what_programs_read_differently_is_refused"):
    if b"HTTP/" not in text and not text.startswith((b"GET", b"POST")):
        text = b"POST /x HTTP/1.1\r\n" + text + b"\r\n"
    assert fault(bottle.look, text[: bottle.BLANK.search(text).end()]), text
    count += 1
for text in texts("chunks.rs", "what_programs_read_differently_is_refused"):
    reader, buf = bottle.Chunks(), ReceiveBuffer()
    for byte in text:
        buf += bytes([byte])
        why = fault(reader, buf)
    assert why and why == fault(reader, buf), text
    count += 1
assert count >= 50, count
for body, data in [
    (b"0\r\n\r\n", b""),
    (b"4\r\nbody\r\n00\r\n\r\n", b"body"),
    (b"A\r\n0123456789\r\n3\r\na\r\n\r\n0\r\nx: y\r\nz: \r\n\r\n", b"0123456789a\r\n"),
]:
    for cut in range(len(body) + 1):
        assert read(body + b"GET / HTTP/1.1", cut) == (data, b"GET / HTTP/1.1"), (body, cut)
for fields, chunked in [
    (b"host: a\r\n", False),
    (b"Content-Length: 12\r\nx:\r\ny: \t a\tb \r\n", False),
    (b"Transfer-Encoding: Chunked\r\n", True),
    (b"x: caf\xe9\r\n", False),
]:
    assert bottle.look(b"POST /x HTTP/1.1\r\n" + fields + b"\r\n") == chunked, fields
print(f"twin: {count} texts that programs read differently are refused")
