"""`testbed explore`: serve the page until it is stopped."""

from __future__ import annotations

import logging
import socket
import threading
import webbrowser

PORT = 8050


def explore_command(host: str, port: int | None, *, browser: bool) -> int:
    """Serve the page at an address that is printed. Returns the exit status: 0 stopped, 2 where it cannot be served.

    Args:
        host: the machine's name or number; 127.0.0.1 is seen from this machine alone.
        port: 8050 or, where that is taken, a free one by default.
        browser: open the page.

    Raises:
        ValueError: the extra is not installed, or the address cannot be had.
    """
    try:
        import dash  # noqa: F401
    except ImportError:
        raise ValueError("the page needs Dash; expected the extra, pip install 'offpolicy-testbed[explore]'") from None
    from threadpoolctl import threadpool_limits
    from werkzeug.serving import make_server

    from testbed.exploring.page import make_app

    chosen = _port(host, port)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request says nothing
    server = make_server(host, chosen, make_app().server, threaded=True)
    address = f"http://{host}:{chosen}/"
    print(f"{address} shows the page until you press Ctrl+C", flush=True)
    if browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    try:
        # Requests share the caches; each computes on one thread, as sweeps do.
        with threadpool_limits(limits=1):
            server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


def _port(host: str, port: int | None) -> int:
    for candidate in (PORT, 0) if port is None else (port,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
                return int(probe.getsockname()[1])
            except (OSError, OverflowError) as why:
                reason = why
    raise ValueError(f"{host}:{port if port is not None else PORT} cannot be had: {reason}; expected a free --port")
