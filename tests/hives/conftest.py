import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A cache of its own: what earlier runs have stored would hide what the code does now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUEFLOW_HOME", str(tmp_path_factory.mktemp("home")))
        yield
