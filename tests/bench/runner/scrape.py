"""Asks penstock's admin each second, as Prometheus and an operator's table would: /metrics, and 1,000 connections.
Started by cell.py with the path of the admin's socket and the seconds until the first time; a line on stdin begins it,
another ends it. Then it prints how often it has asked, or what was wrong."""
import http.client
import json
import select
import socket
import sys
import time

PERIOD_SECONDS = 1.0
PATIENCE_SECONDS = 10
ASKED = [("/metrics", b"\n# TYPE penstock_"), ("/v1/connections?limit=1000", b'"id":')]


class Admin(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def scrape(admin):
    """How many metrics and how many connections it told of."""
    found = []
    for path, mark in ASKED:
        admin.request("GET", path)
        answer = admin.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"{path}: status {answer.status}")
        found.append(body.count(mark))
    admin.close()
    return found


def main():
    admin = Admin(sys.argv[1])
    sys.stdin.readline()
    due = time.monotonic() + float(sys.argv[2])
    times, metrics, connections = 0, [], []
    while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        for counts, n in zip((metrics, connections), scrape(admin)):
            counts.append(n)
        times += 1
        due += PERIOD_SECONDS
    return {"times": times, "metrics": min(metrics, default=0), "connections": min(connections, default=0)}


if __name__ == "__main__":
    try:
        print(json.dumps(main()), flush=True)
    except (OSError, http.client.HTTPException) as failure:
        print(json.dumps({"error": str(failure) or type(failure).__name__}), flush=True)
