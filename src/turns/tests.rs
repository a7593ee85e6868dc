use super::*;
use futures::FutureExt;
use proptest::prelude::*;
use std::{collections::HashSet, pin::Pin, task::Context};

type Taking = Pin<Box<dyn Future<Output = Turn> + Send>>;

/// Someone who asked for a turn.
fn ask(turns: &Turns, namespace: &str, lane: Lane) -> Taking {
    let (turns, namespace) = (turns.clone(), namespace.to_owned());
    let mut taking: Taking = Box::pin(async move { turns.take(&namespace, lane).await });
    // Until it is polled, it does not wait.
    match poll(&mut taking) {
        Some(turn) => Box::pin(std::future::ready(turn)),
        None => taking,
    }
}

fn poll(taking: &mut Taking) -> Option<Turn> {
    match taking
        .as_mut()
        .poll(&mut Context::from_waker(std::task::Waker::noop()))
    {
        std::task::Poll::Ready(turn) => Some(turn),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn namespaces_take_turns_however_many_of_one_came_first() {
    let turns = Turns::new(1);
    let first = ask(&turns, "a", Lane::Admission).now_or_never().unwrap();
    let mut waiting: Vec<_> = ["a", "a", "a", "a", "b", "c"]
        .into_iter()
        .map(|namespace| (namespace, ask(&turns, namespace, Lane::Admission)))
        .collect();
    drop(first);
    let mut order = String::new();
    while !waiting.is_empty() {
        let served = waiting.iter_mut().position(|(_, taking)| poll(taking).is_some());
        order += waiting.remove(served.unwrap()).0;
    }
    assert_eq!(order, "abcaaa");
    assert!(turns.is_idle());
}

#[test]
fn neither_lane_takes_all_from_the_other() {
    for (greedy, other) in [(Lane::Admission, Lane::Renewal), (Lane::Renewal, Lane::Admission)] {
        let turns = Turns::new(8);
        let mut asked: Vec<_> = (0..20).map(|n| ask(&turns, &n.to_string(), greedy)).collect();
        let held: Vec<_> = asked.iter_mut().filter_map(poll).collect();
        assert_eq!(held.len(), 6, "{greedy:?}");
        assert!(ask(&turns, "x", other).now_or_never().is_some());
        assert_eq!(turns.counts(), (14, 6));
    }
}

#[test]
fn a_namespace_with_its_share_is_passed_over_while_others_wait() {
    let turns = Turns::new(8);
    let mut many: Vec<_> = (0..20).map(|_| ask(&turns, "many", Lane::Admission)).collect();
    let mut held: Vec<_> = many.iter_mut().filter_map(poll).collect();
    assert_eq!(held.len(), 6, "alone, it has all that its lane may have");
    let mut few: Vec<_> = (0..3).map(|_| ask(&turns, "few", Lane::Admission)).collect();
    for _ in 0..2 {
        held.pop();
    }
    let served: Vec<_> = few.iter_mut().filter_map(poll).collect();
    assert_eq!(
        served.len(),
        2,
        "each permit that comes back goes to the other one"
    );
}

#[test]
fn who_stops_waiting_leaves_nothing_behind() {
    let turns = Turns::new(1);
    let held = ask(&turns, "a", Lane::Admission).now_or_never().unwrap();
    let waiting: Vec<_> = (0..1000)
        .map(|n| ask(&turns, &format!("n-{}", n % 10), Lane::Renewal))
        .collect();
    assert_eq!(turns.counts(), (1000, 1));
    drop(waiting);
    assert_eq!(turns.counts(), (0, 1));
    let state = turns.0.lock();
    assert!(
        state
            .queues
            .iter()
            .all(|q| q.order.is_empty() && q.waiting.is_empty())
    );
    drop(state);
    // One that is served and gone at the same time gives its turn back.
    let served = ask(&turns, "b", Lane::Admission);
    drop(held);
    drop(served);
    assert!(turns.is_idle());
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u8, Lane),
    GiveBack(usize),
    GiveUp(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..6, any::<bool>()).prop_map(|(namespace, renewal)| {
            Step::Ask(namespace, if renewal { Lane::Renewal } else { Lane::Admission })
        }),
        2 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::GiveUp),
    ]
}

proptest! {
    /// Whatever happens in whatever order: no more permits than there are, none idle while someone may have it, and
    /// everyone is served in the end.
    #[test]
    fn permits_are_neither_lost_nor_multiplied(limit in 1_usize..12, steps in prop::collection::vec(step(), 0..200)) {
        let turns = Turns::new(limit);
        let (mut waiting, mut held): (Vec<(Lane, Taking)>, Vec<(Lane, Turn)>) = (Vec::new(), Vec::new());
        let collect = |waiting: &mut Vec<(Lane, Taking)>, held: &mut Vec<(Lane, Turn)>| {
            waiting.retain_mut(|(lane, taking)| match poll(taking) {
                Some(turn) => { held.push((*lane, turn)); false }
                None => true,
            });
        };
        for step in steps {
            match step {
                Step::Ask(namespace, lane) => waiting.push((lane, ask(&turns, &namespace.to_string(), lane))),
                Step::GiveBack(n) if !held.is_empty() => drop(held.remove(n % held.len())),
                Step::GiveUp(n) if !waiting.is_empty() => drop(waiting.remove(n % waiting.len())),
                _ => {}
            }
            collect(&mut waiting, &mut held);
            prop_assert_eq!(turns.counts(), (waiting.len(), held.len()));
            prop_assert!(held.len() <= limit);
            let most = limit - limit / 4;
            for lane in [Lane::Admission, Lane::Renewal] {
                let holds = held.iter().filter(|(l, _)| *l == lane).count();
                prop_assert!(holds <= most);
                let waits = waiting.iter().any(|(l, _)| *l == lane);
                prop_assert!(!waits || holds == most || held.len() == limit, "a permit is idle");
            }
        }
        let mut rounds = HashSet::new();
        while !waiting.is_empty() {
            held.clear();
            collect(&mut waiting, &mut held);
            prop_assert!(rounds.insert(waiting.len()), "nobody was served");
        }
        drop(held);
        prop_assert!(turns.is_idle());
    }
}
