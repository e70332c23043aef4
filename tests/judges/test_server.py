import pytest

from valueflow.judges.server import cleared, host_of


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.openai.com/v1", "api.openai.com"),
        ("http://localhost:8000/v1", "local"),
        ("http://127.0.0.1:11434/v1", "local"),
        ("http://127.9.9.9/v1", "local"),
        ("http://[::1]:1/v1", "local"),
        ("http://0.0.0.0:8000/v1", "local"),
        ("http://10.0.0.7:8000/v1", "10.0.0.7"),
        ("https://LOCALHOST.example.com/v1", "localhost.example.com"),
    ],
)
def test_hosts_are_told_apart_and_ports_are_not(url, host):
    assert host_of(url) == host


def test_a_key_is_cleared_and_a_placeholder_is_no_key():
    assert cleared("a sk-12345678 b sk-12345678", "sk-12345678") == "a [key] b [key]"
    assert cleared("the list is EMPTY, or none", "EMPTY") == "the list is EMPTY, or none"
