import socket
import sys

import pytest

from testbed.exploring.command import _port, explore_command


def test_a_taken_port_gives_way_or_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1:{port} cannot be had"):
            _port("127.0.0.1", port)
    assert _port("127.0.0.1", None) > 0
    with pytest.raises(ValueError, match="cannot be had"):
        _port("127.0.0.1", 99999)


def test_without_the_extra_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "dash", None)
    with pytest.raises(ValueError, match=r"pip install 'offpolicy-testbed\[explore\]'"):
        explore_command("127.0.0.1", None, browser=False)
