import pytest

from traforo.cli.commands import port
from traforo.sdk import PortUrl

PATH = "http://worker:8081/sandboxes/sbx_1/proxy/80"
LOCAL, OWN = "http://80-abc.localhost:8081", "https://80-abc.sandboxes.example"


@pytest.mark.parametrize(
    "host_url,token,public,path,host,expected",
    [
        (LOCAL, None, False, "", False, PATH),
        (LOCAL, None, False, "/a", False, f"{PATH}/a"),
        (LOCAL, None, False, "", True, LOCAL),
        (None, None, False, "", True, PATH),
        (OWN, None, False, "", False, OWN),
        (OWN, None, False, "a?b", False, f"{OWN}/a?b"),
        (OWN, "t&t", False, "", False, f"{OWN}/?traforo_traffic_token=t%26t"),
        (LOCAL, "t", False, "", False, f"{PATH}?traforo_traffic_token=t"),
        (LOCAL, "t", False, "/a?b=c#d", False, f"{PATH}/a?b=c&traforo_traffic_token=t"),
        (LOCAL, "t", True, "/a", False, f"{PATH}/a"),
    ],
)
def test_a_url_opens_by_itself(
    host_url: str | None, token: str | None, public: bool, path: str, host: bool, expected: str
) -> None:
    """With the token where one is asked for, by the host name where the server has a domain that others can reach."""
    where = PortUrl("sbx_1", 80, "http", PATH, host_url, token, public)
    assert port._opening(where, path, host=host) == expected
