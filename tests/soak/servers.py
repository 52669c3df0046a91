"""The servers behind penstock: they echo."""
import asyncio


async def _echo(reader, writer):
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
        writer.write_eof()
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def echo_server(port=0):
    server = await asyncio.start_server(_echo, "127.0.0.1", port, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def come_and_go(port, rng, stop):
    """An echo server that is there for a while, and then is not. What it has begun it brings to its end."""
    while not stop.is_set():
        server, _ = await echo_server(port)
        await asyncio.sleep(1 + rng.random() * 3)
        server.close()
        await asyncio.sleep(0.5 + rng.random() * 2)
