"""Who is let in when all places are taken, and who gives way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.http.connections import Connections


def test_an_idle_connection_gives_way_the_longest_idle_first() -> None:
    connections = Connections(2)
    assert connections.admit("a", "peer") == (True, None)
    assert connections.admit("b", "peer") == (True, None)
    connections.begin("a")
    connections.end("a", trusted=False)
    assert connections.admit("c", "peer") == (True, "b")


def test_one_that_has_shown_the_token_gives_way_last_and_the_peer_with_most_first() -> None:
    connections = Connections(4)
    for key, peer in (("owner", "x"), ("alone", "y"), ("one", "z"), ("two", "z")):
        connections.admit(key, peer)
    connections.end("owner", trusted=True)
    assert connections.admit("new", "v") == (True, "one")
    assert connections.admit("newer", "w") == (True, "alone")


def test_where_every_connection_serves_a_request_the_newcomer_is_refused() -> None:
    connections = Connections(1)
    connections.admit("a", "peer")
    connections.begin("a")
    assert connections.admit("b", "peer") == (False, None)
    connections.leave("a")
    assert connections.admit("b", "peer") == (True, None)


def test_requests_of_strangers_leave_room_for_other_peers_for_the_token_and_for_health() -> None:
    connections = Connections(64)
    keys = iter(range(1000))

    def begins(peer: str, *, trusted: bool = False, reserved: bool = False) -> bool:
        key = next(keys)
        admitted, _ = connections.admit(key, peer)
        return admitted and connections.begin(key, trusted=trusted, reserved=reserved)

    flood = sum(begins("flood") for _ in range(200))
    assert 0 < flood < 64
    assert begins("another")
    many = flood + 1 + sum(begins(f"peer {number}") for number in range(200))
    assert many < 60
    assert not begins("late")
    trusted = sum(begins("flood", trusted=True) for _ in range(200))
    assert trusted > 10
    assert many + trusted == 60
    assert begins("flood", reserved=True)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "begin", "end", "trust", "leave"]), st.integers(0, 9), st.integers(0, 2)
    )
)


@given(st.integers(1, 5), _STEPS)
def test_there_are_never_too_many_and_nobody_is_closed_in_a_request(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    connections, busy, inside = Connections(limit), set[int](), set[int]()
    for step, key, peer in steps:
        match step:
            case "admit" if key not in inside:
                admitted, victim = connections.admit(key, str(peer))
                assert victim not in busy
                assert admitted or inside == busy
                inside -= {victim}
                inside |= {key} if admitted else set()
            case "begin" if key in inside:
                if connections.begin(key, trusted=peer == 1, reserved=peer == 2):
                    busy.add(key)
            case "end" | "trust":
                connections.end(key, trusted=step == "trust")
                busy.discard(key)
            case "leave":
                connections.leave(key)
                busy.discard(key)
                inside.discard(key)
        assert len(connections) == len(inside) <= limit
