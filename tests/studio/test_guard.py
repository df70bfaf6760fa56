"""Who is refused: foreign pages, missing tokens, large bodies, names that are paths."""

import asyncio
import json
import os
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

import pytest
from studios import started

from odfs_jax.errors import UserError
from odfs_jax.studio import guard, server
from odfs_jax.studio.guard import Guard, is_local
from odfs_jax.studio.workspace import StudioWorkspace


@pytest.fixture(scope="module")
def studio(tmp_path_factory, place_actors):
    workspace = tmp_path_factory.mktemp("guarded")
    place_actors(workspace)
    (workspace.parent / "secret.png").write_bytes(b"secret")
    (workspace / "src" / "aligned" / "link.png").symlink_to(workspace.parent / "secret.png")
    with started(workspace, workspace.parent / "studio.log") as running:
        yield running


def ask(studio, path, body=None, **headers):
    """(status, text) of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    own = {"Content-Type": "application/json", "Origin": studio.url}
    headers = own | {k.replace("_", "-"): v for k, v in headers.items()}
    headers = {k: v for k, v in headers.items() if v is not None}
    request = urllib.request.Request(studio.url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("latin-1")
    except HTTPError as error:
        return error.code, error.read().decode("latin-1")


def test_own_pages_pass(studio):
    assert ask(studio, "/api/faces/src")[0] == 200
    own = f"http://{urlsplit(studio.url).netloc}"
    assert ask(studio, "/api/faces/src", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(studio, "/faces", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate",
               Sec_Fetch_Dest="document")[0] == 200  # a link in a mail  # fmt: skip


def test_changes_must_come_from_a_page_of_the_studio(studio):
    """A body is no sign: some requests need none."""
    for path, body in (
        ("/api/convert/stop", b""),
        ("/api/faces/trash", {"side": "src", "names": []}),
    ):
        status, text = ask(studio, path, body, Origin=None)
        assert (status, text[:9]) == (403, "no Origin")
        assert ask(studio, path, body)[0] == 200
        assert ask(studio, path, body, Origin=None, Sec_Fetch_Site="same-origin")[0] == 200
        assert ask(studio, path, body, Origin=None, Sec_Fetch_Site="none")[0] == 403
    for sign in ("", "Origin: http://evil.example\r\n"):
        assert b" 403 " in web_socket(studio, sign)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_foreign_pages_are_refused(studio, headers):
    body = {"side": "src", "names": ["00000_0.png"]}
    for path, data in (("/api/faces/src", None), ("/api/faces/trash", body), ("/", None)):
        status, text = ask(studio, path, data, **headers)
        assert (status, text[:7]) == (403, "foreign")
    assert (studio.workspace / "src/aligned/00000_0.png").exists()


def web_socket(studio, header):
    """The first line of the answer to a handshake with `header`."""
    parts = urlsplit(studio.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(
            b"GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
            + f"Host: {parts.netloc}\r\n{header}".encode()
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        return connection.recv(4096).split(b"\r\n")[0]


TRAVERSALS = (
    "../../../secret.png", "..%2f..%2f..%2fsecret.png", "/etc/passwd", "....//secret.png",
    "..\\..\\secret.png", ".hidden.png", "link.png", "a\0b.png", "no such.png", "", "x.txt",
    "%2e%2e%2fsecret.png", "00000_0.png/../../../../secret.png",
)  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_that_lead_elsewhere_are_refused(studio, name):
    for what in ("thumb", "image", "data"):
        status, text = ask(studio, f"/api/faces/src/{what}/{quote(name, safe='')}")
        assert status in (400, 404) and "secret" not in text.replace("secret.png", "")
    for path in ("trash", "restore"):
        assert ask(studio, f"/api/faces/{path}", {"side": "src", "names": [name]})[0] in (400, 404)
    body = {"side": "dst", "frame": 0, "faces": [], "replaced": [name]}
    assert ask(studio, "/api/accept", body)[0] in (400, 404)
    assert (studio.workspace.parent / "secret.png").read_bytes() == b"secret"
    assert ask(studio, f"/studio/{quote(name, safe='')}")[0] in (404, 405)


@pytest.mark.parametrize("side", ["..", "models", "src/..", "", "SRC", "a" * 300])
def test_sides_are_src_and_dst(studio, side):
    for path in (f"/api/faces/{quote(side, safe='')}", f"/api/frames/{quote(side, safe='')}"):
        assert ask(studio, path)[0] in (400, 404, 422)
    assert ask(studio, "/api/faces/order", {"side": side, "by": "blur"})[0] == 400


@pytest.mark.parametrize("by", ["blur data=dst", "../blur", "", "undo=true"])
def test_no_settings_slip_into_a_command(studio, by):
    status, text = ask(studio, "/api/faces/sort", {"side": "src", "by": by})
    assert status == 400 and "expected one of" in text


@pytest.mark.parametrize(
    "points", [[[0, 0]] * 67, [[0, 0, 0]] * 68, [["a", 0]] * 68, [[1e99, 0]] * 68, 7]
)
def test_points_that_are_none(studio, points):
    body = {"side": "dst", "frame": 0, "faces": [points]}
    assert ask(studio, "/api/accept", body)[0] == 422
    assert ask(studio, "/api/align", points)[0] == 422


def test_bodies_that_are_no_request_end_in_one_line(studio):
    """Whatever a client sends: an answer, and no traceback in the log."""
    points = json.dumps([[0, 0]] * 67)[:-1] + ", [NaN, 1e999]]"
    bodies = ("", "{", "\udcff", "[" * 100_000, "9" * 5000, "NaN", points, '{"side": "\\ud800"}')
    for path in ("/api/align", "/api/faces/order", "/api/convert/still"):
        for body in bodies:
            status, text = ask(studio, path, body.encode("utf-8", "surrogateescape"))
            assert status in (400, 422) and len(text) < 1000, (path, body[:20], text)
    merge = {"erode": float("nan"), "mode": "${oc.env:HOME}"}
    for key in merge:
        body = {"model": "none", "frame": 0, "merge": {key: merge[key]}}
        status, text = ask(studio, "/api/convert/still", body)
        assert status in (400, 422) and str(Path.home()) not in text
    assert "Traceback" not in studio.log.read_text()


def test_a_file_name_that_is_no_text_is_left_out(studio):
    odd = studio.workspace / "src" / "aligned" / os.fsdecode(b"\xff.png")
    odd.write_bytes((studio.workspace / "src" / "aligned" / "00000_0.png").read_bytes())
    for path in ("/api/faces/src", "/api/faces/src/poses", "/api/frames/src"):
        assert ask(studio, path)[0] == 200
    assert odd.name not in json.loads(ask(studio, "/api/faces/src")[1])["names"]
    odd.unlink()


def test_points_that_coincide_write_nothing(studio):
    body = {"side": "dst", "frame": 0, "faces": [[[5, 5]] * 68]}
    before = sorted((studio.workspace / "dst" / "aligned").iterdir())
    status, text = ask(studio, "/api/accept", body)
    assert status == 400 and "coincide" in text
    assert sorted((studio.workspace / "dst" / "aligned").iterdir()) == before


def test_a_large_body_is_refused(studio):
    """By its length, before any of it is read."""
    parts = urlsplit(studio.url)
    head = f"POST /api/faces/trash HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {studio.url}\r\n"
    head += "Content-Length: "
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(f"{head}{guard.MAX_BODY + 1}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def test_hostile_file_names_are_shown_as_text(studio, visit):
    folder = studio.workspace / "src" / "aligned"
    name = "<img src=x onerror=document.title='owned'>&'\".png"
    (folder / name).write_bytes((folder / "00000_0.png").read_bytes())
    page = visit(f"{studio.url}/faces?side=src")
    page.wait_for_selector("#studio-main[data-ready]")
    page.wait_for_function("name => faces.grid.items.includes(name)", arg=name)
    page.locator(".cell", has_text="onerror").click()
    page.wait_for_function("document.querySelector('aside table').innerText.includes('onerror')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".look[data-shown]")
    assert page.title() != "owned" and page.locator("img[src=x]").count() == 0
    (folder / name).unlink()


def answer(app_guard, headers=(), body=(), method="GET", query=b"", path="/"):
    """(status, headers) that the guard gives, by ASGI's own messages."""
    sent, chunks = [], list(body)

    async def receive():
        part = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": part, "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    scope["server"] = ("127.0.0.1", 8080)
    own = [(b"host", b"127.0.0.1:8080"), (b"origin", b"http://127.0.0.1:8080")]
    scope["headers"] = [*own, *headers]
    with ThreadPoolExecutor(1) as thread:  # this one may have Playwright's loop
        thread.submit(asyncio.run, app_guard(scope, receive, send)).result()
    return sent[0]["status"], dict(sent[0]["headers"])


