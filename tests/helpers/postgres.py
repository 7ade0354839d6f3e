"""A PostgreSQL server of the tests' own, on the loopback interface alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_START_S = 30


def binaries() -> Path | None:
    """The folder of the server's programs; None where it is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


def missing() -> str:
    """Why there can be no server here; empty where there can."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and not _has_user():
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def _has_user() -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam("postgres"))
    return False


@contextlib.contextmanager
def server(*, durable: bool = False) -> Iterator[str]:
    """The address of a database of a server that lives as long as the block."""
    programs = binaries()
    if programs is None:
        raise RuntimeError(missing())
    with tempfile.TemporaryDirectory(prefix="warpbeam-postgres-") as folder:
        who: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            who = {"user": "postgres", "group": "postgres"}
        data, port = Path(folder) / "data", _free_port()
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "warpbeam", "--auth=trust", "-E", "UTF8",
             "--no-sync"], check=True, capture_output=True, cwd=folder, **who,
        )  # fmt: skip
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
        if not durable:
            settings |= {"fsync": "off", "synchronous_commit": "off"}
        options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, *options], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who,
        )  # fmt: skip
        try:
            _wait(port, process)
            yield f"postgresql://warpbeam@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_START_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    import pg8000.dbapi

    end = time.monotonic() + _START_S
    while True:
        try:
            pg8000.dbapi.connect(
                user="warpbeam", host="127.0.0.1", port=port, database="postgres"
            ).close()
        except Exception:
            if time.monotonic() > end or process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return
