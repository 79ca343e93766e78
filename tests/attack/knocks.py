"""What a compromised agent says at its doors, byte for byte. One knock, one answer; the test decides what it means."""

import json
import os
import socket
import sys

TLS_HELLO = bytes.fromhex("16030100320100002e0303" + "00" * 32 + "00000213010100000300")  # no server name


def knock(port, data, after=b""):
    """Send bytes; with `after`, send those once the door has answered. Return what came, at most 64 KiB."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.settimeout(20)
        got = b""
        try:
            s.sendall(data)
            if after:
                got += s.recv(65536)
                s.sendall(after)
            while len(got) < 65536 and (chunk := s.recv(65536)):
                got += chunk
                if b"\r\n\r\n" in got and not after:
                    head, _, body = got.partition(b"\r\n\r\n")
                    sizes = [h.split(b":")[1] for h in head.split(b"\r\n") if h.lower().startswith(b"content-length:")]
                    if sizes and len(body) >= int(sizes[0]):
                        break
        except OSError as error:
            got += f"<{type(error).__name__}>".encode()
        return got.decode("latin-1")


def main():
    """Knock as the file says: a list of [name, port, bytes, bytes after the answer]."""
    with open("/inputs/knocks.json") as f:
        wanted = json.load(f)
    results = {}
    for name, port, data, after in wanted:
        results[name] = knock(port, data.encode("latin-1"), after.encode("latin-1"))
    os.makedirs("/workspace/artifacts", exist_ok=True)
    with open("/workspace/artifacts/answers.json", "w") as f:
        json.dump(results, f)
    print(len(results), "knocks", file=sys.stderr)


if __name__ == "__main__":
    main()
