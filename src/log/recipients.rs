//! An audience, indexed for delivery.
//!
//! A publish evaluates the audience for every client that holds an index key, and a replay
//! evaluates the audiences of the log for one client. An audience can have 10,000 names and a
//! client many topics, so neither may be searched for every element of the other. The names of an
//! audience are therefore hashed once, before a lock is taken. An evaluation looks up the keys of
//! the client in the [names](Names), and then visits only the parts of the expression with a name
//! that the client holds: the cost follows the number of keys of the client, not the number of
//! names. Only an application that nests an audience, and repeats a name in many of its parts, has
//! a higher cost: each of these parts is visited.

use std::ops::Range;
use std::slice;
use std::sync::Arc;

use smallvec::SmallVec;

use super::audience::{Audience, Expr};
use super::hash::KeyHasher;
use super::identity::Identity;
use super::key::Key;
use super::names::{self, FEW, Names};
use crate::wire::id::EventId;

/// The clients that receive an event.
#[derive(Debug)]
pub(crate) enum Recipients {
    /// Every client that holds the key.
    Key(Key),
    /// Every client that holds at least one of these keys. The keys are sorted.
    AnyOf(Box<[Key]>),
    /// Some clients that hold at least one of the index keys.
    Some(Arc<Combined>),
}

/// An audience with an `and` or an `except`.
#[derive(Debug)]
pub(crate) struct Combined {
    index: Box<[Key]>,
    names: Names,
    has_topics: bool,
    root: Node,
    /// The numbers of the names that decide: a client that holds one of these names is included if
    /// `root` is an `or`, and is not included if `root` is an `except`.
    deciding: Range<u32>,
}

impl Recipients {
    pub(crate) fn new(audience: &Audience, hasher: &KeyHasher) -> Self {
        if let Some(key) = audience.key() {
            return Self::Key(key.clone());
        }
        let index = audience.index().into_boxed_slice();
        if audience.is_its_index() {
            return Self::AnyOf(index);
        }
        Self::Some(Arc::new(Combined::new(audience, index, hasher, FEW)))
    }

    /// Indexes an audience without a clone of a single key: other threads may share the name.
    pub(crate) fn of(audience: Audience, hasher: &KeyHasher) -> Self {
        match audience.expr {
            Expr::Holds(key) => Self::Key(key),
            expr => Self::new(&Audience { expr, ..audience }, hasher),
        }
    }

    /// Returns the index keys: every recipient holds at least one of these keys.
    pub(crate) fn keys(&self) -> &[Key] {
        match self {
            Self::Key(key) => slice::from_ref(key),
            Self::AnyOf(keys) => keys,
            Self::Some(combined) => &combined.index,
        }
    }

    /// Returns whether every client that holds an index key is a recipient.
    pub(crate) fn are_all_holders(&self) -> bool {
        match self {
            Self::Key(_) | Self::AnyOf(_) => true,
            Self::Some(_) => false,
        }
    }

    /// Returns the number of names.
    pub(super) fn names(&self) -> usize {
        match self {
            Self::Key(_) => 1,
            Self::AnyOf(keys) => keys.len(),
            Self::Some(combined) => combined.names(),
        }
    }

    /// Returns whether the topics of a client decide whether the client is a recipient.
    pub(super) fn has_topics(&self) -> bool {
        match self {
            Self::Key(key) => is_topic(key),
            Self::AnyOf(keys) => keys.iter().any(is_topic),
            Self::Some(combined) => combined.has_topics,
        }
    }

    /// Returns whether a client receives an event with this id, apart from its filter.
    pub(crate) fn include(&self, client: Identity<'_>, id: EventId) -> bool {
        let mut held = client.memberships.iter().filter(|held| held.since < id);
        match self {
            Self::Key(key) => held.any(|held| held.key == *key),
            Self::AnyOf(keys) => held.any(|held| keys.binary_search(&held.key).is_ok()),
            Self::Some(combined) => combined.includes(client, id),
        }
    }
}

impl Combined {
    /// More names than `few` have an index.
    fn new(audience: &Audience, index: Box<[Key]>, hasher: &KeyHasher, few: usize) -> Self {
        let mut names = Vec::new();
        let root = Node::new(&audience.expr, &mut names, hasher);
        let has_topics = names.iter().any(|(_, key)| is_topic(key));
        let (names, deciding) = (Names::new(&names, few), root.deciding());
        Self { index, names, has_topics, root, deciding }
    }