async def reads_all(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_body_without_a_length_is_counted(monkeypatch):
    monkeypatch.setattr(guard, "MAX_BODY", 100)
    app = Guard(reads_all, "127.0.0.1", None)
    assert answer(app, body=[b"x" * 60, b"x" * 40], method="POST")[0] == 200
    assert answer(app, body=[b"x" * 60, b"x" * 41], method="POST")[0] == 413
    assert answer(app, [(b"content-length", b"-1")], method="POST")[0] == 413


def test_a_token_is_asked_for_and_kept_in_a_cookie():
    app = Guard(reads_all, "0.0.0.0", "right")
    assert answer(app)[0] == 403
    assert answer(app, query=b"token=wrong")[0] == 403
    status, headers = answer(app, query=b"token=right&side=dst", path="/extract")
    assert (status, headers[b"location"]) == (303, b"/extract?side=dst")
    odd = answer(app, query=b"token=right", path="/w/a #1? 50%2F/")[1]
    assert odd[b"location"] == b"/w/a%20%231%3F%2050%252F/"  # of a workspace's odd name
    for path in ("//evil.example/", "/\\evil.example", "///evil.example", "\\\\evil.example"):
        status, elsewhere = answer(app, query=b"token=right", path=path)
        assert status == 303 and elsewhere[b"location"].startswith(b"/evil.example")
    cookie = headers[b"set-cookie"]
    assert b"HttpOnly" in cookie and b"samesite=lax" in cookie.lower()
    assert answer(app, [(b"cookie", cookie.split(b";")[0])])[0] == 200
    assert answer(app, [(b"cookie", b"odfs_studio_8080=wrong")])[0] == 403
    assert answer(app, [(b"cookie", b"\xff=;;=")])[0] == 403


def test_open_pages_are_counted():
    opened = [guard.MAX_PAGES - 1]
    app = Guard(reads_all, "127.0.0.1", None, lambda path: path == "/faces", lambda: opened[0])
    assert answer(app, path="/faces")[0] == 200
    opened[0] += 1
    assert answer(app, path="/faces")[0] == 503 and answer(app, path="/api/faces")[0] == 200


def test_a_token_from_a_file_or_the_environment(tmp_path, monkeypatch):
    nowhere = {"token": None, "token_file": None}
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    assert server.find_token(nowhere) is None
    monkeypatch.setenv(server.TOKEN_VARIABLE, "from the environment")
    assert server.find_token(nowhere) == "from the environment"
    file = tmp_path / "token"
    file.write_text("from a file\n")
    with pytest.raises(UserError, match="other users can read this secret"):
        server.find_token(nowhere | {"token_file": str(file)})
    file.chmod(0o600)
    assert server.find_token(nowhere | {"token_file": str(file)}) == "from a file"
    assert server.find_token({"token": "given", "token_file": str(file)}) == "given"
    file.write_text("\n")
    with pytest.raises(UserError, match="empty"):
        server.find_token(nowhere | {"token_file": str(file)})


def test_what_pages_may_load_is_said():
    _, headers = answer(Guard(reads_all, "127.0.0.1", None))
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]


def test_other_addresses_get_a_random_token(studio, tmp_path):
    with started(studio.workspace, tmp_path / "log", "server.host=0.0.0.0") as other:
        assert len(other.page.split("token=")[1]) >= 32
        assert ask(other, "/api/faces/src")[0] == 403
        other.url = other.url.replace("0.0.0.0", "127.0.0.1")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(other.url + other.page, timeout=60) as page:
            assert page.status == 200 and "token" not in page.url
        with opener.open(f"{other.url}/api/faces/src", timeout=60) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("127.0.0.1.evil.example", False), ("", False)],
)  # fmt: skip
def test_local_names(host, local):
    assert is_local(host) is local


def test_a_workspace_knows_its_models_only(tmp_path):
    (tmp_path / "models" / "h64").mkdir(parents=True)
    (tmp_path / "models" / "h64" / "config.yaml").touch()
    studio_workspace = StudioWorkspace(tmp_path)
    assert studio_workspace.models() == ["h64"] and studio_workspace.model("h64").name == "h64"
    for name in ("../models/h64", "", ".", "h64/", "other"):
        with pytest.raises(UserError, match="no such model"):
            studio_workspace.model(name)
