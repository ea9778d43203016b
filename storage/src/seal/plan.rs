//! Which tables to seal now: by rows, bytes, age, or because memory or log are short.
//!
//! Age alone is no hurry: the rows are durable and readable. Each seal costs requests, so those by age are made
//! from a budget of commits, oldest first. Few tables never notice it; thousands that trickle wait longer each.

use std::collections::{HashMap, HashSet};

use crate::keeper::TURN_TABLES_MAX;
use crate::options::Options;
use crate::record::Tenant;

/// Nanoseconds in a minute.
const MINUTE_NS: u128 = 60_000_000_000;

/// Tenants whose turns are remembered.
const TENANTS_MAX: usize = 10_000;

/// A table's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog<'a> {
    /// Whose table it is: tables of one tenant are sealed together.
    pub tenant: &'a Tenant,
    /// Whether its durations go into the tenant's latency table: one commit more, for all tables sealed together.
    pub is_measured: bool,
    /// Rows that wait.
    pub rows: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// When the oldest was appended, nanoseconds since 1970 UTC; `None` where nothing waits.
    pub oldest_ns: Option<i64>,
}

/// Commits that seals by age may make now: what the last minute left of `seal_commits_per_minute`.
#[derive(Clone, Debug)]
pub struct Budget {
    per_minute: u64,
    /// In commits times nanoseconds a minute, so that it grows by whole numbers.
    credit: u128,
    refilled_ns: Option<i64>,
    /// When each tenant had its last turn, in turns.
    turns: HashMap<Tenant, u64>,
    turn: u64,
}

impl Budget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn full(per_minute: u64) -> Self {
        Self {
            per_minute,
            credit: u128::from(per_minute) * MINUTE_NS,
            refilled_ns: None,
            turns: HashMap::new(),
            turn: 0,
        }
    }

    /// Lets time pass. A clock that jumped back gives nothing and takes nothing.
    pub fn refill(&mut self, now_ns: i64) {
        let passed = self.refilled_ns.map_or(0, |at| now_ns.saturating_sub(at));
        self.refilled_ns = Some(now_ns);
        let per_minute = u128::from(self.per_minute);
        let earned = u128::try_from(passed).unwrap_or(0) * per_minute;
        self.credit = (self.credit + earned).min(per_minute * MINUTE_NS);
    }

    /// Commits that may be made now.
    #[must_use]
    pub fn left(&self) -> u64 {
        u64::try_from(self.credit / MINUTE_NS).unwrap_or(u64::MAX)
    }

    /// Takes commits out that were made, those of seals that were not held back too.
    pub fn spend(&mut self, commits: u64) {
        self.credit = self.credit.saturating_sub(u128::from(commits) * MINUTE_NS);
    }

    /// Notes that a tenant has its turn: those who had theirs longer ago come before it next time (X2).
    pub fn served(&mut self, tenant: &Tenant) {
        if self.turns.len() >= TENANTS_MAX {
            // Whoever is forgotten comes early once.
            self.turns.clear();
        }
        self.turn += 1;
        self.turns.insert(tenant.clone(), self.turn);
    }

    fn last_turn(&self, tenant: &Tenant) -> u64 {
        self.turns.get(tenant).copied().unwrap_or(0)
    }
}

/// What is due of one tenant, as places in the list of backlogs.
#[derive(Debug)]
struct Group<'a> {
    tenant: &'a Tenant,
    /// Not held back by any budget.
    urgent: Vec<usize>,
    /// By age alone.
    aged: Vec<usize>,
    /// When the oldest that is due was appended.
    oldest_ns: i64,
}

