"""Seeds the catalogue, then serves it with both frameworks: ``python -m
examples.catalogue``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import subprocess
import sys
import threading

from hypercorn.asyncio import serve
from hypercorn.config import Config
from werkzeug.serving import make_server

from dualchemy import DualchemyError

from . import flask_app, quart_app, seed

PORTS = {"quart": 5000, "flask": 5001}
HOST = "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.catalogue")
    parser.add_argument("--only", choices=PORTS, help="serve with one framework only")
    parser.add_argument("--port", type=int, help="the port, with --only")
    arguments = parser.parse_args()
    if arguments.port is not None and arguments.only is None:
        parser.error("--port goes with --only")
    # SIGTERM ends the program as Ctrl-C does, through the finally clauses.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    wanted = [arguments.only] if arguments.only else list(PORTS)
    ports = {name: arguments.port or PORTS[name] for name in wanted}
    for port in ports.values():
        if not is_free(port):
            print(
                f"Port {port} is in use; try --only NAME --port NUMBER.",
                file=sys.stderr,
            )
            return 1
    try:
        with flask_app.create_app().app_context():
            count = seed.fill()
    except DualchemyError as error:  # DATABASE_URL is wrong, or its driver is missing
        print(error, file=sys.stderr)
        return 1
    if count:
        print(f"{count} entries stored.")
    try:
        if arguments.only:
            serve_one(arguments.only, ports[arguments.only])
        else:
            serve_both(ports)
    except KeyboardInterrupt:
        pass
    return 0


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def serve_both(ports: dict[str, int]) -> None:
    """Each framework in a process of its own, on the same database."""
    command = [sys.executable, "-m", "examples.catalogue"]
    children = [
        subprocess.Popen([*command, "--only", name, "--port", str(port)])
        for name, port in ports.items()
    ]
    try:
        for child in children:
            child.wait()
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def serve_one(name: str, port: int) -> None:
    print(f"{name.capitalize():6} serves http://{HOST}:{port}/", flush=True)
    if name == "quart":
        serve_quart(port)
    else:
        serve_flask(port)


def serve_quart(port: int) -> None:
    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.loglevel = "WARNING"
    config.graceful_timeout = 1

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Windows has no signal handlers on its loop; there Ctrl-C raises.
        if sys.platform != "win32":
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
        await serve(quart_app.create_app(), config, shutdown_trigger=stop.wait)

    asyncio.run(run())


def serve_flask(port: int) -> None:
    server = make_server(HOST, port, flask_app.create_app(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
