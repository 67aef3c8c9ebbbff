"""What a processor module describes: names, keys, sub-topologies, drawings, and the topics it needs."""

from __future__ import annotations

import polars as pl
import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.errors import TopologyError
from streampipe.runtime.topics import needed_topics
from streampipe.topology.describe import describe, mermaid, readable
from streampipe.topology.graph import sub_graphs


def delays() -> Processor:
    p = Processor("delays")
    airlines = p.global_table("airlines", key="carrier")
    weather = p.table("weather", key=("origin", "hour"))
    flights = p.source("flights", event_time="hour")
    departed = flights.filter(pl.col("delay").is_not_null())
    departed.join(airlines, on="carrier").to("named")
    departed.key_by("origin", "hour").join(weather, on=("origin", "hour"), how="left").to("weathered")
    departed.key_by("origin").window(Tumbling("1h", grace="15m")).agg(n=agg.count()).to("hourly")
    return p


def test_repartition_topics_cut_a_topology_and_global_tables_belong_to_no_part() -> None:
    graphs = sub_graphs(delays().topology)
    assert [(g.streams, g.tables) for g in graphs] == [
        (("flights",), ()),
        (("delays-key-by-1-repartition",), ("weather",)),
        (("delays-key-by-2-repartition",), ()),
    ]


def test_names_are_stable_and_do_not_depend_on_nodes_of_other_kinds() -> None:
    names = [n.name for n in delays().topology.nodes]
    assert names == [n.name for n in delays().topology.nodes]
    assert names == [
        "airlines", "weather", "flights", "filter-1", "join-1", "to-named", "key-by-1", "join-2", "to-weathered",
        "key-by-2", "window-1", "to-hourly",
    ]  # fmt: skip


def test_the_description_is_this() -> None:
    assert describe(delays().topology).splitlines() == [
        "Processor delays (version 1)",
        "Global tables",
        "  tablesource        airlines: global table airlines by carrier  -> join-1",
        "Sub-topology 0 (inputs: flights)",
        "  source             flights: topic flights, event time hour  -> filter-1",
        "  filter             filter-1: delay.is_not_null()  -> join-1, key-by-1, key-by-2",
        "  join               join-1: inner join with airlines on carrier  -> to-named",
        "  sink               to-named: topic named",
        "Sub-topology 1 (inputs: delays-key-by-1-repartition, weather)",
        "  tablesource        weather: table weather by origin, hour  -> join-2",
        "  repartition        key-by-1: through delays-key-by-1-repartition, key origin, hour  -> join-2",
        "  join               join-2: left join with weather on origin, hour  -> to-weathered",
        "  sink               to-weathered: topic weathered",
        "Sub-topology 2 (inputs: delays-key-by-2-repartition)",
        "  repartition        key-by-2: through delays-key-by-2-repartition, key origin  -> window-1",
        "  windowedaggregate  window-1: tumbling 1h grace 15m, emit final, late dead_letter: n=count  -> to-hourly",
        "  sink               to-hourly: topic hourly",
        "Dead letters: topic delays-dlq",
    ]


X, K = pl.col("x"), pl.col("k")
READABLE = {
    "x > 5": X > 5,
    '(x > 5) & (k == "a")': (X > 5) & (K == "a"),
    "(x + 1) * (x + 2)": (X + 1) * (X + 2),
    "(x * 2.5) + 1": X * 2.5 + 1,
    "x.is_between(-120, 1440)": X.is_between(-120, 1440),
    "x.is_in([1, 2])": X.is_in([1, 2]),
    'x.is_in(["a", "b"])': X.is_in(["a", "b"]),
    "(x + 1).abs()": (X + 1).abs(),
    '(x / 60).round().alias("h")': (X / 60).round(1).alias("h"),
    '.when((x > 1) | k).then("dyn int: [3]").otherwise(k)':
        pl.when((X > 1) | K).then(pl.lit("dyn int: [3]")).otherwise(K),
    'k.replace(["a"], ["b"])': K.replace({"a": "b"}),
    'col("two words") + 1': pl.col("two words") + 1,
    '"[(a) + (b)]"': pl.lit("[(a) + (b)]"),
    "x": X,
    "null": pl.lit(None),
}  # fmt: skip


@pytest.mark.parametrize("text", READABLE)
def test_expressions_are_described_as_people_write_them(text: str) -> None:
    assert readable(READABLE[text]) == text


def test_mermaid_has_a_node_for_each_node_and_an_edge_for_each_input() -> None:
    topology = delays().topology
    lines = mermaid(topology).splitlines()
    assert lines[0] == "flowchart LR"
    assert sum("-->" in line for line in lines) == sum(len(n.inputs) for n in topology.nodes)
    assert len(lines) == 1 + len(topology.nodes) + sum(len(n.inputs) for n in topology.nodes)


def test_a_repartition_topic_has_as_many_partitions_as_the_table_it_meets_else_as_its_input() -> None:
    counts = {"flights": 4, "weather": 6, "airlines": 1}
    needed = {t.name: t for t in needed_topics(delays().topology, counts)}
    assert needed["delays-key-by-1-repartition"].partitions == 6
    assert needed["delays-key-by-2-repartition"].partitions == 4
    assert needed["delays-window-1-changelog"].partitions == 4
    assert needed["delays-window-1-changelog"].config == {"cleanup.policy": "compact"}
    assert needed["delays-dlq"].partitions == 6
    assert needed["named"].role == "output"


