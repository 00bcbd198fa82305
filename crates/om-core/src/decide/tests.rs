//! Tables of what a node does, and properties of it.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    aggregate,
    plan::tests::{config, seen},
    view::{At, Local, Monitor, NodeView, Session},
};

/// A view of node `a`. Words: `a:up`, `b:down`, `a:undef`, `b:none` (never reported), `a:failed`, `b:busy`, `b:dead`,
/// `own:a`, `own:b`, `free`, `frozen`, `no` (orchestrate), `expected`, `>started`, `done` (the order's job here),
/// `cut` (this node's session is not renewed), `restarts`, `late`.
fn view(words: &str) -> View {
    let words: Vec<&str> = words.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let mut config = config("fs#1 fs#2");
    if has("no") {
        config.orchestrate = Orchestrate::No;
    }
    let order = words.iter().find_map(|word| word.strip_prefix('>')).map(|target| Order {
        id: "r".into(),
        target: Target::from_word(target).expect("a target"),
        force: false,
        keep: false,
    });
    let mut reports = BTreeMap::new();
    for node in ["a", "b"] {
        let state = |word: &str| has(&format!("{node}:{word}"));
        if state("none") {
            continue;
        }
        let mut resources = seen(&config, if state("up") { "*" } else { "" });
        if state("warn") {
            resources = seen(&config, "fs#1");
        }
        if state("undef") {
            resources.values_mut().for_each(|seen| seen.status = Status::Undef);
        }
        let mine = node == "a";
        let failed = Monitor::Failed {
            work: Work::Start,
            request: order.as_ref().map(|order| order.id.clone()),
            cleared: 0,
            failure: failure("it broke", "mend it"),
        };
        let report = Report {
            generation: 1,
            summary: aggregate::instance(&config, &resources),
            resources,
            restarts: if has("restarts") {
                config.resources.keys().map(|rid| (rid.clone(), 1)).collect()
            } else {
                BTreeMap::new()
            },
            monitor: match () {
                () if state("busy") => Monitor::Busy(Work::Start),
                () if state("failed") => failed,
                () => Monitor::Idle,
            },
            expected: mine && has("expected"),
            boot: "1".into(),
            done: (mine && has("done")).then(|| "r".into()),
            updated: 0,
        };
        reports.insert(node.parse().expect("a node"), report);
    }
    let owner = words.iter().find_map(|word| word.strip_prefix("own:").map(|node| (node, Phase::Held)));
    let owner = owner
        .or_else(|| has("free").then_some(("b", Phase::Free)))
        .map(|(node, phase)| At { value: Owner { node: node.parse().expect("a node"), epoch: 1, phase }, rev: Rev(7) });
    let node = |name: &str| {
        let live = !has(&format!("{name}:dead"));
        let session =
            Session { epoch: 1, boot: "1".into(), seq: 1, live, takeover: Duration::from_secs(20), frozen: None };
        let age = Duration::from_secs(if has("late") && name == "b" { 30 } else { 1 });
        (name.parse().expect("a node"), NodeView { session: At { value: session, rev: Rev(5) }, age })
    };
    let want = Want { order, frozen: has("frozen").then_some(1), ..Want::default() };
    let object = ObjectView {
        generation: 1,
        config: Some(Arc::new(config)),
        want: At { value: want, rev: Rev(9) },
        owner,
        reports,
        local: Local { seen: true, interrupted: has("interrupted"), ..Local::default() },
    };
    View {
        me: "a".parse().expect("a node"),
        members: ["a", "b"].map(|node| node.parse().expect("a node")).to_vec(),
        now: Duration::from_secs(100),
        wall: 0,
        renewed: (!has("cut")).then(|| Duration::from_secs(1)),
        soft_stop: Duration::from_secs(8),
        nodes: [node("a"), node("b")].into(),
        objects: [("test/svc/web".parse().expect("a path"), object)].into(),
    }
}

fn said(action: &Action) -> String {
    match action {
        Action::DeclareDead { node, .. } => format!("declare {node} dead"),
        Action::Own { owner, .. } if owner.phase == Phase::Held => format!("own, {}", owner.node),
        Action::Own { .. } => "free".into(),
        Action::Wish { want, .. } => match (&want.order, &want.last) {
            (Some(order), _) => format!(">{}", order.target.word()),
            (None, Some((_, Some(failure)))) => format!("failed: {}", failure.message),
            (None, _) => "fulfilled".into(),
        },
        Action::Run { job, .. } => job.work.verb().into(),
        Action::Cancel { .. } => "cancel".into(),
        Action::Forget { .. } => "forget".into(),
        Action::Wait { .. } => String::new(),
    }
}

fn check(words: &str, expected: &str) {
    let said: Vec<String> = decide(&view(words)).iter().map(said).filter(|text| !text.is_empty()).collect();
    assert_eq!(said.join(", "), expected, "{words}");
}

