"""What a compromised agent tries, as one program. It needs nothing but Python, and runs in a cell and in its control.

Each probe returns what it got hold of; it never decides whether that is good or bad: the test does, and the same probe
must succeed in a container whose protection was taken away. Every probe is bounded and stops by itself.
"""

import contextlib
import ctypes
import errno
import glob
import json
import os
import socket
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20


def connect(host, port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    """Return `connected`, or the name of the error."""
    with socket.socket(family, kind) as s:
        s.settimeout(3)
        try:
            s.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                s.send(b"x")
            return "connected"
        except OSError as error:
            return errno.errorcode.get(error.errno, type(error).__name__)


def network(targets):
    """Rows 1, 7, 8, 10, 11, 27: interfaces, routes, and a connection to each target by itself, without any proxy."""
    interfaces = sorted(os.listdir("/sys/class/net"))
    with open("/proc/net/route") as f:
        routes = len(f.readlines()) - 1
    try:
        with open("/proc/net/ipv6_route") as f:
            routes6 = [line for line in f if not line.rstrip().endswith("lo")]
    except OSError:
        routes6 = []
    tried = {
        f"{host}:{port}": connect(host, port, socket.AF_INET6 if ":" in host else socket.AF_INET)
        for host, port in targets
    }
    return {"interfaces": interfaces, "routes": routes, "routes6": len(routes6), "tried": tried}


def local_only(addresses):
    """Addresses that nothing may be sent to outside a cell: the probe runs where there is no route at all."""
    result = {}
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        result[f"{host}:{port}/tcp"] = connect(host, port, family)
        result[f"{host}:{port}/udp"] = connect(host, port, family, socket.SOCK_DGRAM)
    return result


def datagrams(targets):
    """Rows 1, 10: a datagram to each target, and whether an answer came."""
    result = {}
    for host, port in targets:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(3)
            try:
                s.sendto(b"anybody there?", (host, port))
                s.recv(100)
                result[f"{host}:{port}"] = "answered"
            except OSError as error:
                result[f"{host}:{port}"] = errno.errorcode.get(error.errno, type(error).__name__)
    return result


def ping(host):
    """Row 10: an ICMP echo by a socket that needs no privilege, or else by a raw one."""
    echo = b"\x08\x00\xf7\xff\x00\x00\x00\x00"
    result = "?"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as s:
                s.settimeout(3)
                s.sendto(echo, (host, 0))
                s.recv(100)
                return "answered"
        except OSError as error:
            result = errno.errorcode.get(error.errno, type(error).__name__)
    return result


def scan(area):
    """Row 27: every port of a host that can be connected to."""
    host, first, last = area
    found = []
    for port in range(first, last):
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex((host, port)) == 0:
                found.append(port)
    return found


def resolver(name):
    """Row 6: write one's own resolv.conf and hosts; does a name resolve then?"""
    result = {}
    for path, line in {"/etc/resolv.conf": "nameserver 9.9.9.9", "/etc/hosts": f"203.0.113.9 {name}"}.items():
        try:
            if path == "/etc/hosts":
                with open(path, "a") as f:
                    f.write(line + "\n")
            else:
                os.close(os.open(path, os.O_WRONLY))
            result[path] = "written"
        except OSError as error:
            result[path] = errno.errorcode.get(error.errno, "?")
    code = f"import socket; print(socket.gethostbyname({name!r}))"
    env = {**os.environ, "HOSTALIASES": "/tmp/aliases", "LOCALDOMAIN": "example.com", "RES_OPTIONS": "ndots:0"}
    with contextlib.suppress(OSError), open("/tmp/aliases", "w") as f:
        f.write("planted 203.0.113.9\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    result["resolves"] = done.stdout.strip() or done.stderr.strip().splitlines()[-1].partition(":")[0]
    return result


def without_proxy(url):
    """Row 8: a client whose proxy variables are gone, and one that is told to use none."""
    code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=3).status)"
    bare = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    result = {}
    for name, env in {"unset": bare, "none for all": {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}}.items():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        result[name] = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
    return result


def raw_sockets():
    """ICMP and packet sockets."""
    result = {}
    for name, arguments in {
        "icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
        "vsock": (40, socket.SOCK_STREAM, 0),
        "alg": (38, socket.SOCK_SEQPACKET, 0),
    }.items():
        try:
            socket.socket(*arguments).close()
            result[name] = "opened"
        except OSError as error:
            result[name] = errno.errorcode.get(error.errno, "?")
    return result


