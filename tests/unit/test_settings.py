"""Where the command line's settings come from, and which of two wins."""

from pathlib import Path

import pytest

from nearmq import settings
from nearmq.errors import InvalidArgument


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "user" / "nearmq").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    return tmp_path


def read(home: Path, environment: dict[str, str] | None = None, config: Path | None = None) -> dict[str, str]:
    return settings.read(home / "project", {"XDG_CONFIG_HOME": str(home / "user")} | (environment or {}), config)


def test_environment_wins_over_dotenv_over_project_over_user(home: Path):
    (home / "user/nearmq/nearmq.toml").write_text('threads = 1\nstore = "u"\nurl = "u"\ncache = "u"\n')
    (home / "project/nearmq.toml").write_text('store = "p"\nurl = "p"\ncache = "p"\n')
    (home / "project/.env").write_text("NEARMQ_URL=d\nNEARMQ_CACHE=d\n")
    found = read(home, {"NEARMQ_CACHE": "e"})
    assert found == {"NEARMQ_THREADS": "1", "NEARMQ_STORE": "p", "NEARMQ_URL": "d"}


def test_a_config_file_replaces_the_projects_and_must_exist(home: Path):
    (home / "project/nearmq.toml").write_text('store = "p"\nprefetch = 7\n')
    other = home / "other.toml"
    with pytest.raises(InvalidArgument, match="does not exist"):
        read(home, config=other)
    other.write_text('log-level = "debug"\n')
    assert read(home, config=other) == {"NEARMQ_LOG_LEVEL": "debug"}


def test_a_secret_comes_from_a_file_of_its_own_at_the_same_precedence(home: Path):
    (home / "secret").write_text("amqp://user:$ecret@broker\n")
    (home / "project/.env").write_text("NEARMQ_URL=amqp://lower\n")
    found = read(home, {"NEARMQ_URL_FILE": str(home / "secret")})
    assert found["NEARMQ_URL"] == "amqp://user:$ecret@broker"
    assert "NEARMQ_URL" not in read(home, {"NEARMQ_URL": "amqp://wins"})


def test_a_secret_given_twice_in_one_place_is_refused_without_showing_it(home: Path):
    (home / "project/nearmq.toml").write_text('url = "amqp://user:pass@broker"\nurl_file = "secret"\n')
    with pytest.raises(InvalidArgument, match="NEARMQ_URL_FILE") as caught:
        read(home)
    assert "pass" not in str(caught.value)


def test_a_password_in_dotenv_is_taken_as_written(home: Path):
    (home / "project/.env").write_text("NEARMQ_URL='amqp://user:a${HOME}b@broker'\n")
    assert read(home, {"HOME": "/nowhere"})["NEARMQ_URL"] == "amqp://user:a${HOME}b@broker"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[worker]\nthreads = 1\n", "worker is of type dict, expected a string, number or boolean"),
        ("threads =", "cannot be read"),
    ],
)
def test_what_is_no_setting_in_a_file_is_an_error_that_names_the_file(home: Path, content: str, message: str):
    (home / "project/nearmq.toml").write_text(content)
    with pytest.raises(InvalidArgument, match=rf"nearmq\.toml.*{message}"):
        read(home)


def test_a_mistyped_setting_is_named_with_the_nearest_one():
    known = {"NEARMQ_STORE", "NEARMQ_THREADS"}
    assert settings.unknown({"NEARMQ_STOER": "x", "NEARMQ_URL_FILE": "x", "PATH": "x"}, known) == [
        "NEARMQ_STOER is no setting, did you mean NEARMQ_STORE"
    ]
