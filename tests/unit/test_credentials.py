import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.flags import AgentFlags
from portslice.agent.policy import READONLY, READWRITE, PolicyError, policy
from portslice.credentials import Credential, Credentials
from portslice.errors import ParseError

ONE = '{"credentials":[{"principal":"ops","secret":"swordfish"}]}'
texts = st.text(min_size=1).filter(lambda text: ":" not in text)


@given(st.dictionaries(texts, st.text(min_size=1), min_size=1), texts, st.text())
def test_exactly_the_listed_pairs_are_admitted(pairs: dict[str, str], principal: str, secret: str) -> None:
    listed = [{"principal": name, "secret": value} for name, value in pairs.items()]
    credentials = Credentials.parse(json.dumps({"credentials": listed}))
    assert all(credentials.admit(*pair) for pair in pairs.items())
    assert credentials.admit(principal, secret) == (pairs.get(principal) == secret)


def test_another_principals_secret_is_not_ones_own() -> None:
    both = [{"principal": "a", "secret": "1"}, {"principal": "b", "secret": "2"}]
    credentials = Credentials.parse(json.dumps({"credentials": both}))
    assert not credentials.admit("a", "2")
    assert not credentials.admit("b", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ops swordfish", "Failed to parse JSON"),
        ("[]", "Expecting"),
        ('{"credentials":{}}', "Expecting"),
        ('{"credentials":[]}', "at least one"),
        ('{"credentials":["ops"]}', "'principal'"),
        ('{"credentials":[{"secret":"swordfish"}]}', "'principal'"),
        ('{"credentials":[{"principal":7,"secret":"swordfish"}]}', "'principal'"),
        ('{"credentials":[{"principal":"ops"}]}', "'ops' needs a 'secret'"),
        ('{"credentials":[{"principal":"ops","secret":""}]}', "'ops' needs a 'secret'"),
        ('{"credentials":[{"principal":"o:ps","secret":"swordfish"}]}', "has a ':'"),
        ('{"credentials":[{"principal":"a","secret":"swordfish"},{"principal":"a","secret":"2"}]}', "twice"),
    ],
)
def test_what_is_no_credentials_is_refused_without_showing_secrets(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        Credentials.parse(text)
    assert "swordfish" not in str(caught.value)


def test_credentials_do_not_show_themselves() -> None:
    assert "swordfish" not in repr(Credentials.parse(ONE))


def test_flags_become_a_policy() -> None:
    flags = AgentFlags(
        http_credentials=Credentials.parse(ONE), authenticate_http_readonly=True, http_users=" nobody , daemon"
    )
    found = policy(flags)
    assert found.realms == {READONLY}
    assert found.users == ("nobody", "daemon")
    assert not found.open_files
    assert policy(AgentFlags()).credentials is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (AgentFlags(authenticate_http_readonly=True), f"No credentials provided .* realm '{READONLY}'"),
        (AgentFlags(authenticate_http_readwrite=True), f"No credentials provided .* realm '{READWRITE}'"),
        (AgentFlags(http_users="root"), "may not name 'root'"),
        (AgentFlags(http_users="nobody,no-such-user"), "There is no user 'no-such-user'"),
        (AgentFlags(http_users=" , "), "names nobody"),
    ],
)
def test_flags_that_make_no_policy(flags: AgentFlags, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        policy(flags)


def test_cram_md5_as_in_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    answer = b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert Credential.of("tim", "tanstaaftanstaaf").respond(challenge) == answer
    listed = [{"principal": "tom", "secret": "t"}, {"principal": "tim", "secret": "tanstaaftanstaaf"}]
    credentials = Credentials.parse(json.dumps({"credentials": listed}))
    assert credentials.prove(challenge, answer) == "tim"
    for wrong in (answer[:-1], answer.upper(), answer.replace(b"tim", b"tom"), answer + b" ", b"", b"\xff"):
        assert credentials.prove(challenge, wrong) is None
    assert credentials.prove(b"<another>", answer) is None


@given(texts, st.text(min_size=1), st.text(min_size=1), st.binary())
def test_who_knows_the_secret_and_nobody_else_proves_it(principal: str, secret: str, other: str, data: bytes) -> None:
    credentials = Credentials.parse(json.dumps({"credentials": [{"principal": principal, "secret": secret}]}))
    assert credentials.prove(data, Credential.of(principal, secret).respond(data)) == principal
    if secret.rstrip("\0") != other.rstrip("\0"):  # HMAC fills up keys with zero bytes
        assert credentials.prove(data, Credential.of(principal, other).respond(data)) is None


@pytest.mark.parametrize(
    "text", ['{"principal":"ops","secret":"swordfish"}', "ops swordfish", "\nops\tswordfish \r\n\n"]
)
def test_a_credential_is_json_or_two_words(text: str) -> None:
    credential = Credential.parse(text)
    assert credential.principal == "ops"
    assert credential.respond(b"x") == Credential.of("ops", "swordfish").respond(b"x")
    assert "swordfish" not in repr(credential)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting only one credential"),
        ("ops swordfish\nothers swordfish", "Expecting only one credential"),
        ("swordfish", "Invalid credential format at line 1"),
        ("ops my swordfish", "Invalid credential format at line 1"),
        ("{swordfish", "Failed to parse JSON"),
        ('["swordfish"]', "'principal'"),
        ('{"principal":"ops","secret":["swordfish"]}', "'ops' needs a 'secret'"),
    ],
)
def test_what_is_no_credential(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        Credential.parse(text)
    assert "swordfish" not in str(caught.value)


def test_a_masters_credentials_may_be_lines() -> None:
    credentials = Credentials.parse_any("ops swordfish\n\njobs  work\n")
    assert credentials.admit("ops", "swordfish")
    assert credentials.admit("jobs", "work")
    assert Credentials.parse_any(ONE).admit("ops", "swordfish")
    for text, message in (("ops swordfish\njobs", "line 2"), ("a 1\na 2", "twice"), ("", "Failed to parse JSON")):
        with pytest.raises(ParseError, match=message):
            Credentials.parse_any(text)
