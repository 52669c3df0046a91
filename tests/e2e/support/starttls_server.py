#!/usr/bin/env python3
"""A server that speaks PROTOCOL in the clear up to STARTTLS, then TLS with the certificate CERT and its KEY, in which it
says NAME and ends.

usage: starttls_server.py PROTOCOL CERT KEY NAME      (prints the port that it listens on)"""
import socket
import ssl
import sys
import threading


class Refused(Exception):
    pass


def expect(ok, what):
    if not ok:
        raise Refused(f"unexpected {what!r}")


def until(sock, ending):
    """Reads no byte more: what comes next may be TLS."""
    text = b""
    while not text.endswith(ending):
        byte = sock.recv(1)
        expect(byte and len(text) < 10000, text)
        text += byte
    return text


def exactly(sock, n):
    text = b""
    while len(text) < n:
        part = sock.recv(n - len(text))
        expect(part, text)
        text += part
    return text


def postgres(sock):
    expect(exactly(sock, 8) == bytes.fromhex("0000000804d2162f"), "request")
    sock.sendall(b"S")


def smtp(sock):
    sock.sendall(b"220-mx.lab ESMTP\r\n220 ready\r\n")
    line = until(sock, b"\r\n")
    expect(line.startswith(b"EHLO ") and len(line) > 7, line)
    sock.sendall(b"250-mx.lab\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
    line = until(sock, b"\r\n")
    expect(line == b"STARTTLS\r\n", line)
    sock.sendall(b"220 2.0.0 go\r\n")


def imap(sock):
    sock.sendall(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n")
    tag, command = until(sock, b"\r\n").split(None, 1)
    expect(command == b"STARTTLS\r\n", command)
    sock.sendall(tag + b" OK go\r\n")


def xmpp(sock):
    text = until(sock, b">")
    if text.startswith(b"<?xml"):
        text = until(sock, b">")
    expect(text.lstrip().startswith(b"<stream:stream "), text)
    sock.sendall(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' "
                 b"xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>")
    sock.sendall(b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
                 b"</stream:features>")
    text = until(sock, b">")
    expect(text == b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", text)
    sock.sendall(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")


def ldap(sock):
    head = exactly(sock, 2)
    message = exactly(sock, head[1])
    expect(head[0] == 0x30 and b"1.3.6.1.4.1.1466.20037" in message, message)
    number = message[:2 + message[1]]
    body = number + bytes.fromhex("78070a010004000400")
    sock.sendall(bytes([0x30, len(body)]) + body)


def mysql(sock):
    body = (b"\x0a8.0.36\0" + b"\x01\0\0\0" + b"saltsalt\0" + b"\xff\xff\x21\x02\0\xff\xdf\x15" + bytes(10) +
            b"moresaltmore\0caching_sha2_password\0")
    sock.sendall(bytes([len(body), 0, 0, 0]) + body)
    head = exactly(sock, 4)
    request = exactly(sock, head[0])
    expect(head == b"\x20\0\0\1" and request[1] & 0x08, request)


def serve(sock, dialogue, context, name):
    try:
        dialogue(sock)
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(name.encode() + b"\n")
            tls.unwrap()
    except (Refused, OSError) as problem:
        print(f"{name}: {problem}", file=sys.stderr, flush=True)
    finally:
        sock.close()


def main():
    protocol, cert, key, name = sys.argv[1:]
    dialogue = {f.__name__: f for f in (postgres, smtp, imap, xmpp, ldap, mysql)}[protocol]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock, dialogue, context, name), daemon=True).start()


main()
