"""What docker-compose.yml and the image promise of their users and file systems; no engine is needed to read them."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SERVICES = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_runs_as_root_or_may_become_it(service: str):
    settings = SERVICES[service]
    assert settings["user"].partition(":")[0] not in {"", "0", "root"}
    assert settings["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in settings["security_opt"]
    assert not {"privileged", "cap_add", "pid", "network_mode"} & set(settings)


def test_what_is_ours_cannot_write_its_image():
    for service in ("worker", "topology"):
        settings = SERVICES[service]
        assert settings["read_only"]
        written = {volume.partition(":")[0] for volume in [*settings["tmpfs"], *settings["volumes"]]}
        assert written == {"/tmp", "/spool"}
        assert settings["environment"]["NEARMQ_SPOOL"].startswith("/spool/")


def test_no_port_is_open_to_other_machines():
    ports = [port for settings in SERVICES.values() for port in settings.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_ends_as_the_user_that_owns_the_spool():
    last_stage = (ROOT / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    users = re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE)
    assert users == ["10001:10001"] == [SERVICES["worker"]["user"]]
    assert "--owner nearmq --mode 700 /spool" in last_stage