/// The places in `backlogs` of the tables to seal, those of one tenant together: the largest that cannot wait
/// first, then by age those whose tenant waits longest for a turn, as many as `budget` has commits for. Of one tenant
/// what cannot wait stands first, then the oldest: its turn may be shorter than its list.
///
/// Rows, bytes and `seal_age_max_ms` are never held back. Above half of `hot_max` bytes the largest are sealed
/// until it is half; above half of `wal_bytes_max`, given as `is_log_long`, those are whose oldest chunk keeps
/// the log from being trimmed at its beginning.
#[must_use]
pub fn due(
    backlogs: &[Backlog<'_>],
    hot_max: u64,
    is_log_long: bool,
    options: &Options,
    budget: &Budget,
    now_ns: i64,
) -> Vec<Vec<usize>> {
    let mut groups = groups(backlogs, hot_max, is_log_long, options, now_ns);
    for group in &mut groups {
        for places in [&mut group.urgent, &mut group.aged] {
            if places.len() > TURN_TABLES_MAX {
                places.sort_by_key(|at| backlogs[*at].oldest_ns);
            }
        }
        // A turn has no more: what it cannot seal must not be paid for, nor hold back others.
        group.aged.truncate(TURN_TABLES_MAX);
    }
    let largest = |group: &Group<'_>| group.urgent.iter().map(|at| backlogs[*at].bytes).max();
    // Tenants tell apart what is equal: the order is the same in every run.
    groups.sort_by_key(|group| (std::cmp::Reverse(largest(group)), group.oldest_ns, group.tenant));
    let mut left = budget.left();
    let urgent = groups.iter().map(|group| commits(backlogs, &group.urgent)).sum();
    left = left.saturating_sub(urgent);
    let mut rising: Vec<usize> = (0..groups.len()).filter(|at| !groups[*at].aged.is_empty()).collect();
    rising.sort_by_key(|at| {
        let group = &groups[*at];
        (budget.last_turn(group.tenant), group.oldest_ns, group.tenant)
    });
    let mut rising = rising.into_iter();
    for at in rising.by_ref() {
        let group = &mut groups[at];
        let all: Vec<usize> = group.urgent.iter().chain(&group.aged).copied().collect();
        let cost = commits(backlogs, &all) - commits(backlogs, &group.urgent);
        // A tenant of more tables than a minute pays for waits for a full budget, not for ever.
        if cost > left && (left < budget.per_minute || left == 0) {
            group.aged.clear();
            break;
        }
        left = left.saturating_sub(cost);
    }
    // Nobody overtakes the one that waits for the budget to grow.
    rising.for_each(|at| groups[at].aged.clear());
    groups
        .into_iter()
        .map(|group| group.urgent.into_iter().chain(group.aged).collect())
        .filter(|tables: &Vec<usize>| !tables.is_empty())
        .collect()
}

fn groups<'a>(
    backlogs: &[Backlog<'a>],
    hot_max: u64,
    is_log_long: bool,
    options: &Options,
    now_ns: i64,
) -> Vec<Group<'a>> {
    let ns = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    let age_ns = ns(options.seal_age_ms);
    let age_max_ns = ns(options.seal_age_max_ms).max(age_ns);
    let oldest = backlogs.iter().filter_map(|backlog| backlog.oldest_ns).min();
    let newest = backlogs.iter().filter_map(|backlog| backlog.oldest_ns).max();
    // The older half of the time between: one table a round would not keep up with thousands that trickle.
    let pins = oldest.zip(newest).map(|(oldest, newest)| oldest + (newest - oldest) / 2);
    let pressing = pressing(backlogs, hot_max / 2);
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places: HashMap<&Tenant, usize> = HashMap::new();
    for (at, backlog) in backlogs.iter().enumerate() {
        let Some(oldest_ns) = backlog.oldest_ns else { continue };
        let waited_ns = now_ns.saturating_sub(oldest_ns);
        let is_urgent = backlog.rows >= options.seal_rows
            || backlog.bytes >= options.seal_bytes
            // A clock that jumped back makes chunks look young: the log's own budget still seals them.
            || waited_ns >= age_max_ns
            || (is_log_long && pins.is_some_and(|pins| oldest_ns <= pins))
            || pressing.contains(&at);
        if !is_urgent && waited_ns < age_ns {
            continue;
        }
        let place = *places.entry(backlog.tenant).or_insert(groups.len());
        if place == groups.len() {
            let tenant = backlog.tenant;
            groups.push(Group { tenant, urgent: Vec::new(), aged: Vec::new(), oldest_ns: i64::MAX });
        }
        let group = &mut groups[place];
        group.oldest_ns = group.oldest_ns.min(oldest_ns);
        if is_urgent { &mut group.urgent } else { &mut group.aged }.push(at);
    }
    groups
}