def names(hosts):
    """Row 1, 2: does a name resolve; how long did the answer take (a query would wait for its time-out)."""
    result = {}
    for host in hosts:
        start = time.monotonic()
        try:
            answer = socket.getaddrinfo(host, 443)[0][4][0]
        except OSError as error:
            answer = type(error).__name__
        result[host] = [answer, round(time.monotonic() - start, 2)]
    return result


def environ(_):
    """Row 38: everything that any process here was given."""
    found = []
    for path in [*glob.glob("/proc/[0-9]*/environ"), *glob.glob("/proc/[0-9]*/cmdline")]:
        with contextlib.suppress(OSError), open(path, "rb") as f:
            found.append(f.read(MIB).decode(errors="replace"))
    return found


def files(markers):
    """Row 39: a host's files by their paths, and where people keep their keys."""
    homes = ["/root", os.path.expanduser("~"), *glob.glob("/home/*")]
    names_ = [".ssh", ".aws", ".npmrc", ".kube", ".config/gh", ".docker", ".netrc", ".git-credentials"]
    read = {}
    for path in markers:
        with contextlib.suppress(OSError), open(path) as f:
            read[path] = f.read(1000)
    kept = [p for p in (os.path.join(h, n) for h in homes for n in names_) if os.path.lexists(p)]
    return {"read": read, "kept": kept}


def search(canaries):
    """Rows 38, 40: a secret anywhere in the files that can be read here."""
    needles, hits = [c.encode() for c in canaries], []
    for top in (
        "/casemate",
        "/inputs",
        "/artifacts",
        "/workspace",
        "/tmp",
        "/etc",
        "/run",
        "/var",
        "/opt",
        "/home",
        "/mnt",
    ):
        for folder, _, names_ in os.walk(top):
            for name in names_:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    if os.path.isfile(path) and os.path.getsize(path) < 8 * MIB:
                        with open(path, "rb") as f:
                            data = f.read()
                        if path != os.path.abspath(sys.argv[0]) and any(n in data for n in needles):
                            hits.append(path)
    return hits


def docker(_):
    """Row 41: an engine to talk to."""
    found = [
        p for p in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock") if os.path.exists(p)
    ]
    for path in found[:]:
        with socket.socket(socket.AF_UNIX) as s:
            with contextlib.suppress(OSError):
                s.connect(path)
                s.sendall(b"GET /version HTTP/1.0\r\n\r\n")
                if b"ApiVersion" in s.recv(4096):
                    found.append("answered")
    ports = [p for p in (2375, 2376) if connect("127.0.0.1", p) == "connected"]
    return [*found, *ports]


def unix_sockets(_):
    """Row 29: doors as files, of this stage or of another."""
    found = [p for p in ("/doors", "/models", "/hold") if os.path.exists(p)]
    with open("/proc/net/unix") as f:
        return [*found, *(line.split()[-1] for line in f if "/" in line)]


def ports(_):
    """Row 28: every port that answers on loopback."""
    found = []
    for port in range(1, 65536):
        with socket.socket() as s:
            # a connection may meet itself on a port of the ephemeral range
            if s.connect_ex(("127.0.0.1", port)) == 0 and s.getsockname() != s.getpeername():
                found.append(port)
    return found