def test_inputs_that_meet_must_have_equal_partition_counts_and_the_repair_is_named() -> None:
    p = Processor("p")
    rows = p.table("rows", key="k")
    p.source("in", key="k").join(rows, on="k").to("out")
    with pytest.raises(TopologyError, match="need the same number of partitions: in has 4, rows has 3; ") as refused:
        needed_topics(p.topology, {"in": 4, "rows": 3})
    assert str(refused.value).endswith(
        "; 'in' brings 4 partitions to 'join-1', which needs 3: write .repartition().join(...) there"
    )


def test_tables_in_a_chain_of_joins_all_need_the_number_of_the_largest() -> None:
    p = Processor("p")
    a, b, c = (p.table(topic, key="k") for topic in "abc")
    a.join(b).to("ab")
    b.join(c).to("bc")
    p.source("in", key="k").join(a, on="k", name="look").to("out")
    with pytest.raises(TopologyError) as refused:
        needed_topics(p.topology, {"a": 2, "b": 2, "c": 6, "in": 2})
    _, *repairs = str(refused.value).split("; ")
    assert [repair.split(":")[0] for repair in repairs] == [
        "table topic 'a' has 2 partitions and needs 6",
        "table topic 'b' has 2 partitions and needs 6",
        "'in' brings 2 partitions to 'look', which needs 6",
    ]


def test_repartition_takes_the_number_of_partitions_that_it_meets_else_that_of_its_input() -> None:
    p = Processor("p")
    stream = p.source("in", key="k")
    stream.repartition().join(p.table("rows", key="k"), on="k").to("out")
    stream.repartition(name="again").agg(n=agg.count()).to("counts")
    needed = {t.name: t.partitions for t in needed_topics(p.topology, {"in": 4, "rows": 3})}
    assert (needed["p-repartition-1-repartition"], needed["out"]) == (3, 3)
    assert (needed["p-again-repartition"], needed["p-agg-1-changelog"]) == (4, 4)


def test_an_input_that_was_made_anew_decides_and_not_what_repartition_topics_of_before_have() -> None:
    p = Processor("p")
    joined = p.source("in", key="k").join(p.source("x").key_by("k"), on="k", within=1)
    joined.join(p.source("y").key_by("k"), on="k", within=1).to("out")
    of_before = {"p-key-by-1-repartition": 8, "p-key-by-2-repartition": 8}
    needed = {t.name: t.partitions for t in needed_topics(p.topology, {"in": 4, "x": 8, "y": 8} | of_before)}
    assert {needed[topic] for topic in of_before} == {4}


def test_a_sub_topology_may_come_before_and_after_another_one() -> None:
    p = Processor("p")
    a, b = p.source("in", key="k").branch(pl.col("x") > 1, pl.lit(True))
    a.repartition().join(p.table("rows", key="k"), on="k").repartition().join(b, on="k", within=1).to("out")
    needed = {t.name: t.partitions for t in needed_topics(p.topology, {"in": 4, "rows": 3})}
    assert (needed["p-repartition-1-repartition"], needed["p-repartition-2-repartition"]) == (3, 4)


def test_a_repartition_says_what_the_key_is_or_that_it_stays() -> None:
    p = Processor("p")
    p.source("in", key="k").repartition().key_by("x").to("out")
    text = describe(p.topology)
    assert "repartition        repartition-1: through p-repartition-1-repartition, key unchanged  -> key-by-1" in text
    assert "repartition        key-by-1: through p-key-by-1-repartition, key x  -> to-out" in text


def test_a_renamed_topology_shares_no_topic_that_the_live_one_writes() -> None:
    counts = {"flights": 4, "weather": 4, "airlines": 1}
    live = {t.name for t in needed_topics(delays().topology, counts)}
    replayed = {t.name for t in needed_topics(delays().topology.renamed("-again"), counts)}
    assert not live & replayed
    assert "hourly-again" in replayed
    assert "delays-again-window-1-changelog" in replayed


def test_key_by_the_key_it_has_already_needs_no_repartition() -> None:
    p = Processor("p")
    p.source("in", key="k").filter(pl.col("x") > 1).key_by("k").to("out")
    assert len(sub_graphs(p.topology)) == 1


def test_a_key_column_that_is_replaced_or_dropped_is_no_longer_known_as_the_key() -> None:
    p = Processor("p")
    s = p.source("in", key="k")
    assert s.with_columns(pl.col("x").alias("k")).node.key is None
    assert s.select("x").node.key is None
    assert s.select("k", "x").node.key == ("k",)
    assert s.handle(dict).node.key is None


@pytest.mark.parametrize(
    ("describe_it", "message"),
    [
        (lambda p: Processor("bad name"), "letters, digits"),
        (lambda p: p.source(".."), "letters, digits"),
        (lambda p: p.topology, r"writes nothing.*\.to\(topic\)"),
        (lambda p: p.source("in").expect(), "at least one rule"),
        (lambda p: p.source("in").key_by(), "at least one column"),
        (lambda p: p.source("in").join(p.table("t", key="k"), on="k"), r"key_by\('k'\).*global_table"),
        (lambda p: p.source("in").join(p.global_table("t", key=("a", "b")), on="a"), r"its key has 2 column"),
        (
            lambda p: p.source("in").key_by("x", "y").repartition().join(p.table("t", key=("a", "b")), on=("x", "y")),
            r"with_columns\(a=pl.col\('x'\), b=pl.col\('y'\)\).key_by\('a', 'b'\) before",
        ),
        (lambda p: p.source("in", key="k").window(Tumbling(1)).agg(), "at least one aggregate"),
        (lambda p: (p.source("in").filter(pl.col("x"), name="f"), p.source("in").filter(pl.col("x"), name="f")), "two"),
    ],
)
def test_what_makes_no_sense_is_refused_while_it_is_described(describe_it: object, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        describe_it(Processor("p"))  # type: ignore[operator]
