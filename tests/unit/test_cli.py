from __future__ import annotations

import errno
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from trainer.cli import COMMANDS, app
from trainer.cli.mending import mending
from trainer.cli.options import SETTINGS, flag, given, names_of
from trainer.cli.progress import duration, size
from trainer.cli.sample import Column, columns_of, size_of, strengths_of
from trainer.cli.style_files import style_of
from trainer.config import assignment, settings
from trainer.errors import ConfigError, ImageError

runner = CliRunner()


def ends(error: BaseException, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that fails with an error."""
    with pytest.raises(typer.Exit) as caught, mending(as_json=as_json):
        raise error
    said = capsys.readouterr()
    return caught.value.exit_code, said.out, said.err


# ---- arguments


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("ink.safetensors", "ink.safetensors", 1.0),
        ("ink.safetensors:0.8", "ink.safetensors", 0.8),
        ("ink.safetensors:-1", "ink.safetensors", -1.0),
        (r"C:\styles\ink.safetensors", r"C:\styles\ink.safetensors", 1.0),
        (r"C:\styles\ink.safetensors:0.5", r"C:\styles\ink.safetensors", 0.5),
        ("odd:name", "odd:name", 1.0),
        ("a:b/ink.safetensors", "a:b/ink.safetensors", 1.0),
    ],
)
def test_a_style_may_carry_its_strength(text: str, path: str, strength: float) -> None:
    style, own = style_of(text)
    assert (Path(style.path), style.name, own) == (Path(path), Path(path).stem, strength)


@pytest.mark.parametrize("text", ["ink.safetensors:", "ink.safetensors:strong", "ink.safetensors:nan", "x:inf"])
def test_a_strength_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"its strength should be a number, such as .*:0\.8"):
        style_of(text)


def test_strengths_are_a_list() -> None:
    assert strengths_of("0, 0.5,1,") == [0, 0.5, 1]
    for wrong in ("", ",", "a", "0;1", "nan", "0,inf"):
        with pytest.raises(ConfigError, match=r"^--strength is"):
            strengths_of(wrong)


def test_a_size_is_one_side_or_two() -> None:
    assert [size_of(text) for text in ("", "512", "512x768", "512 X 768", "64×64")] == [
        (0, 0),
        (512, 512),
        (512, 768),
        (512, 768),
        (64, 64),
    ]
    for wrong in ("x", "512x", "0", "-8", "5000", "1x2x3", "a", "²", "9" * 5000):
        with pytest.raises(ConfigError, match=r"^--size is"):
            size_of(wrong)


def test_columns_are_strengths_of_the_mix_or_the_styles_one_by_one() -> None:
    uses = [style_of("a.safetensors"), style_of("b.safetensors:0.5")]
    assert columns_of([], [0, 1], compare=False) == [Column("base", ())]
    assert columns_of(uses, [0, 2], compare=False) == [
        Column("strength 0", (0.0, 0.0)),
        Column("strength 2", (2.0, 1.0)),
    ]
    assert columns_of(uses, [1], compare=True) == [
        Column("base", (0.0, 0.0)),
        Column("a", (1.0, 0.0)),
        Column("b", (0.0, 0.5)),
    ]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optim.ema_decay=0.99", "optim.ema_decay", 0.99),
        ("data.flip=true", "data.flip", True),
        ("export.author=Anna", "export.author", "Anna"),
        ("export.author = a = b", "export.author", "a = b"),
        ('samples.prompts=["a", "b"]', "samples.prompts", ["a", "b"]),
    ],
)
def test_any_setting_can_be_set(text: str, path: str, value: object) -> None:
    assert assignment(text) == (path, value)


@pytest.mark.parametrize("text", ["optim.ema_decay", "=3", " = 3"])
def test_what_sets_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"should look like optim\.ema_decay=0\.99"):
        assignment(text)


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.steps=" + "9" * 5000, "--set train.steps should be a smaller number."),
        ("samples.prompts=" + DEEP, "--set samples.prompts is nested too deeply to be read."),
        ("train.\x1b[31msteps", "--set train.\\x1b[31msteps should look like optim.ema_decay=0.99."),
    ],
)
def test_a_value_that_no_setting_could_take_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assignment(text)
    assert str(caught.value) == said


@pytest.mark.skipif(sys.platform == "win32", reason="its own limit on a path's length is another error")
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", ".", "--out", "o" * 300],
        ["train", "--resume", "o" * 300],
        ["train", ".", "--config", "o" * 300],
        ["train", "i" * 300],
        ["train", ".", "--set", "train.steps=0x" + "9" * 5000],
        ["train", ".", "--set", 'base.source="a\\u0000b"'],
        ["train", "--set", 'data.images="a\\u0000b"'],
        ["train", ".", "--set", "a." * 3000 + "b=1"],
        ["train", ".", "--name", "\x1b[31mred"],
        ["sample", "--prompt", "x", "--out", "o" * 300 + ".png"],
        ["export", "a.safetensors", "--out", "o" * 300 + ".safetensors"],
        ["inspect", "o" * 300],
    ],
    ids=lambda arguments: " ".join(word[:12] for word in arguments),
)
def test_whatever_is_written_ends_in_a_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    said = runner.invoke(app, arguments)
    assert said.exit_code == 2, said.output
    (line,) = said.output.splitlines()
    assert line.startswith("patina: ")
    assert line.isprintable()
    assert "did not expect" not in line


def test_options_stand_for_settings_that_exist() -> None:
    assert set(SETTINGS.values()) <= set(settings())
    asked = given({"rank": "4", "prompt": [], "offline": None, "batch_size": "2", "images": "x"})
    assert asked == {"adapter.rank": "4", "optim.batch_size": "2"}
    assert names_of(asked) == {"adapter.rank": "--rank", "optim.batch_size": "--batch-size"}


# ---- help


def test_the_console_script_is_this_app(repository: Path) -> None:
    scripts = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts["patina"] == "trainer.cli:main"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "studio"])
def test_every_command_has_help(command: str) -> None:
    shown = runner.invoke(app, [command, "--help"], prog_name="patina")
    assert shown.exit_code == 0
    assert f"Usage: patina {command}" in shown.output


def test_help_of_train_says_what_the_settings_say() -> None:
    shown = " ".join(runner.invoke(app, ["train", "--help"], prog_name="patina", env={"COLUMNS": "200"}).output.split())
    for parameter, path in SETTINGS.items():
        assert flag(parameter) in shown
        assert " ".join(settings()[path].help.split()[:4]) in shown
    assert "--preset quick|balanced|thorough" in shown
    assert "--rank INTEGER" in shown


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from trainer.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "heavy = {'torch', 'numpy', 'PIL', 'diffusers', 'transformers', 'gradio', 'pydantic', 'rich'}\n"
        "print('loaded', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert "loaded []" in done.stdout


def test_a_misspelt_command_or_option_is_told_the_near_one() -> None:
    said = runner.invoke(app, ["trian"])
    assert said.exit_code == 2
    assert "did you mean 'train'?" in said.output
    said = runner.invoke(app, ["train", "x", "--rnk", "3"])
    assert said.exit_code == 2
    assert "--rank" in said.output


def test_more_cards_than_there_are_is_a_sentence_before_a_run_is_made(tmp_path: Path) -> None:
    out, settings = tmp_path / "run", tmp_path / "many.toml"
    settings.write_text("[train]\ngpus = 60\n")
    for more in (["--gpus", "60"], ["--config", str(settings)]):
        said = runner.invoke(app, ["train", str(tmp_path), "--out", str(out), *more])
        assert said.exit_code == 2
        assert "--gpus is 60, but PyTorch finds" in said.output
    assert (
        "--gpus is '0', but should be at least 1" in runner.invoke(app, ["train", str(tmp_path), "--gpus", "0"]).output
    )
    assert not out.exists()


def test_the_version_is_said() -> None:
    from trainer import __version__

    assert runner.invoke(app, ["--version"]).output.strip() == f"patina {__version__}"


# ---- endings


def test_what_the_user_can_mend_is_one_sentence_and_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(ImageError("a.png is empty."), capsys) == (2, "", "patina: a.png is empty.\n")


def test_machines_get_the_sentence_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ends(ImageError('a "b" is empty.'), capsys, as_json=True)
    assert code == 2
    assert out == '{"type": "error", "message": "a \\"b\\" is empty."}\n'


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(KeyboardInterrupt(), capsys)[0] == 130


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "The disk is full and /data/x cannot be written"), (errno.EACCES, "You may not read or write")],
)
def test_a_full_disk_and_missing_rights_are_sentences(
    number: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = ends(OSError(number, "what the system says", "/data/x"), capsys)
    assert code == 2
    assert said in err


def test_a_bug_is_one_line_and_its_traceback_a_log(
    patina_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = ends(ZeroDivisionError("division by zero\nand a second line"), capsys)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "ZeroDivisionError: division by zero" in err
    (log,) = (patina_home / "logs").iterdir()
    assert str(log) in err
    text = log.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "second line" in text


def test_a_bug_is_logged_elsewhere_when_the_studio_folder_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("PATINA_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert str(tmp_path) in ends(ValueError("odd"), capsys)[2]
    assert len(list(tmp_path.glob("patina-error-*.log"))) == 1


def test_a_reader_that_has_gone_is_no_error() -> None:
    with pytest.raises(BrokenPipeError), mending():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_numbers_are_said_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 60, 200, 3000, 7500)] == [
        "0 s",
        "59 s",
        "1 min",
        "3 min 20 s",
        "50 min",
        "2 h 5 min",
    ]
    assert [size(count) for count in (1024, 3 * 2**20, 5 * 2**29)] == ["1 KiB", "3.0 MiB", "2.5 GiB"]


@pytest.mark.parametrize(("encoded", "error"), [(True, KeyboardInterrupt), (False, KeyboardInterrupt), (True, OSError)])
def test_only_a_run_that_is_interrupted_keeps_what_it_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoded: bool, error: type[BaseException]
) -> None:
    from trainer.cli.train import _begun
    from trainer.config import parse

    images = tmp_path / "images"
    images.mkdir()
    (images / "one.png").write_bytes(b"not looked at")

    def interrupted() -> None:
        with _begun(parse({"data": {"images": str(images)}}), tmp_path / "run", None) as folder:
            (folder.cache / "latents").mkdir(parents=True)
            if encoded:
                (folder.cache / "latents" / "one.safetensors").write_bytes(b"latents")
            raise error

    with pytest.raises(error):
        interrupted()
    kept = encoded and error is KeyboardInterrupt
    assert (tmp_path / "run" / "cache" / "latents" / "one.safetensors").is_file() is kept
    assert (
        "The images that were encoded are kept. Go on with: patina train --resume" in capsys.readouterr().err
    ) is kept
