"""Hostile requests to the page, as the bytes that are sent."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from PIL import Image

UPWARD = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "%252e%252e%252f", "....//",
          "..%c0%af", "%00../", "/")  # fmt: skip
PLACES = ("/{}", "/assets/{}", "/picture/0/{}", "/picture/{}/0", "/api/{}")
PARAMETERS = {
    "/api/search": ("id", "side", "code", "k", "label", "split", "where"),
    "/api/browse": ("side", "offset", "shuffle"),
    "/picture/0/0": ("size",),
}
CONDITIONS = (
    "1=1; DROP TABLE images", "label = 'a' OR 1=1 --", "label = '' UNION SELECT * FROM images",
    "(" * 5000, "NOT " * 3000 + "id = 1", "label LIKE '" + "%_" * 4000 + "'", "id = 9" + "9" * 400,
    "label = 'a\x00b'", "read_text(path) = 'x'", "id IN (" + "1," * 4000 + "1)",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """What is sent, and whether the client then keeps the connection open without a word."""

    name: str
    content: bytes
    lingers: bool = False


def attacks(host: str, canary: str, most: int) -> Iterator[Attack]:
    """All of them.

    Args:
        host: of the page, with its port.
        canary: the path of a file that must not come out.
        most: bytes of a picture that the page takes.
    """
    for name, target in _targets(canary):
        yield Attack(name, _request(host, "GET", target))
    for name, content in _pictures(most):
        yield Attack(f"picture: {name}", _request(host, "POST", "/api/search", content))
    yield from _bodies(host, most)
    yield from _strangers(host)
    yield from _broken(host)


def _targets(canary: str) -> Iterator[tuple[str, str]]:
    for place in PLACES:
        for up in UPWARD:
            yield f"path {place} {up}", place.format(up * 12 + canary.lstrip("/"))
    values = (canary, quote("../../.." + canary, safe=""), f"file://{canary}", f"%00{canary}")
    for address, names in PARAMETERS.items():
        for name in names:
            for value in values:
                yield f"{name} of {address}", f"{address}?{name}={value}"
    for condition in CONDITIONS:
        yield "condition", f"/api/browse?where={quote(condition)}"
    for k in ("0", "-1", "1e99", "nan", "99999999999999999999", "", "[]", "%ff%fe", "10&k=11"):
        yield "k", f"/api/search?id=0&k={k}"
    for item in ("-1", "9223372036854775807", "9" * 40, "0x10", "1.5", "%00", "null"):
        yield "id", f"/api/search?id={item}"
        yield "picture", f"/picture/0/{item}"
    for code in ("zz", "00", "00" * 900, "," * 900, "%00", "-1", "00,00"):
        yield "code", f"/api/search?code={code}"
    yield "no UTF-8", "/api/browse?where=%ff%fe%fd&label=%c3%28"
    yield "offset", "/api/browse?offset=9223372036854775807"


def _pictures(most: int) -> Iterator[tuple[str, bytes]]:
    jpeg, png = _saved("JPEG"), _saved("PNG")
    yield "PNG of 60,000 x 60,000", _png(60_000, 60_000, b"\0" * 1000)
    yield "PNG of 20,000 x 20,000 in full", _png(20_000, 20_000, b"\0" * (2501 * 20_000), 1)
    yield "PNG of 7,000 x 7,000, just too small a file", _png(7_000, 7_000, b"\0" * 100)
    yield "PNG of no pixels", _png(0, 0, b"")
    yield "GIF of 65,535 x 65,535", b"GIF89a" + b"\xff\xff\xff\xff\x80\0\0" + b"\0" * 6 + b"\x2c"
    yield "WebP of 16,383 x 16,383", _webp()
    yield "BMP of 2 billion pixels a side", _bmp(2**31 - 1, 2**31 - 1)
    yield "BMP of negative size", _bmp(-5, -70_000)
    yield "JPEG of 65,500 x 65,500", jpeg.replace(struct.pack(">HH", 64, 64), b"\xff\xdc\xff\xdc")
    yield "TIFF whose directory is itself", b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"
    yield "TIFF of 4 billion tags", b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 600
    yield "PNG with a text of 200 MB", _png(8, 8, b"\0" * 200, text=b"\0" * 200_000_000)
    yield "PNG with a profile of 200 MB", _png(8, 8, b"\0" * 200, profile=b"\0" * 200_000_000)
    yield "zip", _zip()
    yield "gzip of 100 MB", gzip.compress(b"\0" * 100_000_000)
    yield "PNG and zip", png + _zip()
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) run\n"
    yield "PDF", b"%PDF-1.7\n1 0 obj<<>>endobj"
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "PPM", b"P6 99999 99999 255\n"
    yield "HTML", b"<script>alert(1)</script>"
    yield "JSON", b'{"id": 1,,}'
    yield (
        "form",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../x"\r\n\r\n--x--',
    )
    yield "path", b"/etc/passwd"
    yield "NULs", b"\0" * 10_000
    for kind, content in (("JPEG", jpeg), ("PNG", png), ("WEBP", _saved("WEBP")),
                          ("GIF", _saved("GIF")), ("TIFF", _saved("TIFF"))):  # fmt: skip
        yield f"half a {kind}", content[: len(content) // 2]
        yield f"20 bytes of a {kind}", content[:20]
        middle = len(content) // 2
        yield f"torn {kind}", content[:middle] + b"\xff\0\xaa" * 20 + content[middle + 60 :]
    yield "one byte too large", jpeg + b"\0" * (most + 1 - len(jpeg))


def _bodies(host: str, most: int) -> Iterator[Attack]:
    jpeg = _saved("JPEG")
    head = f"POST /api/search HTTP/1.1\r\nHost: {host}\r\n".encode()
    chunk = f"{1 << 20:x}\r\n".encode() + b"\0" * (1 << 20) + b"\r\n"
    many = chunk * ((most >> 20) + 1)

    def body(name: str, fields: bytes, content: bytes = b"", lingers: bool = False) -> Attack:
        return Attack(
            f"body: {name}", head + fields + b"Connection: close\r\n\r\n" + content, lingers
        )

    yield body("a terabyte announced", b"Content-Length: 1099511627776\r\n", jpeg)
    yield body("a number of 5,000 digits", b"Content-Length: " + b"9" * 5000 + b"\r\n", jpeg)
    yield body("too large, in chunks", b"Transfer-Encoding: chunked\r\n", many)
    yield body("shorter than announced", b"Content-Length: 100000\r\n", jpeg, True)
    yield body("never comes", b"Content-Length: 100000\r\n", jpeg[:10], True)
    yield body("longer than announced", b"Content-Length: 10\r\n", jpeg)
    yield body("negative", b"Content-Length: -1\r\n", jpeg)
    yield body("hexadecimal", b"Content-Length: 0x10\r\n", jpeg)
    yield body("two lengths", b"Content-Length: 10\r\nContent-Length: 20\r\n", jpeg)
    yield body(
        "length and chunks", b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"
    )
    yield body("no chunk size", b"Transfer-Encoding: chunked\r\n", b"zz\r\nabc\r\n")
    yield body(
        "a chunk of 2^63", b"Transfer-Encoding: chunked\r\n", b"7fffffffffffffff\r\nabc", True
    )
    yield body("unknown coding", b"Transfer-Encoding: gzip\r\n", gzip.compress(jpeg))
    yield body("none", b"Content-Length: 0\r\n")
    yield body("no length", b"")
    yield Attack("a GET with a body", _request(host, "GET", "/api/info", b"x" * 100))


def _strangers(host: str) -> Iterator[Attack]:
    port = host.rsplit(":", 1)[1]
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "a b",
                 f"localhost:{port}@evil.example", "[::1", "localhost.evil.example", "x" * 5000,
                 "\xff\xfe"):  # fmt: skip
        yield Attack(f"host {name[:40]!r}", _request(name, "GET", "/api/info"))
    yield Attack("no host", b"GET /api/info HTTP/1.1\r\nConnection: close\r\n\r\n")
    yield Attack("no host, HTTP/1.0", b"GET /api/info HTTP/1.0\r\n\r\n")
    yield Attack(
        "two hosts", f"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil\r\n\r\n".encode(), True
    )
    jpeg = _saved("JPEG")
    for field in ("Origin: https://evil.example", "Origin: null", f"Origin: https://{host}",
                  "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"):  # fmt: skip
        yield Attack(field, _request(host, "POST", "/api/search", jpeg, field))


def _broken(host: str) -> Iterator[Attack]:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD", "PROPFIND"):
        yield Attack(f"method {method}", _request(host, method, "/api/info"))
    for target in ("/", "/api/info", "/picture/0/0", "/assets/page.css"):
        yield Attack(f"POST to {target}", _request(host, "POST", target, b"{"))
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
    yield Attack("websocket", _request(host, "GET", "/", b"", upgrade))
    yield Attack("a header of 1 MB", _request(host, "GET", "/", b"", "X: " + "a" * 1_000_000))
    yield Attack("20,000 headers", _request(host, "GET", "/", b"", "\r\n".join(["X: y"] * 20_000)))
    yield Attack("an address of 100 kB", _request(host, "GET", "/" + "a" * 100_000))
    yield Attack("a folded header", _request(host, "GET", "/", b"", "X: a\r\n b"))
    yield Attack("a header with NUL", _request(host, "GET", "/", b"", "X: a\0b"))
    yield Attack("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500, True)
    yield Attack("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    yield Attack("HTTP/9", f"GET / HTTP/9.9\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    yield Attack("only line ends", b"\r\n" * 500, True)
    yield Attack("half a head", b"GET / HTTP/1.1\r\nHos", True)
    yield Attack("another server's address", _request(host, "GET", "http://evil.example/"))


def _request(host: str, method: str, target: str, body: bytes = b"", field: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *([field] if field else [])]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def _saved(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(stream, kind)
    return stream.getvalue()


def _png(
    width: int, height: int, rows: bytes, depth: int = 8, text: bytes = b"", profile: bytes = b""
) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)),
    ]
    if profile:
        parts.append(chunk(b"iCCP", b"p\0\0" + zlib.compress(profile)))
    if text:
        parts.append(chunk(b"zTXt", b"t\0\0" + zlib.compress(text)))
    return b"".join([*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def _webp() -> bytes:
    frame = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xfe\x3f\0" * 2
    return b"RIFF" + struct.pack("<I", 4 + len(frame)) + b"WEBP" + frame


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + b"\0" * 900


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * 10_000_000)
    return stream.getvalue()
