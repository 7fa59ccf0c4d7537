import socket
import subprocess
import sys

import pytest

from testbed.exploring import command
from testbed.exploring.command import _port, explore_command


def test_a_taken_port_gives_way_or_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1:{port} cannot be had"):
            _port("127.0.0.1", port)
        monkeypatch.setattr(command, "PORT", port)
        assert _port("127.0.0.1", None) not in (0, port)
    assert _port("127.0.0.1", None) == port  # the control: it is free again
    with pytest.raises(ValueError, match="cannot be had"):
        _port("127.0.0.1", 99999)


def test_without_the_extra_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "dash", None)
    with pytest.raises(ValueError, match=r"pip install 'offpolicy-testbed\[explore\]'"):
        explore_command("127.0.0.1", None, browser=False)


def test_dash_is_imported_by_the_page_alone():
    code = "import sys, testbed, testbed.cli, testbed.exploring.command; print('dash' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
    code = "import sys, testbed.exploring.page; print('dash' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"
