"""The server answers with files of the site and nothing else, and what is wrong with a call in one line."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request

import pytest
from descent.book.commands import cli
from descent.book.sources.project import Project


@pytest.fixture
def site(tmp_path):
    """Return a book whose site is three pages."""
    html = tmp_path / "book" / "_build" / "html"
    (html / "code").mkdir(parents=True)
    for name in ("index.html", "404.html", "code/index.html"):
        (html / name).write_text(f"This is {name}")
    (tmp_path / "book" / "chapters").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("root: chapters/index\n")
    return Project(tmp_path / "book")


@pytest.fixture
def address(site):
    """Return host and port of a running server."""
    with cli.server(site, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address
        server.shutdown()
        thread.join()


def answer(address, line):
    """Send one request as it is, and return all that comes back."""
    with socket.create_connection(address, timeout=30) as talk:
        talk.sendall(line + b"\r\n\r\n")
        return b"".join(iter(lambda: talk.recv(1 << 16), b""))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/%00", b"400"),
        (b"/code/%00/x", b"400"),
        (b"/%ed%a0%80", b"400"),  # half a character
        (b"http://[/../../code", b"400"),  # half a host
        (b"/" + b"a" * 5000, b"404"),
        (b"/..%2f..%2f_toc.yml", b"404"),
        (b"/%2e%2e/%2e%2e/_toc.yml", b"404"),
        (b"/nowhere?x=%00", b"404"),
        (b"/index.html/", b"404"),
        (b"/code/", b"200"),
    ],
    ids=[
        "nul",
        "nul in a folder",
        "surrogate",
        "half a host",
        "long",
        "slashes",
        "dots",
        "query",
        "file as folder",
        "folder",
    ],
)
def test_odd_requests_get_an_answer_and_leave_no_traceback(address, capfd, path, status):
    assert answer(address, b"GET " + path + b" HTTP/1.0").startswith(b"HTTP/1.0 " + status)
    assert b"This is index.html" in answer(address, b"GET / HTTP/1.0")  # and it goes on
    assert "Traceback" not in capfd.readouterr().err


def test_a_reader_who_leaves_leaves_no_traceback(site, address, capfd):
    (site.html / "large.bin").write_bytes(bytes(20_000_000))
    with socket.create_connection(address, timeout=30) as talk:
        talk.sendall(b"GET /large.bin HTTP/1.0\r\n\r\n")
        talk.recv(10)
    for _ in range(3):  # requests end in threads of their own: by now that one has noticed
        answer(address, b"GET / HTTP/1.0")
    assert "Traceback" not in capfd.readouterr().err


def test_nothing_outside_the_site_is_sent_whatever_links_lead_there(site, address):
    secret = site.root / "secret"
    secret.mkdir()
    (secret / "index.html").write_text("not for readers")
    (site.html / "linked").mkdir()
    (site.html / "linked" / "index.html").symlink_to(secret / "index.html")
    (site.html / "file.html").symlink_to(secret / "index.html")
    (site.html / "folder").symlink_to(secret)
    (site.html / "round.html").symlink_to("round.html")
    for path in ("linked/", "linked/index.html", "file.html", "folder/", "folder/index.html", "round.html"):
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/{path}")
        with refused.value:
            assert b"This is 404.html" in refused.value.read()


def test_links_within_the_site_are_followed_also_where_the_site_is_one(tmp_path, site):
    (site.html / "short.html").symlink_to("code/index.html")
    site.build.rename(tmp_path / "elsewhere")
    site.build.symlink_to(tmp_path / "elsewhere")
    with cli.server(site, "127.0.0.1", 0, quiet=True) as server:
        threading.Thread(target=server.serve_forever).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/short.html") as page:
            assert page.read() == b"This is code/index.html"
        server.shutdown()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--port", "99999"], "--port 99999: a port is a number from 0 to 65535"),
        (["--port", "-1"], "--port -1: a port is a number from 0 to 65535"),
        (["--host", "192.0.2.1", "--port", "0"], "--host 192.0.2.1: nothing can listen there"),
        (["--host", "ä..b", "--port", "0"], "--host ä..b: this is no address"),
        (["--host", "::1", "--port", "0"], "--host ::1: nothing can listen there"),
    ],
)
def test_an_address_nobody_can_listen_at_is_a_wrong_call(site, capsys, options, named):
    assert cli.main(["--root", str(site.root), "serve", *options]) == cli.USAGE_FAULT
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_a_wrong_call(site, address, capsys):
    assert cli.main(["--root", str(site.root), "serve", "--port", str(address[1])]) == cli.USAGE_FAULT
    assert f"--port {address[1]} is in use on 127.0.0.1" in capsys.readouterr().err


def test_a_port_that_is_not_ours_is_a_wrong_call(site, capsys, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    assert cli.main(["--root", str(site.root), "serve", "--port", "80"]) == cli.USAGE_FAULT
    assert "--port 80 is not yours to listen at (Permission denied); choose one from 1024" in capsys.readouterr().err
