import pytest
from pydantic import ValidationError

from service.settings import (
    Settings,
    SettingsError,
    load,
    runtime_environment,
    set_environment,
)


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.http_host, settings.http_port, settings.proxy) == ("127.0.0.1", 8000, "haproxy")
    assert settings.models == ()
    assert settings.max_body_bytes == 8 * 1024 * 1024


def test_each_setting_is_read_from_its_variable() -> None:
    given = {
        "http_host": "10.0.0.1",
        "http_port": "9000",
        "proxy": "python",
        "store": "s3://bucket/models",
        "cache": "/var/cache/atelier",
        "calibrations": "/var/lib/atelier",
        "models": "poet, painter:2,",
        "device": "cuda:1",
        "hosts_file": "hosts.yaml",
        "ray_auth_mode": "disabled",
        "request_timeout_seconds": "30",
        "body_timeout_seconds": "2.5",
        "ready_timeout_seconds": "1",
        "max_body_bytes": "1000",
        "max_body_messages": "10",
    }
    assert given.keys() == Settings.model_fields.keys(), "a new setting belongs in this list"
    settings = Settings.from_environment({f"ATELIER_{name.upper()}": value for name, value in given.items()})
    assert settings.models == ("poet", "painter:2")
    assert settings.http_port == 9000
    assert settings.body_timeout_seconds == 2.5
    defaults = Settings()
    assert all(getattr(settings, name) != getattr(defaults, name) for name in given)


def test_a_child_process_gets_the_same_settings() -> None:
    settings = Settings(
        http_port=9001, models=("poet", "painter"), store="memory://", request_timeout_seconds=5
    )
    variables = settings.to_environment()
    assert variables == {
        "ATELIER_HTTP_PORT": "9001",
        "ATELIER_MODELS": "poet,painter",
        "ATELIER_STORE": "memory://",
        "ATELIER_REQUEST_TIMEOUT_SECONDS": "5.0",
    }
    assert Settings.from_environment(variables) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "http"),
        ("HTTP_PORT", "70000"),
        ("PROXY", "nginx"),
        ("DEVICE", "tpu"),
        ("REQUEST_TIMEOUT_SECONDS", "0"),
        ("REQUEST_TIMEOUT_SECONDS", "nan"),
        ("MAX_BODY_BYTES", "-1"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^ATELIER_{name}: .*\.$"):
        Settings.from_environment({f"ATELIER_{name}": value})


def test_what_kubernetes_injects_beside_a_service_called_atelier_is_no_setting() -> None:
    injected = {"ATELIER_PORT": "tcp://10.0.0.1:8000", "ATELIER_SERVICE_HOST": "10.0.0.1"}
    assert Settings.from_environment(injected) == Settings()


def test_an_empty_variable_is_an_absent_one() -> None:
    assert Settings.from_environment({"ATELIER_STORE": "", "ATELIER_HTTP_PORT": ""}) == Settings()


def test_command_line_options_override_the_environment() -> None:
    settings = Settings(store="memory://").override({"http_port": 9000, "store": None, "models": "poet"})
    assert (settings.http_port, settings.store, settings.models) == (9000, "memory://", ("poet",))
    with pytest.raises(SettingsError, match="--port"):
        settings.override({"http_port": 0})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().http_port = 1


def test_this_process_is_read_and_written_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_HTTP_PORT", "9002")
    assert load().http_port == 9002
    set_environment({"ATELIER_HTTP_PORT": "9003"})
    assert load().http_port == 9003


def test_switches_that_must_be_set_before_anything_starts() -> None:
    assert runtime_environment(Settings()) == {
        "ORT_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.listening:edge_first",
        "RAY_worker_niceness": "0",
    }
    python = runtime_environment(Settings(proxy="python", ray_auth_mode="disabled"))
    assert python["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert python["RAY_AUTH_MODE"] == "disabled"
