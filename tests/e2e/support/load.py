#!/usr/bin/env python3
"""A steady load, both ends of it: echo servers, and clients that connect over and over (churn) or send for seconds
(long). Prints "ready CONTROL PORT PORT": where it is told what to do, and its two servers. Lines to CONTROL:

  go ADDRESS…    starts clients of these, host:port or unix:/path; "?" in front of one: it may refuse a connection
  wait N         answers "done" once N more connections are completed, or one was lost
  stop           lets each client end what it has begun, and answers what both ends have seen, as JSON

Each connection carries its number and length, and random bytes; the client demands all of them back, and a clean end.
The server notes what it got. What one end has and the other has not is a loss."""
import asyncio
import json
import os
import struct

CHURN, LONG = 4, 2  # clients of each address
HEADER = struct.Struct(">QQ")
CHUNK, LONG_CHUNKS, PAUSE_S = 65536, 20, 0.05
PATIENCE_S = 60


class Load:
    def __init__(self):
        self.next_id = 0
        self.sent, self.received = {}, {}  # bytes by number of the connection
        self.losses = []
        self.refused = {}
        self.stopping = False
        self.clients = []

    # --- the servers

    async def serve(self, reader, writer):
        got, number, length = 0, None, None
        head = b""
        try:
            while chunk := await reader.read(CHUNK):
                got += len(chunk)
                if number is None:
                    head += chunk
                    if len(head) >= HEADER.size:
                        number, length = HEADER.unpack_from(head)
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
            if number is not None and got == length:
                self.received[number] = got
            else:
                self.losses.append(f"server: connection {number} ended after {got} of {length} bytes")
        except OSError as err:
            self.losses.append(f"server: connection {number} after {got} of {length} bytes: {err}")
        writer.close()

    # --- the clients

    @staticmethod
    def connect(address):
        if address.startswith("unix:"):
            return asyncio.open_unix_connection(address[5:])
        host, port = address.rsplit(":", 1)
        return asyncio.open_connection(host, int(port))

    async def exchange(self, reader, writer, payload, pause):
        async def send():
            for at in range(0, len(payload), CHUNK):
                writer.write(payload[at:at + CHUNK])
                await writer.drain()
                if pause:
                    await asyncio.sleep(PAUSE_S)
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        back = await reader.read(-1)
        await sending
        if back != payload:
            raise OSError(f"{len(back)} of {len(payload)} bytes came back")

    async def connection(self, address, may_refuse, long):
        self.next_id += 1
        number = self.next_id
        size = CHUNK * LONG_CHUNKS if long else HEADER.size + int.from_bytes(os.urandom(2), "big") % 20000
        payload = HEADER.pack(number, size) + os.urandom(size - HEADER.size)
        writer = None
        try:
            reader, writer = await asyncio.wait_for(self.connect(address), PATIENCE_S)
            await asyncio.wait_for(self.exchange(reader, writer, payload, long), PATIENCE_S)
            self.sent[number] = size
        except (ConnectionRefusedError, FileNotFoundError) as err:
            if not may_refuse:
                self.losses.append(f"client: {address}: connection {number}: {err}")
            self.refused[address] = self.refused.get(address, 0) + 1
            await asyncio.sleep(0.01)
        except (OSError, asyncio.TimeoutError) as err:
            self.losses.append(f"client: {address}: connection {number}: {err!r}")
        if writer:
            writer.close()

    async def client(self, address, long):
        may_refuse = address.startswith("?")
        while not self.stopping and len(self.losses) < 20:
            await self.connection(address.lstrip("?"), may_refuse, long)

    def result(self):
        for number in sorted(self.sent.keys() ^ self.received.keys()):
            self.losses.append(f"connection {number} was whole at one end only")
        return {
            "connections": len(self.sent), "bytes": sum(self.sent.values()),
            "server_connections": len(self.received), "server_bytes": sum(self.received.values()),
            "refused": self.refused, "losses": self.losses,
        }


    async def wait(self, more):
        enough = len(self.sent) + more
        while len(self.sent) < enough and not self.losses:
            await asyncio.sleep(0.001)
        return "done"

    def go(self, addresses):
        self.clients += [asyncio.ensure_future(self.client(address, long))
                         for address in addresses for long in [False] * CHURN + [True] * LONG]
        return "gone"

    async def stop(self):
        self.stopping = True
        await asyncio.gather(*self.clients)
        deadline = asyncio.get_running_loop().time() + PATIENCE_S  # the servers may be a moment behind
        while self.sent.keys() - self.received.keys() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        return json.dumps(self.result())

    async def obey(self, reader, writer):
        while words := (await reader.readline()).decode().split():
            answer = (self.go(words[1:]) if words[0] == "go" else
                      await self.wait(int(words[1])) if words[0] == "wait" else await self.stop())
            writer.write(answer.encode() + b"\n")
            await writer.drain()


async def main():
    load = Load()
    servers = [await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1024)
               for handler in (load.obey, load.serve, load.serve)]
    print("ready", *(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