def syscalls(_):
    """Row 42: ways out of a container, each called so that it does nothing if it is let through."""
    # x86_64 and aarch64 numbers
    table = {
        "mount": (165, 40, (b"none", b"/mnt", b"tmpfs", 0, 0)),
        "umount2": (166, 39, (b"/absent", 0)),
        "pivot_root": (155, 41, (b"/absent", b"/absent")),
        "unshare": (272, 97, (0x10000000,)),
        "setns": (308, 268, (-1, 0)),
        "chroot": (161, 51, (b"/absent",)),
        "ptrace": (101, 117, (0, 0, 0, 0)),
        "bpf": (321, 280, (99, 0, 0)),
        "keyctl": (250, 219, (0, -1, 0, 0, 0)),
        "add_key": (248, 217, (b"user", b"x", b"y", 1, -3)),
        "kexec_load": (246, 104, (0, 0, 0, 0xFFFF0000)),
        "init_module": (175, 105, (0, 0, b"")),
        "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
        "userfaultfd": (323, 282, (0,)),
        "io_uring_setup": (425, 425, (1, 0)),
        "open_by_handle_at": (304, 265, (-1, 0, 0)),
        "process_vm_readv": (310, 270, (os.getpid(), 0, 0, 0, 0, 0)),
        "fsopen": (430, 430, (b"tmpfs", 0)),
        "clone_newuser": (56, 220, (0x10000000 | 17, 0, 0, 0, 0)),
        "sethostname": (170, 161, (b"x", 1)),
        "swapon": (167, 224, (b"/absent", 0)),
    }
    column = 0 if os.uname().machine == "x86_64" else 1
    result = {}
    for name, (*numbers, arguments) in table.items():
        child = os.fork()
        if child == 0:  # what a call changes must not change us
            ctypes.set_errno(0)
            value = libc.syscall(numbers[column], *arguments)
            if name == "clone_newuser" and value == 0:
                os._exit(0)
            os._exit(0 if value >= 0 else min(ctypes.get_errno(), 254))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        result[name] = "done" if code == 0 else errno.errorcode.get(code, str(code))
    return result


def status(_):
    """Row 43."""
    with open("/proc/self/status") as f:
        lines = dict(line.rstrip("\n").split(":", 1) for line in f)
    keys = ("CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), **{k: lines[k].strip() for k in keys}}


def setuid(_):
    """Row 43: programs with which one could become somebody else."""
    found = []
    for top in ("/usr", "/bin", "/sbin", "/opt"):
        for folder, _, names_ in os.walk(top):
            for name in names_:
                with contextlib.suppress(OSError):
                    if os.lstat(os.path.join(folder, name)).st_mode & 0o6000:
                        found.append(os.path.join(folder, name))
    return found


def writable(_):
    """Row 45: every folder here in which a file can be made."""
    found = []
    for folder, folders, _ in os.walk("/", topdown=True):
        if folder == "/":
            folders[:] = [f for f in folders if f not in ("proc", "sys")]
        path = os.path.join(folder, ".probe")
        with contextlib.suppress(OSError):
            with open(path, "w"):
                found.append(folder)
            os.unlink(path)
        if folder in ("/workspace", "/tmp"):
            folders.clear()
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/fs/cgroup/release_agent",
        "/proc/self/oom_score_adj_",
    ):
        if os.path.exists(path) and os.access(path, os.W_OK):
            found.append(path)
    return found


def forks(limit):
    """Row 44: how many processes there can be at once, up to `limit`."""
    children = []
    try:
        for _ in range(limit):
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return len(children)


def memory(limit):
    """Row 44: how many MiB a child can hold, up to `limit` (MiB)."""
    code = (
        "import sys\nkept = []\nfor n in range(int(sys.argv[1])):\n"
        "    kept.append(b'x' * (1 << 20)); sys.stdout.write('.'); sys.stdout.flush()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(limit)], capture_output=True, check=False)
    return [len(done.stdout), done.returncode]


def disk(limit):
    """Row 44: how many MiB and how many files /workspace takes, up to `limit` of each."""
    taken = 0
    with contextlib.suppress(OSError), open("big", "wb") as f:
        for _ in range(limit):
            f.write(b"x" * MIB)
            f.flush()
            taken += 1
    with contextlib.suppress(OSError):
        os.unlink("big")
    os.makedirs("many", exist_ok=True)
    made = 0
    with contextlib.suppress(OSError):
        for number in range(limit * 1100):
            os.close(os.open(f"many/{number}", os.O_CREAT | os.O_WRONLY))
            made += 1
    for number in range(made):
        os.unlink(f"many/{number}")
    return [taken, made]


def flood(mib):
    """Row 44: print `mib` MiB."""
    for _ in range(mib * 16):
        sys.stderr.write("x" * 65535 + "\n")
    return mib


def main():
    """Run the probes that the argument names, and print the results as the last line."""
    with open(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "probes.json")) as f:
        wanted = json.load(f)
    results = {}
    for name, argument in wanted.items():
        probe = globals()[name]
        try:
            results[name] = probe() if argument is None else probe(argument)
        except Exception as error:
            results[name] = f"probe failed: {error!r}"
        if os.path.isdir("/workspace") and os.access("/workspace", os.W_OK):
            os.makedirs("/workspace/artifacts", exist_ok=True)
            with open("/workspace/artifacts/results.json", "w") as f:
                json.dump(results, f)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
