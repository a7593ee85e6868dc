use super::*;
use futures::FutureExt;
use proptest::prelude::*;
use std::{collections::HashSet, pin::Pin, task::Context};

impl FairSemaphore {
    /// The numbers of waiters and of held permits.
    fn counts(&self) -> (usize, usize) {
        let state = self.0.state.lock();
        let waiting = |queue: &Queue| queue.waiting.values().map(BTreeMap::len).sum::<usize>();
        (
            state.queues.iter().map(waiting).sum(),
            state.held_by_lane.iter().sum::<usize>(),
        )
    }

    /// Whether there are neither waiters nor held permits.
    fn is_idle(&self) -> bool {
        self.counts() == (0, 0)
    }
}

type Acquire = Pin<Box<dyn Future<Output = FairPermit> + Send>>;

/// A waiter that has asked for a permit.
fn ask(semaphore: &FairSemaphore, namespace: &str, lane: Lane) -> Acquire {
    let (semaphore, namespace) = (semaphore.clone(), namespace.to_owned());
    let mut acquire: Acquire = Box::pin(async move { semaphore.acquire(&namespace, lane).await });
    // A future enters the queue when it is first polled.
    match poll(&mut acquire) {
        Some(permit) => Box::pin(std::future::ready(permit)),
        None => acquire,
    }
}

fn poll(acquire: &mut Acquire) -> Option<FairPermit> {
    match acquire
        .as_mut()
        .poll(&mut Context::from_waker(std::task::Waker::noop()))
    {
        std::task::Poll::Ready(permit) => Some(permit),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn namespaces_are_served_in_rotation() {
    let semaphore = FairSemaphore::new(1);
    let first = ask(&semaphore, "a", Lane::Admission).now_or_never().unwrap();
    let mut waiting: Vec<_> = ["a", "a", "a", "a", "b", "c"]
        .into_iter()
        .map(|namespace| (namespace, ask(&semaphore, namespace, Lane::Admission)))
        .collect();
    drop(first);
    let mut order = String::new();
    while !waiting.is_empty() {
        let served = waiting
            .iter_mut()
            .position(|(_, acquire)| poll(acquire).is_some());
        order += waiting.remove(served.unwrap()).0;
    }
    assert_eq!(order, "abcaaa");
    assert!(semaphore.is_idle());
}

#[test]
fn each_lane_leaves_permits_to_the_other() {
    for (greedy, other) in [(Lane::Admission, Lane::Renewal), (Lane::Renewal, Lane::Admission)] {
        let semaphore = FairSemaphore::new(8);
        let mut asked: Vec<_> = (0..20).map(|n| ask(&semaphore, &n.to_string(), greedy)).collect();
        let held: Vec<_> = asked.iter_mut().filter_map(poll).collect();
        assert_eq!(held.len(), 6, "{greedy:?}");
        assert!(ask(&semaphore, "x", other).now_or_never().is_some());
        assert_eq!(semaphore.counts(), (14, 6));
    }
}

#[test]
fn a_namespace_with_its_full_share_yields_to_waiting_namespaces() {
    let semaphore = FairSemaphore::new(8);
    let mut many: Vec<_> = (0..20)
        .map(|_| ask(&semaphore, "many", Lane::Admission))
        .collect();
    let mut held: Vec<_> = many.iter_mut().filter_map(poll).collect();
    assert_eq!(
        held.len(),
        6,
        "a single namespace may hold all permits of its lane"
    );
    let mut few: Vec<_> = (0..3).map(|_| ask(&semaphore, "few", Lane::Admission)).collect();
    for _ in 0..2 {
        held.pop();
    }
    let served: Vec<_> = few.iter_mut().filter_map(poll).collect();
    assert_eq!(
        served.len(),
        2,
        "each released permit goes to the other namespace"
    );
}

#[test]
fn cancelled_waiters_leave_the_queues() {
    let semaphore = FairSemaphore::new(1);
    let held = ask(&semaphore, "a", Lane::Admission).now_or_never().unwrap();
    let waiting: Vec<_> = (0..1000)
        .map(|n| ask(&semaphore, &format!("n-{}", n % 10), Lane::Renewal))
        .collect();
    assert_eq!(semaphore.counts(), (1000, 1));
    drop(waiting);
    assert_eq!(semaphore.counts(), (0, 1));
    let state = semaphore.0.state.lock();
    assert!(
        state
            .queues
            .iter()
            .all(|q| q.rotation.is_empty() && q.waiting.is_empty())
    );
    drop(state);
    // A waiter that is cancelled after its permit was granted returns the permit.
    let served = ask(&semaphore, "b", Lane::Admission);
    drop(held);
    drop(served);
    assert!(semaphore.is_idle());
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
    /// For any sequence of steps: the limit is kept, no permit stays idle while a waiter may have it, and every waiter
    /// is served eventually.
    #[test]
    fn permits_are_never_lost_or_duplicated(limit in 1_usize..12, steps in prop::collection::vec(step(), 0..200)) {
        let semaphore = FairSemaphore::new(limit);
        let (mut waiting, mut held) = (Vec::<(Lane, Acquire)>::new(), Vec::<(Lane, FairPermit)>::new());
        let collect = |waiting: &mut Vec<(Lane, Acquire)>, held: &mut Vec<(Lane, FairPermit)>| {
            waiting.retain_mut(|(lane, acquire)| match poll(acquire) {
                Some(permit) => { held.push((*lane, permit)); false }
                None => true,
            });
        };
        for step in steps {
            match step {
                Step::Ask(namespace, lane) => waiting.push((lane, ask(&semaphore, &namespace.to_string(), lane))),
                Step::GiveBack(n) if !held.is_empty() => drop(held.remove(n % held.len())),
                Step::GiveUp(n) if !waiting.is_empty() => drop(waiting.remove(n % waiting.len())),
                _ => {}
            }
            collect(&mut waiting, &mut held);
            prop_assert_eq!(semaphore.counts(), (waiting.len(), held.len()));
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
            prop_assert!(rounds.insert(waiting.len()), "no waiter was served");
        }
        drop(held);
        prop_assert!(semaphore.is_idle());
    }
}