/// The largest tables that together hold what is above `bytes_max`.
fn pressing(backlogs: &[Backlog<'_>], bytes_max: u64) -> HashSet<usize> {
    let mut total: u64 = backlogs.iter().map(|backlog| backlog.bytes).sum();
    let mut pressing = HashSet::new();
    if total <= bytes_max {
        return pressing;
    }
    let mut largest: Vec<usize> = (0..backlogs.len()).collect();
    largest.sort_by_key(|at| std::cmp::Reverse(backlogs[*at].bytes));
    for at in largest {
        if total <= bytes_max {
            break;
        }
        total -= backlogs[at].bytes;
        pressing.insert(at);
    }
    pressing
}

/// Commits that sealing these tables of one tenant takes at most: one each, and one of its latency table.
fn commits(backlogs: &[Backlog<'_>], tables: &[usize]) -> u64 {
    tables.len() as u64 + u64::from(tables.iter().any(|at| backlogs[*at].is_measured))
}

#[cfg(test)]
mod tests {
    use super::{Backlog, Budget, due};
    use crate::keeper::TURN_TABLES_MAX;
    use crate::options::Options;
    use crate::record::Tenant;

    fn options() -> Options {
        Options {
            seal_rows: 100,
            seal_bytes: 1_000,
            seal_age_ms: 1,
            seal_age_max_ms: 10,
            ..Options::default()
        }
    }

    /// Tables that each have a tenant of their own and are not measured.
    fn check(backlogs: &[(u64, u64, Option<i64>)], now_ns: i64, expected: &[usize]) {
        let tenants: Vec<Tenant> =
            (0..backlogs.len()).map(|at| Tenant::parse(&format!("t{at}")).unwrap()).collect();
        let backlogs: Vec<_> = backlogs
            .iter()
            .zip(&tenants)
            .map(|((rows, bytes, oldest_ns), tenant)| Backlog {
                tenant,
                is_measured: false,
                rows: *rows,
                bytes: *bytes,
                oldest_ns: *oldest_ns,
            })
            .collect();
        let found = due(&backlogs, 3_000, false, &options(), &Budget::full(600), now_ns);
        assert_eq!(found.concat(), expected, "{backlogs:?}");
    }

    #[test]
    fn rows_bytes_age_and_pressure_make_a_table_due() {
        check(&[(0, 0, None), (99, 999, Some(0))], 999_999, &[]);
        check(&[(100, 1, Some(0)), (1, 1_000, Some(0))], 0, &[1, 0]);
        check(&[(1, 1, Some(0)), (0, 0, None)], 1_000_000, &[0]);
        check(&[(1, 1, Some(10))], 0, &[]);
        // Above half of the memory the largest, until it is half.
        check(&[(1, 800, Some(0)), (1, 801, Some(0))], 0, &[1]);
        check(&[(1, 698, Some(0)), (1, 801, Some(0)), (1, 802, Some(0))], 0, &[2]);
        check(&[(1, 900, Some(0)), (1, 901, Some(0)), (1, 902, Some(0))], 0, &[2, 1]);
    }

    #[test]
    fn a_long_log_makes_those_due_that_hold_its_beginning() {
        let tenant = Tenant::parse("acme").unwrap();
        let backlog =
            |oldest_ns| Backlog { tenant: &tenant, is_measured: false, rows: 1, bytes: 1, oldest_ns };
        let backlogs = [backlog(Some(100)), backlog(None), backlog(Some(40)), backlog(Some(0))];
        let spent = Budget::full(0);
        let options = Options { seal_bytes: 1_000, ..Options::default() };
        assert_eq!(due(&backlogs, 3_000, true, &options, &spent, 100), [[2, 3]]);
        assert!(due(&backlogs, 3_000, false, &options, &spent, 100).is_empty());
    }

    /// Tables of tenant `a`, `b`, …, measured or not, by the time of their oldest row.
    fn check_budget(tables: &[(&str, bool, i64)], per_minute: u64, now_ns: i64, expected: &[&[usize]]) {
        let tenants: Vec<Tenant> = tables.iter().map(|(name, ..)| Tenant::parse(name).unwrap()).collect();
        let backlogs: Vec<_> = tables
            .iter()
            .zip(&tenants)
            .map(|((_, is_measured, oldest_ns), tenant)| Backlog {
                tenant,
                is_measured: *is_measured,
                rows: 1,
                bytes: 1,
                oldest_ns: Some(*oldest_ns),
            })
            .collect();
        let found = due(&backlogs, 3_000, false, &options(), &Budget::full(per_minute), now_ns);
        assert_eq!(found, expected, "{tables:?} with {per_minute} commits");
    }

    #[test]
    fn age_waits_for_the_budget_and_the_oldest_goes_first() {
        let tables = [("a", false, 3), ("b", true, 1), ("b", true, 2), ("c", false, 0), ("b", false, 9)];
        let now_ns = 1_000_005;
        check_budget(&tables, 600, now_ns, &[&[3], &[1, 2], &[0]]);
        check_budget(&tables, 5, now_ns, &[&[3], &[1, 2], &[0]]);
        check_budget(&tables, 4, now_ns, &[&[3], &[1, 2]]);
        // Tenant b takes three commits, one for both tables' durations: the younger one does not overtake it.
        check_budget(&tables, 3, now_ns, &[&[3]]);
        check_budget(&tables, 1, now_ns, &[&[3]]);
        // More than a minute pays for: from a full budget all the same.
        check_budget(&tables[1..3], 2, now_ns, &[&[0, 1]]);
        // Nothing waits longer than the most.
        let stuck = [("a", false, 0), ("b", false, 1), ("b", true, 2)];
        check_budget(&stuck, 1, 10_000_001, &[&[0], &[1]]);
    }

    // X2: a budget that is short is shared in turns, whoever has the oldest rows.
    #[test]
    fn who_waits_longest_for_a_turn_is_next() {
        let (heavy, light) = (Tenant::parse("heavy").unwrap(), Tenant::parse("light").unwrap());
        let backlog = |tenant, oldest_ns| Backlog {
            tenant,
            is_measured: false,
            rows: 1,
            bytes: 1,
            oldest_ns: Some(oldest_ns),
        };
        let mut backlogs: Vec<_> = (0..1_000).map(|at| backlog(&heavy, at)).collect();
        backlogs.push(backlog(&light, 5_000));
        let mut budget = Budget::full(TURN_TABLES_MAX as u64);
        let found = |budget: &Budget| due(&backlogs, 1 << 30, false, &options(), budget, 1_005_000);
        assert_eq!(found(&budget), [(0..TURN_TABLES_MAX).collect::<Vec<_>>()], "the oldest of all first");
        budget.served(&heavy);
        assert_eq!(found(&budget), [vec![1_000]], "then the other tenant");
        budget.served(&light);
        assert_eq!(found(&budget).len(), 1);
    }

    // B1
    #[test]
    fn no_more_tenants_are_remembered_than_the_bound() {
        let mut budget = Budget::full(1);
        for at in 0..20_000 {
            budget.served(&Tenant::parse(&format!("t{at}")).unwrap());
            assert!(budget.turns.len() <= 10_000);
        }
    }

    #[test]
    fn a_budget_is_a_minutes_worth_at_most() {
        let mut budget = Budget::full(600);
        budget.refill(0);
        assert_eq!(budget.left(), 600);
        budget.spend(600);
        assert_eq!(budget.left(), 0);
        let second = 1_000_000_000;
        budget.refill(second / 10 - 1);
        assert_eq!(budget.left(), 0);
        budget.refill(second / 10);
        assert_eq!(budget.left(), 1);
        // A clock that jumped back: no time passed.
        budget.refill(-second);
        assert_eq!(budget.left(), 1);
        budget.refill(0);
        assert_eq!(budget.left(), 11);
        budget.spend(1_000);
        assert_eq!(budget.left(), 0);
        budget.refill(3_600 * second);
        assert_eq!(budget.left(), 600);
    }
}
