"""Who may ask the server for what: asked of a running studio, as a hostile page or a stranger on the network would."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from waiting import PATIENCE, until

from app.guard import FREE_TRIES, LARGEST_UPLOAD, LONGEST_WAIT, Throttle, hosts_of, name_of
from app.launch import Address, demand_login
from app.login import Login, chosen_login
from tests.ui.conftest import Served, serve
from trainer.errors import StudioError

Answer = tuple[int, str, http.client.HTTPMessage]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A studio with a login."""
    folder = tmp_path_factory.mktemp("locked")
    secret = folder / "login.txt"
    secret.write_text("anna:correct horse\n", encoding="utf-8")
    yield from serve(folder / "home", "--auth-file", str(secret))


def ask(
    studio: Served, path: str, body: bytes | None = None, method: str = "", host: str = "", **headers: str
) -> Answer:
    """One request as it is, with whatever it says of itself."""
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=PATIENCE)
    connection.putrequest(method or ("GET" if body is None else "POST"), path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{studio.port}")
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None and "Content_Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    answer = response.status, response.read().decode("utf-8", "replace"), response.headers
    connection.close()
    return answer


CALL = json.dumps({"data": []}).encode()
UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\nnot a picture\r\n--x--\r\n"
)
FORM = "multipart/form-data; boundary=x"
WRITING = [
    ("/gradio_api/call/create_run", CALL, "application/json"),
    ("/gradio_api/queue/join", CALL, "application/json"),
    ("/gradio_api/run/create_run", CALL, "application/json"),
    ("/gradio_api/upload", UPLOAD, FORM),
    ("/gradio_api/cancel", CALL, "application/json"),
    ("/gradio_api/reset", CALL, "application/json"),
]


def test_an_ordinary_page_of_the_studios_own_is_served(served: Served) -> None:
    assert ask(served, "/")[0] == 200
    assert ask(served, "/", host=f"localhost:{served.port}")[0] == 200
    own = f"http://127.0.0.1:{served.port}"
    status, text, _ = ask(served, "/gradio_api/upload", UPLOAD, Content_Type=FORM, Origin=own)
    assert status == 200, text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "a@b", "[::", "10.9.8.7"]
)
def test_a_name_that_points_here_but_is_not_ours_is_refused(served: Served, host: str) -> None:
    for path in ("/", "/config", "/patina/download/run-1", "/gradio_api/info"):
        status, text, _ = ask(served, path, host=host or " ", Origin=f"http://{host}")
        assert status == 421, (host, path, text)
        # Gradio's own headers may let that page read this sentence, and nothing else.
        assert text.startswith("The studio is not served under this name.")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://[", "file://"])
@pytest.mark.parametrize(("path", "body", "kind"), WRITING)
def test_a_foreign_page_cannot_write(served: Served, origin: str, path: str, body: bytes, kind: str) -> None:
    status, text, _ = ask(served, path, body, Content_Type=kind, Origin=origin)
    assert (status, text) == (403, "A page from elsewhere may not use this studio.")


def test_a_form_of_a_foreign_page_that_sends_no_origin_cannot_write(served: Served) -> None:
    status, _, _ = ask(served, "/gradio_api/upload", UPLOAD, Content_Type=FORM, Sec_Fetch_Site="cross-site")
    assert status == 403


@pytest.mark.parametrize(
    "path",
    [
        "/patina/pictures/runs/%00/images/a.png",
        "/patina/pictures/" + "a" * 5000,
        "/patina/download/" + "b" * 300,
        "/gradio_api/file=" + "c" * 400,
        "/gradio_api/file=/etc/passwd%00.png",
        "/static/%00",
        "/patina/download/x?layout=" + "d" * 5000,
    ],
)
def test_a_name_that_nothing_can_have_is_the_askers_mistake(served: Served, path: str) -> None:
    assert 400 <= ask(served, path)[0] < 500


def test_what_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    status, _, _ = ask(served, "/gradio_api/call/create_run", b"", Content_Length=str(2**30))
    assert status == 413
    status, _, _ = ask(served, "/gradio_api/upload", b"", Content_Type=FORM, Content_Length=str(LARGEST_UPLOAD + 1))
    assert status == 413


def test_parts_of_gradio_that_the_studio_does_not_use_are_not_there(served: Served) -> None:
    for path in ("/gradio_api/vibe-edit/", "/gradio_api/vibe-code/", "/gradio_api/process_recording"):
        assert ask(served, path, CALL, Content_Type="application/json")[0] == 404
    assert ask(served, "/gradio_api/proxy=http://127.0.0.1:1/")[0] == 404


def test_no_listener_makes_the_browser_count_the_time_of_its_outputs(served: Served) -> None:
    """Gradio's progress, hidden or not, would cost a page that follows a training half of its processor time."""
    page = json.loads(ask(served, "/config")[1])
    unseen = {part["id"] for part in page["components"] if part["props"].get("visible") is False}
    assert len(page["dependencies"]) > 20
    assert all(set(each["show_progress_on"] or "?") <= unseen for each in page["dependencies"])