#[test]
fn what_should_run_is_started() {
    check("", "own, a");
    check("free", "own, a");
    check("own:a", "start");
    check("no", "");
    check("frozen", "");
    check("b:up own:b", "");
    check("b:warn own:b", "");
    check("b:busy", "");
    check("b:none", "own, a");
    check("a:failed", "");
    check("a:failed own:a expected", "free");
    check("a:undef", "");
    check("own:b", "");
    check("own:b b:dead", "own, a");
    check("own:b b:up b:dead", "own, a");
    check("own:b b:up late", "declare b dead");
    check("cut", "");
}

#[test]
fn nobody_runs_what_he_does_not_own() {
    check("a:up own:b", "stop");
    check("a:up own:b frozen", "stop");
    check("a:up own:a cut", "stop");
    check("a:up own:a cut frozen", "stop");
    check("a:up", "own, a");
    check("a:up own:a", "");
    check("a:up own:a frozen", "");
    check("own:a frozen", "free");
}

#[test]
fn orders() {
    check("no >started", "own, a");
    check("no >started own:a", "start");
    check("no >started own:a a:up", "fulfilled");
    check("no >started a:failed", "");
    check("no >started a:failed own:a", "free");
    check("no >started a:failed b:failed", "failed: it broke");
    check("no >started own:a done", "failed: it was started, but is down");
    check("no >stopped frozen own:a a:up", "stop");
    check("no >stopped frozen own:a", "free");
    check("no >stopped frozen free", "fulfilled");
    check("no >stopped frozen b:up own:b", "");
    check("no >stopped frozen own:a a:up done", "failed: it was stopped, but something of it still runs");
    check("no >provisioned frozen own:a", "provision");
    check("no >provisioned frozen", "own, a");
    check("no >provisioned own:b b:up", "");
    check("no >placed@b own:a a:up", "stop");
    check("no >placed@b own:a", "free");
    check("no >placed@a own:a", "start");
    check("no >placed@c own:a", "failed: c is not a node of it");
    check("no >placed@b b:up own:b", "fulfilled");
    check("no >restarted own:a a:up", "restart");
    check("no >restarted own:a a:up done", "fulfilled");
    check("no >purged frozen own:a a:up", "");
    check("no >purged frozen own:a a:up b:dead", "unprovision");
    check("no >purged frozen own:a b:dead done", "free");
    check("no >purged frozen free b:dead done", "forget");
    check("no >deleted frozen free", "forget");
}

#[test]
fn what_died_is_started_again_as_often_as_said() {
    check("no own:a expected restarts a:warn", "repair");
    check("no own:a expected restarts a:warn frozen", "");
    check("no own:a expected a:warn", "");
    check("no own:a restarts a:warn", "");
}

#[test]
fn what_ended_with_the_engine_is_started_again() {
    check("own:a expected a:warn interrupted", "start");
    check("own:a expected a:warn", "");
    check("own:a expected a:warn interrupted frozen", "");
    check("own:a expected a:undef interrupted", "");
    check("own:a expected a:up interrupted", "");
    check("own:a expected a:failed interrupted", "free");
    check("no own:a expected a:warn interrupted", "");
    check("own:a a:warn interrupted", "");
    check("own:a expected restarts a:warn interrupted", "start");
}

fn any_view() -> impl Strategy<Value = String> {
    let word = "(a|b):(up|down|warn|undef|none|failed|busy|dead)|own:(a|b)|free|frozen|no|expected|interrupted|done|cut|restarts|late\
                |>(started|stopped|provisioned|unprovisioned|purged|deleted|restarted|placed|placed@a|placed@b)";
    proptest::collection::vec(word, 0..9).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn it_is_safe(words in any_view()) {
        let view = view(&words);
        let actions = decide(&view);
        prop_assert_eq!(&actions, &decide(&view), "the same twice");
        let object = view.objects.values().next().expect("an object");
        let mine = object.owner.as_ref().is_some_and(|o| o.value.node == view.me && o.value.phase == Phase::Held);
        for action in &actions {
            let Action::Run { job, .. } = action else { continue };
            let starts = matches!(job.work, Work::Start | Work::Repair | Work::Restart);
            prop_assert!(!starts || (view.is_live() && mine), "{}: started without owning it", words);
            let frozen = object.want.value.frozen.is_some() && object.want.value.order.is_none();
            prop_assert!(!starts || !frozen, "{}: started what is frozen", words);
        }
        for action in &actions {
            let Action::Own { owner, .. } = action else { continue };
            let other = object.owner.as_ref().filter(|o| o.value.phase == Phase::Held && o.value.node != view.me);
            let taken = owner.phase == Phase::Held && other.is_some_and(|other| view.lives(&other.value.node));
            prop_assert!(!taken, "{}: taken from a node that lives", words);
        }
    }
}
