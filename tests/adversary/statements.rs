//! SQL that one may send and that wants more than there is: a grammar, told by a seed.
//!
//! Every kind is a function of [`KINDS`]. Much of it is refused with 400 or 422, and may be: what counts is when, and what
//! it took until then.

use crate::kill::random::{Random, pick};

/// A kind's name, and what makes one.
pub type Kind = (&'static str, fn(&mut Random) -> String);

/// Every kind of statement.
pub const KINDS: [Kind; 24] = [
    ("plain", plain),
    ("growing", growing),
    ("growing of a column", growing_of_a_column),
    ("growing arrays", growing_arrays),
    ("odd casts", odd_casts),
    ("slow functions", slow_functions),
    ("slow patterns", slow_patterns),
    ("doubling", doubling),
    ("doubling of columns", doubling_of_columns),
    ("grouping sets", grouping_sets),
    ("cross joins", cross_joins),
    ("nested in", nested_in),
    ("long lists", long_lists),
    ("windows", windows),
    ("unions", unions),
    ("wide", wide),
    ("gathering", gathering),
    ("deep", deep),
    ("sorting", sorting),
    ("rows from nothing", rows_from_nothing),
    ("recursion", recursion),
    ("correlated", correlated),
    ("about statements", about_statements),
    ("grammar", grammar),
];

/// One statement and its kind.
pub fn statement(random: &mut Random) -> (&'static str, String) {
    let (kind, make) = KINDS[random.below(KINDS.len() as u64) as usize];
    (kind, make(random))
}

const TABLES: [&str; 4] = ["events", "spans", "logs", "latency"];
const TEXTS: [&str; 6] = ["id", "source", "message", "event_type", "correlation_id", "severity"];
const NUMBERS: [&str; 5] = ["time_ns", "seq", "duration_ns", "severity_number", "n"];

fn many(random: &mut Random, max: u64) -> u64 {
    1 + (max as f64).powf(random.unit()) as u64
}

fn list(count: u64, one: impl Fn(u64) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(", ")
}

fn plain(random: &mut Random) -> String {
    match random.below(5) {
        0 => "select 1".into(),
        1 => format!("select count(*) from {}", pick(random, &TABLES)),
        2 => format!("select * from events order by time desc limit {}", many(random, 1_000)),
        3 => "select source, count(*), avg(duration_ns) from events group by source".into(),
        _ => format!("select * from events where correlation_id = 'c-{}'", random.below(100)),
    }
}

/// A text of text of text.
fn growing(random: &mut Random) -> String {
    format!("select {}", grown("'x'", 2 + random.below(5), random))
}

fn growing_of_a_column(random: &mut Random) -> String {
    let grown = grown(TEXTS[random.below(6) as usize], 1 + random.below(3), random);
    match random.below(3) {
        0 => format!("select {grown} from events"),
        1 => format!("select length({grown}) from events"),
        _ => format!("select count(*) from events where {grown} = 'x'"),
    }
}

fn grown(of: &str, depth: u64, random: &mut Random) -> String {
    let mut text = of.to_owned();
    for _ in 0..depth {
        let n = *pick(random, &[2, 10, 100, 1_000, 9_999, 10_000, 1_000_000, 2_000_000_000]);
        text = match random.below(13) {
            0 | 1 => format!("repeat({text}, {n})"),
            2 => format!("lpad({text}, {n}, 'ab')"),
            3 => format!("rpad({text}, {n})"),
            4 => format!("replace({text}, 'x', '{}')", "xyz".repeat(30)),
            5 => format!("replace({text}, 'x', {text})"),
            6 => format!("concat({text}, {text}, {text}, {text})"),
            7 => format!("array_to_string(array_repeat({text}, {n}), ',')"),
            8 => format!("regexp_replace({text}, '', '{}', 'g')", "ab".repeat(40)),
            9 => format!("{text} || {text} || {text}"),
            10 => format!("translate(upper({text}), 'X', 'ßßß')"),
            11 => format!("overlay({text} placing repeat('y', {n}) from 1)"),
            _ => format!("concat_ws({text}, {text}, {text}, {text})"),
        };
        if text.len() > 20_000 {
            break;
        }
    }
    text
}

fn growing_arrays(random: &mut Random) -> String {
    let mut array = "make_array(1)".to_owned();
    for _ in 0..1 + random.below(4) {
        let n = *pick(random, &[10, 1_000, 10_000, 100_000_000]);
        array = match random.below(8) {
            0 | 1 => format!("array_repeat({array}, {n})"),
            2 => format!("array_resize({array}, {n}, null)"),
            3 => format!("array_concat({array}, {array}, {array})"),
            4 => format!("range(0, {n})"),
            5 => format!("generate_series(1, {n})"),
            6 => format!("string_to_array(repeat('a,', {n}), ',')"),
            _ => format!("flatten(array_repeat({array}, {n}))"),
        };
    }
    match random.below(3) {
        0 => format!("select array_length({array})"),
        1 => format!("select unnest({array})"),
        _ => format!("select {array} from events"),
    }
}

fn odd_casts(random: &mut Random) -> String {
    let n = *pick(random, &[1_u64, 1_000, 2_000_000_000, 2_147_483_647]);
    let inner =
        *pick(random, &["Int64", "Utf8", "Boolean", "FixedSizeList(1000000, Int64)", "Decimal256(76, 0)"]);
    let kind = match random.below(10) {
        0..=2 => format!("FixedSizeList({n}, {inner})"),
        3 => format!("FixedSizeBinary({n})"),
        4 => format!("Dictionary(Int8, {inner})"),
        5 => format!("List({inner})"),
        6 => "Decimal256(76, 75)".into(),
        7 => format!("LargeList(FixedSizeList({n}, FixedSizeList({n}, {inner})))"),
        8 => "RunEndEncoded(Int32, Utf8)".into(),
        _ => format!("Map(Struct(k Utf8, v {inner}), false)"),
    };
    let value = *pick(random, &["NULL", "1", "'1'", "message", "make_array(1, 2)", "time"]);
    match random.below(5) {
        0 => format!("select cast({value} as varchar({n})) from events"),
        1 => format!("select try_cast({value} as decimal(38, {})) from events", random.below(39)),
        2 => format!("select arrow_typeof(arrow_cast({value}, '{kind}')) from events limit 1"),
        _ if value == "message" || value == "time" => {
            format!("select arrow_cast({value}, '{kind}') from events")
        }
        _ => format!("select arrow_cast({value}, '{kind}')"),
    }
}

fn slow_functions(random: &mut Random) -> String {
    let n = *pick(random, &[100, 1_000, 10_000, 100_000]);
    match random.below(6) {
        0 | 1 => format!("select levenshtein(repeat('a', {n}), repeat('b', {n})) from events"),
        2 => format!("select levenshtein(repeat('ab', {n}), message) from events a"),
        3 => format!(
            "select sum(levenshtein(a.message, b.message)) from events a, events b where a.seq <> b.seq and {n} > 0"
        ),
        4 => format!("select sha512(repeat(message, {n})) from events"),
        _ => format!(
            "select strpos(repeat('a', {n}), repeat('a', {n}) || 'b'), reverse(repeat('ü', {n})) from events"
        ),
    }
}

fn slow_patterns(random: &mut Random) -> String {
    let n = *pick(random, &[10, 100, 1_000, 10_000]);
    let pattern = match random.below(6) {
        0 => "(a*)*b".into(),
        1 => format!("(a{{1,{n}}}){{1,{n}}}"),
        2 => format!("({})", (0..n.min(1_000)).map(|i| format!("a{i}")).collect::<Vec<_>>().join("|")),
        3 => "(?i)\\p{L}{1,1000}\\w{1,1000}".into(),
        4 => format!(".{{{n}}}.*.{{{n}}}"),
        _ => format!("{}b", "(a|aa)+".repeat(20)),
    };
    match random.below(4) {
        0 => format!("select regexp_like(repeat('a', {n}), '{pattern}') from events"),
        1 => format!("select regexp_replace(repeat('a', {n}), '{pattern}', 'x', 'g')"),
        2 => format!("select count(*) from events where repeat(message, {n}) like '{}'", "%a".repeat(50)),
        _ => format!("select regexp_count(repeat('ab', {n}), message) from events"),
    }
}

/// Each common table expression reads the one before twice.
fn doubling(random: &mut Random) -> String {
    let depth = 2 + random.below(30);
    let mut ctes =
        format!("t0 as (select {} from events)", pick(random, &["*", "id", "1 as id", "source as id"]));
    for level in 1..depth {
        let before = level - 1;
        ctes += &match random.below(4) {
            0 => format!(", t{level} as (select * from t{before} union all select * from t{before})"),
            1 => format!(", t{level} as (select a.* from t{before} a join t{before} b on a.id = b.id)"),
            2 => format!(", t{level} as (select a.id from t{before} a, t{before} b)"),
            _ => format!(", t{level} as (select * from t{before} where id in (select id from t{before}))"),
        };
    }
    format!("with {ctes} select count(*) from t{}", depth - 1)
}

fn doubling_of_columns(random: &mut Random) -> String {
    let depth = 2 + random.below(20);
    let mut text = "select seq + seq as x from events".to_owned();
    for _ in 0..depth {
        text = match random.below(3) {
            0 => format!("select x + x as x from ({text}) t"),
            1 => format!("select case when x > 1 then x * x else x - x end as x from ({text}) t"),
            _ => format!("select concat(x, x) as x from ({text}) t"),
        };
    }
    text
}

fn grouping_sets(random: &mut Random) -> String {
    let count = 2 + random.below(14);
    let columns =
        list(count, |at| if at < 6 { TEXTS[at as usize].to_owned() } else { format!("seq % {at}") });
    match random.below(3) {
        0 => format!("select count(*) from events group by cube({columns})"),
        1 => format!("select count(*) from events group by rollup({columns})"),
        _ => format!(
            "select count(distinct message) from events group by grouping sets ({})",
            list(count * 4, |at| format!("({}, seq % {})", TEXTS[at as usize % 6], at + 2))
        ),
    }
}

fn cross_joins(random: &mut Random) -> String {
    let count = 2 + random.below(8);
    let tables = list(count, |at| format!("{} t{at}", TABLES[at as usize % 2]));
    match random.below(6) {
        0 => format!("select * from {tables}"),
        1 => format!("select count(*) from {tables}"),
        2 => format!("select * from {tables} order by t0.id"),
        3 => "select count(*) from events a join events b on a.id < b.id join events c on b.id < c.id".into(),
        4 => "select a.*, b.*, c.* from events a full join events b on a.seq > b.seq full join events c on b.seq > c.seq".into(),
        _ => format!("select count(distinct t0.id || t1.id) from {tables}"),
    }
}

fn nested_in(random: &mut Random) -> String {
    let mut text = "select id from events".to_owned();
    for _ in 0..2 + random.below(30) {
        text = match random.below(3) {
            0 => format!("select id from events where id in ({text})"),
            1 => format!("select id from events where id not in ({text}) or seq in (select seq from events)"),
            _ => format!("select id from events e where exists (select 1 from ({text}) t where t.id = e.id)"),
        };
    }
    text
}

fn long_lists(random: &mut Random) -> String {
    let count = many(random, 12_000);
    match random.below(4) {
        0 => format!("select count(*) from events where id in ({})", list(count, |at| format!("'{at}'"))),
        1 => format!("select count(*) from events where seq in ({})", list(count, |at| at.to_string())),
        2 => format!("select * from (values {}) t", list(count, |at| format!("({at}, 'x{at}')"))),
        _ => format!("select make_array({})", list(count, |at| at.to_string())),
    }
}

fn windows(random: &mut Random) -> String {
    let frame = *pick(
        random,
        &[
            "rows between unbounded preceding and unbounded following",
            "rows between 10000 preceding and 10000 following",
            "range between unbounded preceding and current row",
        ],
    );
    let function = *pick(random, &["sum(seq)", "count(*)", "max(message)", "array_agg(message)", "avg(seq)"]);
    let count = many(random, 40);
    let windows = list(count, |at| {
        format!("{function} over (partition by seq % {} order by time, id {frame}) w{at}", at + 1)
    });
    format!("select {windows} from events")
}

fn unions(random: &mut Random) -> String {
    let count = many(random, 70);
    let word = *pick(random, &["union all", "union", "intersect", "except"]);
    let one = *pick(random, &["select id, message from events", "select 1", "select count(*) from events"]);
    vec![one; count as usize].join(&format!(" {word} "))
}

fn wide(random: &mut Random) -> String {
    let count = many(random, 3_000);
    let wide = *pick(random, &["message", "seq + 1", "attr('n')", "id || source", "repeat(message, 100)"]);
    format!("select {} from events", list(count, |at| format!("{wide} as c{at}")))
}

fn gathering(random: &mut Random) -> String {
    match random.below(7) {
        0 => "select array_agg(message) from events".into(),
        1 => "select string_agg(repeat(message, 1000), ',') from events".into(),
        2 => "select array_agg(a.message) from events a, events b".into(),
        3 => "select array_agg(distinct a.id || b.id) from events a, events b group by a.source".into(),
        4 => "select median(a.seq), approx_percentile_cont(a.seq, 0.5), count(distinct b.id) from events a, events b".into(),
        5 => "select struct(e.*) from events e".into(),
        _ => "select array_agg(named_struct('a', repeat(message, 10000), 'b', id)) from events".into(),
    }
}

fn deep(random: &mut Random) -> String {
    let depth = many(random, 3_000);
    let repeated = |text: &str| text.repeat(depth as usize);
    match random.below(6) {
        0 => format!("select {}1{}", repeated("("), repeated(")")),
        1 => format!("select {}1", repeated("1 + ")),
        2 => format!("select {}1{}", repeated("case when true then "), repeated(" end")),
        3 => format!("select {}true", repeated("not ")),
        4 => format!("select count(*) from events where {}true", repeated("id = 'x' or ")),
        _ => format!("select {}1{}", repeated("abs("), repeated(")")),
    }
}

fn sorting(random: &mut Random) -> String {
    let key =
        *pick(random, &["repeat(message, 1000)", "a.id || b.id", "random()", "levenshtein(a.id, b.id)"]);
    let tables = if key.contains("b.") { "events a, events b" } else { "events a" };
    match random.below(3) {
        0 => format!("select a.* from {tables} order by {key}"),
        1 => format!("select distinct {key} from {tables}"),
        _ => format!(
            "select a.id from {tables} order by {key} limit 10 offset {}",
            many(random, 1_000_000_000)
        ),
    }
}

fn rows_from_nothing(random: &mut Random) -> String {
    let n = *pick(random, &[10, 1_000_000, 9_000_000_000_000_000_000_u64]);
    match random.below(5) {
        0 => format!("select count(*) from generate_series(1, {n})"),
        1 => format!("select * from range(0, {n})"),
        2 => format!("select unnest(range(0, {n}))"),
        3 => format!("select count(*) from generate_series(1, {n}) a, generate_series(1, {n}) b"),
        _ => format!("select * from events, lateral (select unnest(generate_series(1, {n}))) t"),
    }
}

fn recursion(random: &mut Random) -> String {
    let step = *pick(random, &["n + 1", "n", "n * 2"]);
    let of = *pick(random, &["r", "r, events", "r a, r b"]);
    let column = if of == "r a, r b" { "a.n + 1" } else { step };
    format!("with recursive r as (select 1 as n union all select {column} from {of}) select count(*) from r")
}

fn correlated(random: &mut Random) -> String {
    let depth = 1 + random.below(8);
    let mut text = "select max(x.seq) from events x where x.source = t0.source".to_owned();
    for level in 0..depth {
        text = format!("select count(*) + ({text}) from events t{level} where t{level}.seq >= 0");
    }
    format!("select ({text}) from events t{depth}")
}

fn about_statements(random: &mut Random) -> String {
    let of = grammar(random);
    match random.below(6) {
        0 => format!("explain {of}"),
        1 => format!("explain analyze {of}"),
        2 => format!("explain verbose {}", doubling(random)),
        3 => "show tables".into(),
        4 => "describe events".into(),
        _ => "select * from information_schema.columns".into(),
    }
}

/// A statement of the whole grammar, of bounded depth.
fn grammar(random: &mut Random) -> String {
    select(random, 3)
}

fn select(random: &mut Random, depth: u64) -> String {
    let from = match random.below(if depth == 0 { 1 } else { 4 }) {
        0 => format!("{} t", pick(random, &TABLES)),
        1 => format!("({}) t", select(random, depth - 1)),
        2 => format!("events t join {} u on t.id = u.id", pick(random, &TABLES)),
        _ => format!("events t left join ({}) u on t.id = u.c0", select(random, depth - 1)),
    };
    let count = 1 + random.below(4);
    let is_grouped = random.below(4) == 0;
    let mut columns: Vec<String> = Vec::new();
    for at in 0..count {
        let value = if is_grouped { aggregate(random, depth) } else { value(random, depth) };
        columns.push(format!("{value} as c{at}"));
    }
    let mut text = format!("select {} from {from}", columns.join(", "));
    if random.below(2) == 0 {
        text += &format!(" where {}", condition(random, depth));
    }
    if is_grouped {
        text +=
            &format!(" group by {}", pick(random, &["source", "t.source", "1", "date_trunc('hour', time)"]));
    }
    if random.below(3) == 0 {
        text += " order by 1";
    }
    if random.below(3) == 0 {
        text += &format!(" limit {}", many(random, 100_000));
    }
    text
}

fn aggregate(random: &mut Random, depth: u64) -> String {
    let of = value(random, depth.saturating_sub(1));
    let function = *pick(
        random,
        &[
            "count",
            "sum",
            "min",
            "max",
            "avg",
            "median",
            "stddev",
            "var_pop",
            "array_agg",
            "approx_distinct",
            "bool_and",
            "first_value",
            "last_value",
            "bit_xor",
            "approx_median",
            "count_distinct",
            "corr",
        ],
    );
    match function {
        "count_distinct" => format!("count(distinct {of})"),
        "corr" => format!("corr({of}, seq)"),
        function => format!("{function}({of})"),
    }
}

fn condition(random: &mut Random, depth: u64) -> String {
    let (left, right) = (value(random, depth.saturating_sub(1)), value(random, 0));
    match random.below(7) {
        0 => format!("{left} = {right}"),
        1 => format!("{left} is not null"),
        2 => format!("{left} between {right} and {right}"),
        3 => format!("cast({left} as varchar) like '%a%'"),
        4 if depth > 0 => format!("{left} in ({})", select(random, depth - 1)),
        5 => format!("not ({left} <> {right})"),
        _ => format!("{left} < {right} or {right} >= {left}"),
    }
}

const OF_TEXT: [&str; 30] = [
    "ascii",
    "btrim",
    "character_length",
    "initcap",
    "length",
    "lower",
    "ltrim",
    "md5",
    "octet_length",
    "reverse",
    "rtrim",
    "upper",
    "sha224",
    "sha256",
    "sha384",
    "bit_length",
    "chr",
    "to_hex",
    "trim",
    "to_timestamp",
    "to_date",
    "uuid",
    "arrow_typeof",
    "coalesce",
    "nullif",
    "hex",
    "encode",
    "decode",
    "quote_literal",
    "unhex",
];
const OF_NUMBER: [&str; 24] = [
    "abs",
    "acos",
    "asinh",
    "cbrt",
    "ceil",
    "cos",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "isnan",
    "iszero",
    "ln",
    "log10",
    "log2",
    "radians",
    "round",
    "signum",
    "sin",
    "sqrt",
    "tan",
    "trunc",
    "from_unixtime",
];
const OF_TWO: [&str; 22] = [
    "concat",
    "contains",
    "ends_with",
    "find_in_set",
    "left",
    "levenshtein",
    "regexp_like",
    "regexp_match",
    "repeat",
    "right",
    "starts_with",
    "strpos",
    "string_to_array",
    "gcd",
    "lcm",
    "power",
    "atan2",
    "nanvl",
    "date_part",
    "date_trunc",
    "nvl",
    "array_append",
];

fn value(random: &mut Random, depth: u64) -> String {
    if depth == 0 {
        return match random.below(6) {
            0 => (*pick(random, &TEXTS)).to_owned(),
            1 => (*pick(random, &NUMBERS)).to_owned(),
            2 => random.next().cast_signed().to_string(),
            3 => format!("'{}'", pick(random, &["", "a", "2026-01-01", "hour", "ü", "%", "1e308", "\\"])),
            4 => {
                (*pick(random, &["null", "true", "now()", "1.5", "9223372036854775807", "interval '1' day"]))
                    .to_owned()
            }
            _ => format!("attr('{}')", pick(random, &["n", "status", "nested.a", "no such key"])),
        };
    }
    let one = value(random, depth - 1);
    match random.below(8) {
        0 => format!("{}({one})", pick(random, &OF_TEXT)),
        1 => format!("{}({one})", pick(random, &OF_NUMBER)),
        2 | 3 => format!("{}({one}, {})", pick(random, &OF_TWO), value(random, 0)),
        4 => format!(
            "({one} {} {})",
            pick(random, &["+", "-", "*", "/", "%", "||", "&", "<<", "^"]),
            value(random, depth - 1)
        ),
        5 => format!(
            "cast({one} as {})",
            pick(
                random,
                &["bigint", "double", "varchar", "timestamp", "date", "boolean", "decimal(38, 5)", "bytea"]
            )
        ),
        6 => format!("case when {} then {one} else {} end", condition(random, 0), value(random, 0)),
        _ => format!("coalesce({one}, {})", value(random, 0)),
    }
}
