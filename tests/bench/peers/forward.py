"""A TCP forwarder with asyncio's streams, 64 KiB a read."""
import asyncio
import socket
import sys

CHUNK_BYTES = 64 * 1024


async def copy_one_way(reader, writer):
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def serve(client_reader, client_writer):
    try:
        reader, writer = await asyncio.open_connection(*backend, limit=CHUNK_BYTES)
    except OSError:
        client_writer.transport.abort()
        return
    await asyncio.gather(copy_one_way(client_reader, writer), copy_one_way(reader, client_writer))
    writer.close()
    client_writer.close()


async def main():
    server = await asyncio.start_server(serve, *bind, limit=CHUNK_BYTES, backlog=4096,
                                        family=socket.AF_INET)
    await server.serve_forever()


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


bind, backend = address(sys.argv[1]), address(sys.argv[2])
asyncio.run(main())