    /// Returns whether a client receives an event with this id, apart from its filter.
    pub(super) fn includes(&self, client: Identity<'_>, id: EventId) -> bool {
        let names = match &self.names {
            Names::Few(few) => {
                let memberships = client.memberships.iter().filter(|held| held.since < id);
                let held = memberships.fold(0, |mask, held| mask | names::mask(few, held));
                return self.root.includes_few(held);
            }
            Names::Many(names) => names,
        };
        let mut numbers = SmallVec::<[u32; 16]>::new();
        for held in client.memberships {
            if !names.may_have(held.hash) || held.since >= id {
                continue;
            }
            for number in names.numbers(held) {
                if self.deciding.contains(&number) {
                    return matches!(self.root.operation, Operation::AnyOf);
                }
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        self.root.includes(&numbers)
    }

    /// Returns the number of names.
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }
}

fn is_topic(key: &Key) -> bool {
    matches!(key, Key::Topic(_))
}

/// A part of an expression.
#[derive(Debug)]
struct Node {
    operation: Operation,
    /// The numbers of the single names directly under the operation.
    singles: Range<u32>,
    /// The other parts. Their numbers follow `singles`.
    parts: Box<[Self]>,
    /// The number after the last of the part.
    end: u32,
}

/// Returns the next number. An audience has at most `MAX_NAMES` names.
fn next(names: &[(u64, &Key)]) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    AnyOf,
    AllOf,
    /// The first part without the second.
    Except,
}

impl Node {
    /// Adds the names of an expression to `names`, each with its hash.
    fn new<'a>(expr: &'a Expr, names: &mut Vec<(u64, &'a Key)>, hasher: &KeyHasher) -> Self {
        let (operation, exprs): (_, SmallVec<[&Expr; 2]>) = match expr {
            Expr::Holds(_) => (Operation::AnyOf, [expr].into_iter().collect()),
            Expr::AnyOf(parts) => (Operation::AnyOf, parts.iter().collect()),
            Expr::AllOf(parts) => (Operation::AllOf, parts.iter().collect()),
            Expr::Except(sides) => {
                (Operation::Except, sides.iter().map(|side| &side.expr).collect())
            }
        };
        let is_part = |expr: &Expr| {
            // The sides of `except` differ in their role, so each is a part.
            matches!(operation, Operation::Except) || !matches!(expr, Expr::Holds(_))
        };
        let keys = exprs.iter().filter(|expr| !is_part(expr)).filter_map(|expr| expr.key());
        let mut keys: SmallVec<[(u64, &Key); 2]> = keys.map(|key| (hasher.key(key), key)).collect();
        // An evaluation visits each number of a key: a repeated name gets one number. Two names
        // with one hash can lie between, which costs a number.
        keys.sort_unstable_by_key(|&(hash, _)| hash);
        keys.dedup();
        let start = next(names);
        names.extend(keys);
        let singles = start..next(names);
        let parts = exprs.into_iter().filter(|expr| is_part(expr));
        let parts: Box<[Self]> = parts.map(|part| Self::new(part, names, hasher)).collect();
        Self { operation, singles, parts, end: next(names) }
    }

    /// Returns the numbers of the names that decide, each alone, as the root of an expression.
    fn deciding(&self) -> Range<u32> {
        match (self.operation, &*self.parts) {
            (Operation::AnyOf, _) => self.singles.clone(),
            (Operation::Except, [_, excluded])
                if matches!(excluded.operation, Operation::AnyOf) =>
            {
                excluded.singles.clone()
            }
            _ => 0..0,
        }
    }

    /// Returns whether a client is included that holds the names with these bits.
    fn includes_few(&self, held: u8) -> bool {
        // The bits of the numbers in `singles`. At most eight, so the shifts fit into 16 bits.
        let singles = ((1u16 << self.singles.end) - (1u16 << self.singles.start)) as u8;
        match self.operation {
            Operation::AnyOf => {
                held & singles != 0 || self.parts.iter().any(|part| part.includes_few(held))
            }
            Operation::AllOf => {
                held & singles == singles && self.parts.iter().all(|part| part.includes_few(held))
            }
            Operation::Except => {
                self.parts[0].includes_few(held) && !self.parts[1].includes_few(held)
            }
        }
    }

