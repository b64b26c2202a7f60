from extproc.lab.rivals.as_in_production import request_of
from extproc.lab.traffic.arrivals import Arrival


def test_the_chain_of_a_simulated_prompt_is_cut_as_a_real_one() -> None:
    def chain(prompt_tokens: int, content: tuple[int, ...] = tuple(range(1000, 1300))) -> tuple[int, ...]:
        arrival = Arrival(0.0, prompt_tokens, 1, content=content)
        return request_of(arrival, knows_adapters=False).prefix

    assert chain(127) == ()
    assert chain(256) == (1007, 1015)
    assert chain(1024, content=()) == ()
