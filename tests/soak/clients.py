"""Clients of all manners."""
import asyncio
import socket
import struct

from authority import NAME

TEXT = bytes(range(32, 127)) + b"\r\n"
POLITE_SECONDS = 60


class Tally:
    """What came of it: runs of each manner, and what went wrong with those that must be served well."""

    def __init__(self):
        self.runs = {}
        self.wrong = []


def text(rng, size):
    return bytes(rng.choices(TEXT, k=min(size, 5000))) * (size // 5000 + 1)


def reset(writer):
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def _send(writer, payload, rng, most, pause):
    await _send_open(writer, payload, rng, most, pause)
    writer.write_eof()


async def _send_open(writer, payload, rng, most, pause):
    at = 0
    while at < len(payload):
        size = rng.randint(1, most)
        writer.write(payload[at:at + size])
        await writer.drain()
        at += size
        if pause:
            await asyncio.sleep(rng.random() * pause)


async def _exact(rng, reader, writer, size, most, pause=0, slow=0):
    """Sends, and reads until the end: all of it must come back."""
    payload = text(rng, size)[:size]
    sending = asyncio.ensure_future(_send(writer, payload, rng, most, pause))
    got = bytearray()
    try:
        while part := await reader.read(1000 if slow else 1 << 16):
            got += part
            if slow:
                await asyncio.sleep(slow)
        await sending
    finally:
        sending.cancel()
    _compare(got, payload)


def _compare(got, payload):
    if got != payload:
        alike = next((i for i, (a, b) in enumerate(zip(got, payload)) if a != b), min(len(got), len(payload)))
        raise ValueError(f"{len(got)} of {len(payload)} bytes came back, the first {alike} of them right")


async def polite(rng, reader, writer):
    await _exact(rng, reader, writer, rng.randint(1, 300000), 65536)


async def half_closing(rng, reader, writer):
    await _exact(rng, reader, writer, rng.randint(0, 2000), 2000)


async def slow(rng, reader, writer):
    await _exact(rng, reader, writer, rng.randint(1, 60000), 3000, pause=0.02, slow=0.01)


async def byte_by_byte(rng, reader, writer):
    await _exact(rng, reader, writer, rng.randint(1, 300), 1, pause=0.004)


async def resetting(rng, reader, writer):
    writer.write(text(rng, rng.randint(0, 200000)))
    await asyncio.sleep(rng.random() * 0.2)
    reset(writer)


async def never_reading(rng, _, writer):
    writer.transport.pause_reading()
    try:
        await asyncio.wait_for(_send(writer, text(rng, 8 << 20), rng, 65536, 0), 1 + rng.random())
    except asyncio.TimeoutError:
        pass


async def idle(rng, _, __):
    await asyncio.sleep(1 + rng.random() * 4)


async def garbage(rng, reader, writer):
    writer.write(rng.randbytes(rng.randint(1, 5000)))
    writer.write_eof()
    await asyncio.wait_for(reader.read(1000), 5)


# ---- in TLS ----


async def _exact_in_tls(rng, reader, writer, size, most, pause=0):
    """asyncio has no half-close in TLS: the bytes are counted instead."""
    payload = text(rng, size)[:size]
    sending = asyncio.ensure_future(_send_open(writer, payload, rng, most, pause))
    try:
        got = await reader.readexactly(size)
        await sending
    except asyncio.IncompleteReadError as error:
        got = error.partial
    finally:
        sending.cancel()
    _compare(got, payload)


async def tls_polite(rng, reader, writer):
    await _exact_in_tls(rng, reader, writer, rng.randint(1, 300000), 65536)


async def tls_slow(rng, reader, writer):
    await _exact_in_tls(rng, reader, writer, rng.randint(1, 20000), 2000, pause=0.02)


async def tls_truncating(rng, reader, writer):
    """Goes without close_notify."""
    writer.write(text(rng, rng.randint(0, 100000)))
    await asyncio.sleep(rng.random() * 0.2)
    writer.transport.abort()


async def no_tls(rng, reader, writer):
    """Says something else on the port of TLS, or stops in the midst of a ClientHello."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(100)
    writer.write(hello if rng.random() < 0.5 else rng.randbytes(200))
    await asyncio.wait_for(reader.read(1000), 1 + rng.random())


EXACT = [polite, half_closing, slow, byte_by_byte]
RUDE = [resetting, never_reading, idle, garbage]
TLS_EXACT = [tls_polite, tls_slow]
TLS_RUDE = [tls_truncating]
TLS_BROKEN = [no_tls]  # begin without TLS
MUST_BE_SERVED = EXACT + TLS_EXACT
ALL = MUST_BE_SERVED + RUDE + TLS_RUDE + TLS_BROKEN


def speaks_tls(manner):
    return manner in TLS_EXACT + TLS_RUDE


async def _run(manner, rng, listener, port, tally, context):
    writer = None
    try:
        options = {"ssl": context, "server_hostname": NAME} if speaks_tls(manner) else {}
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        await asyncio.wait_for(manner(rng, reader, writer), POLITE_SECONDS)
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        if manner in MUST_BE_SERVED:
            tally.wrong.append(f"{listener}, {manner.__name__}: {error or type(error).__name__}")
    finally:
        if writer:
            writer.close() if manner in MUST_BE_SERVED else writer.transport.abort()
    name = manner.__name__
    tally.runs[name] = tally.runs.get(name, 0) + 1


async def keep_on(manner, rng, ports, tally, stop, context):
    """One client after another until `stop` is set."""
    while not stop.is_set():
        listener = rng.choice(sorted(ports))
        await _run(manner, rng, listener, ports[listener], tally, context)
        await asyncio.sleep(rng.random() * 0.2)