def test_a_hostile_call_costs_one_line_in_the_log(served: Served) -> None:
    before = served.log_file.read_text(encoding="utf-8")
    for path, body, kind in WRITING:
        ask(served, path, body, Content_Type=kind, Origin="null")
    for body in (b"[]", b"{", b'{"data": "x"}', b'{"data": [1, 2, 3, 4, 5, 6, 7, 8]}', b'{"fn_index": 1e99}'):
        ask(served, "/gradio_api/run/list", body, Content_Type="application/json")
    new = served.log_file.read_text(encoding="utf-8")[len(before) :]
    assert "Traceback" not in new
    assert len(new.splitlines()) <= len(WRITING) + 5
    assert new.count("refused (403)") == len(WRITING)


# ---- the login


def log_in(studio: Served, password: str, user: str = "anna") -> Answer:
    body = urlencode({"username": user, "password": password}).encode()
    return ask(studio, "/login", body, Content_Type="application/x-www-form-urlencoded")


def cookie_of(answer: Answer) -> str:
    return "; ".join(part.split(";")[0] for part in answer[2].get_all("Set-Cookie") or [])


def test_without_a_login_nothing_is_done_or_shown(locked: Served) -> None:
    for path, body, kind in WRITING:
        assert ask(locked, path, body, Content_Type=kind)[0] == 401, path
    for path in (
        "/config",
        "/gradio_api/info",
        "/patina/report",
        "/patina/download/x",
        "/patina/pictures/runs/a/sheet.png",
    ):
        assert ask(locked, path)[0] == 401, path
    assert "correct horse" not in ask(locked, "/")[1]


def test_with_the_login_everything_is_there_and_guessing_becomes_slow(locked: Served) -> None:
    entered = log_in(locked, "correct horse")
    assert entered[0] == 200
    assert ask(locked, "/config", Cookie=cookie_of(entered))[0] == 200
    assert ask(locked, "/config", Cookie="access-token-x=1; access-token-unsecure-y=2")[0] == 401
    answers = [log_in(locked, f"guess {number}") for number in range(FREE_TRIES)]
    assert [answer[0] for answer in answers] == [400] * FREE_TRIES

    def waits() -> bool:
        """Whether another guess has to wait, and the right password too."""
        guessed, right = log_in(locked, "another guess"), log_in(locked, "correct horse")
        if guessed[0] == 429:
            assert int(guessed[2]["Retry-After"]) >= 1
        return (guessed[0], right[0]) == (429, 429) and "Try again in" in right[1]

    # Between two requests to a busy machine the wait may be over; then it begins anew, and longer after each guess.
    until(waits)


def test_no_process_shows_the_password(locked: Served) -> None:
    assert locked.process is not None
    mine = psutil.Process(locked.process.pid)
    for process in (mine, *mine.children(recursive=True)):
        assert "correct horse" not in " ".join(process.cmdline())


def test_a_guess_costs_twice_as_long_as_the_one_before_and_success_forgets() -> None:
    now = 0.0
    throttle = Throttle(clock=lambda: now)
    waits = []
    for _ in range(FREE_TRIES + 12):
        throttle.note("a", succeeded=False)
        waits.append(throttle.wait("a"))
    assert waits[: FREE_TRIES + 3] == [0.0] * (FREE_TRIES - 1) + [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_WAIT
    assert throttle.wait("b") == 0.0
    throttle.note("a", succeeded=True)
    assert throttle.wait("a") == 0.0


def test_a_login_keeps_no_password_and_takes_the_same_time_for_both_mistakes() -> None:
    login = Login("anna", "secret")
    assert login("anna", "secret")
    assert not login("anna", "Secret")
    assert not login("\udcff", "secret")
    assert "secret" not in repr(vars(login))


def test_a_login_comes_from_the_environment_and_is_then_gone_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("PATINA_AUTH", "anna:with:colons")
    login = chosen_login(None, None)
    assert login is not None
    assert login("anna", "with:colons")
    assert "PATINA_AUTH" not in os.environ
    assert chosen_login(None, None) is None


def test_a_network_is_served_with_a_login_alone() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2"):
        with pytest.raises(StudioError, match="Ask for a login"):
            demand_login(Address(host, 7860), None)
        demand_login(Address(host, 7860), Login("anna", "secret"))
    demand_login(Address("127.0.0.1", 7860), None)


def test_a_studio_for_the_network_without_a_login_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "--host", "0.0.0.0", "--home", str(tmp_path), "--no-browser"]
    # One that serves does not end.
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 2
    assert "everybody on the network" in run.stderr


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:7860", "127.0.0.1"),
        ("[::1]:7860", "::1"),
        ("LocalHost", "localhost"),
        ("", ""),
        ("a@b", ""),
        ("[", ""),
    ],
)
def test_a_host_header_is_read_with_and_without_a_port(host: str, name: str) -> None:
    assert name_of(host) == name


def test_for_all_networks_the_machines_own_addresses_and_added_names_are_known() -> None:
    assert {"127.0.0.1", "localhost", "::1", "studio.example"} <= hosts_of("0.0.0.0", ("Studio.example",))
    assert hosts_of("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
