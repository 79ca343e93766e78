"""A container beside the cells, made by the tests, that answers whoever can reach it. Standard library only.

TCP ports say `HTTP/1.0 200 OK` and close; UDP ports send back what they get. IPv4 and IPv6.
"""

import socket
import sys
import threading

TCP = (22, 25, 53, 80, 443, 853, 2375, 5353, 5432)
UDP = (53, 443, 5353)


def greet(listener: socket.socket) -> None:
    """Answer every connection."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")


def echo(wire: socket.socket) -> None:
    """Send back every datagram."""
    while True:
        data, sender = wire.recvfrom(2048)
        wire.sendto(data, sender)


def main() -> None:
    """Listen everywhere, and say so."""
    for port in TCP:
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
    for port in UDP:
        wire = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        wire.bind(("::", port))
        threading.Thread(target=echo, args=(wire,), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
