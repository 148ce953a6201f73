from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.sites.registry.challenge import Challenge, best_challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "reg",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ("Basic realm=harbor", [("basic", {"realm": "harbor"})]),
        ('BASIC Realm = "x"', [("basic", {"realm": "x"})]),
        ('Basic realm="a \\"b\\" \\\\"', [("basic", {"realm": 'a "b" \\'})]),
        (
            'Basic realm="r", charset="UTF-8", Bearer realm="https://t",error="invalid_token"',
            [
                ("basic", {"realm": "r", "charset": "UTF-8"}),
                ("bearer", {"realm": "https://t", "error": "invalid_token"}),
            ],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Negotiate YWJj==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ('Bearer realm="",service=""', [("bearer", {"realm": "", "service": ""})]),
        ('"; Basic realm=x', [("basic", {"realm": "x"})]),
        ("", []),
    ],
)
def test_challenges_are_read_as_registries_write_them(
    header: str, expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == expected


def test_repeated_headers_are_all_read_in_order() -> None:
    found = parse_challenges(["Basic realm=x", 'Bearer realm="https://t"'])
    assert [c.scheme for c in found] == ["basic", "bearer"]


def test_bearer_with_a_realm_goes_before_basic() -> None:
    best = best_challenge(parse_challenges(['Basic realm=x, Bearer realm="https://t"']))
    assert best is not None
    assert best.realm == "https://t"


def test_bearer_without_a_realm_is_of_no_use() -> None:
    assert best_challenge([Challenge("bearer"), Challenge("negotiate")]) is None


def test_scopes_are_parted_by_spaces() -> None:
    [challenge] = parse_challenges(['Bearer realm="t",scope="repository:a:pull  repository:b:pull,push"'])
    assert challenge.scopes == ("repository:a:pull", "repository:b:pull,push")


@given(st.text(max_size=200))
def test_no_header_breaks_the_reading(text: str) -> None:
    for challenge in parse_challenges([text]):
        assert challenge.scheme == challenge.scheme.lower() != ""


_NAME = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)
_VALUE = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


@given(st.lists(st.tuples(_NAME, st.dictionaries(_NAME, _VALUE, max_size=4)), max_size=3))
def test_what_is_written_by_the_grammar_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        scheme
        + (" " if parameters else "")
        + ",".join(f"{name}={quoted(v)}" for name, v in parameters.items())
        for scheme, parameters in challenges
    )
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == challenges