    /// Returns whether a client is included that holds the names with these numbers, which must be
    /// sorted and within this part.
    fn includes(&self, held: &[u32]) -> bool {
        if held.is_empty() {
            // No `and` is empty, so each part includes only clients that hold a name of the part.
            return false;
        }
        if let Operation::Except = self.operation {
            let (included, excluded) =
                held.split_at(held.partition_point(|&number| number < self.parts[0].end));
            return self.parts[0].includes(included) && !self.parts[1].includes(excluded);
        }
        let (singles, mut rest) =
            held.split_at(held.partition_point(|&number| number < self.singles.end));
        let mut including = 0;
        while let Some(&first) = rest.first() {
            let part = &self.parts[self.parts.partition_point(|part| part.end <= first)];
            let (inside, after) = rest.split_at(rest.partition_point(|&number| number < part.end));
            including += usize::from(part.includes(inside));
            rest = after;
        }
        match self.operation {
            Operation::AnyOf => !singles.is_empty() || including > 0,
            Operation::AllOf => {
                singles.len() == self.singles.len() && including == self.parts.len()
            }
            Operation::Except => unreachable!("returned above"),
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::super::identity::{Filter, Membership};
    use super::*;

    /// Few names, so that they repeat.
    fn audience() -> impl Strategy<Value = Audience> {
        let name = || (0..5u8).prop_map(|name| name.to_string());
        let leaf = prop_oneof![
            1 => Just(Audience::all()),
            4 => name().prop_map(Audience::user),
            4 => name().prop_map(Audience::topic),
            2 => vec(name(), 0..4).prop_map(Audience::topics),
            // With these, an expression has more names than are compared one by one.
            1 => vec((0..30u8).prop_map(|name| name.to_string()), 9..30).prop_map(Audience::topics),
        ];
        leaf.prop_recursive(6, 40, 4, |inner| {
            (vec(inner, 1..4), 0..3u8).prop_map(|(parts, operation)| {
                let join = [Audience::or, Audience::and, Audience::except][usize::from(operation)];
                parts.into_iter().reduce(join).unwrap()
            })
        })
    }

    fn naive(expr: &Expr, holds: &impl Fn(&Key) -> bool) -> bool {
        match expr {
            Expr::Holds(key) => holds(key),
            Expr::AnyOf(parts) => parts.iter().any(|part| naive(part, holds)),
            Expr::AllOf(parts) => parts.iter().all(|part| naive(part, holds)),
            Expr::Except(sides) => naive(&sides[0].expr, holds) && !naive(&sides[1].expr, holds),
        }
    }

    /// Adds the names of an expression to `names`.
    fn names_of<'a>(expr: &'a Expr, names: &mut Vec<&'a Key>) {
        match expr {
            Expr::Holds(key) => names.push(key),
            Expr::AnyOf(parts) | Expr::AllOf(parts) => {
                parts.iter().for_each(|part| names_of(part, names));
            }
            Expr::Except(sides) => sides.iter().for_each(|side| names_of(&side.expr, names)),
        }
    }

    fn memberships(keys: &[(Key, u64)], hasher: &KeyHasher) -> Vec<Membership> {
        let hold = |(key, since): &(Key, u64)| Membership {
            key: key.clone(),
            hash: hasher.key(key),
            since: EventId::new(0, *since),
            is_joined: false,
            index: 0,
        };
        keys.iter().map(hold).collect()
    }

    proptest! {
        #[test]
        fn recipients_are_the_clients_of_the_expression(
            audience in audience(),
            user in prop::option::of(0..5u8),
            topics in btree_map(0..5u8, 0..3u64, 0..5),
            id in 1..3u64,
        ) {
            let hasher = KeyHasher::default();
            let recipients = Recipients::new(&audience, &hasher);
            let user = user.map(|user| (Key::User(user.to_string().into()), 0));
            let topics = topics.into_iter();
            let topics = topics.map(|(topic, since)| (Key::Topic(topic.to_string().into()), since));
            let keys: Vec<_> = [(Key::All, 0)].into_iter().chain(user).chain(topics).collect();
            let holds = |key: &Key| keys.iter().any(|(held, since)| held == key && *since < id);
            let memberships = memberships(&keys, &hasher);
            let client = Identity { memberships: &memberships, filter: &Filter::Everything };
            let expected = naive(&audience.expr, &holds);
            let id = EventId::new(0, id);
            prop_assert_eq!(recipients.include(client, id), expected);
            let indexed = Combined::new(&audience, Box::default(), &hasher, 0);
            prop_assert_eq!(indexed.includes(client, id), expected);
            let has_index_key = recipients.keys().iter().any(holds);
            prop_assert!(has_index_key || !expected);
            prop_assert!(!recipients.are_all_holders() || has_index_key == expected);
        }

        #[test]
        fn recipients_count_names_and_find_topics(audience in audience()) {
            let hasher = KeyHasher::default();
            let mut names = Vec::new();
            names_of(&audience.expr, &mut names);
            let has_topics = names.iter().any(|key| matches!(key, Key::Topic(_)));
            let distinct = names.iter().collect::<BTreeSet<_>>().len();
            // A name can have several places in an expression.
            let counts = distinct..=names.len();
            let recipients = Recipients::new(&audience, &hasher);
            // In an `or` with everyone, no other name decides.
            if !recipients.keys().contains(&Key::All) {
                prop_assert_eq!(recipients.has_topics(), has_topics);
                prop_assert!(counts.contains(&recipients.names()), "{}", recipients.names());
            }
            for few in [0, FEW] {
                let combined = Combined::new(&audience, Box::default(), &hasher, few);
                prop_assert_eq!(combined.has_topics, has_topics);
                prop_assert!(counts.contains(&combined.names()), "{}", combined.names());
            }
        }
    }
}
