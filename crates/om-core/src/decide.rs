//! Owns what a node does next: [`decide`], a pure function of what the node knows. Does not own how it is done, nor in
//! which order resources are taken, which is [`crate::plan`]'s.
//!
//! Every action says what it was decided on, so that whoever carries it out can compare: an owner or a want that was
//! changed meanwhile makes it void. On equal views it says the same.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    aggregate::effective,
    instance::{InstanceConfig, Orchestrate},
    kv::Rev,
    path::{Kind, NodeName, ObjectPath, Rid},
    placement::rank,
    status::{Provisioned, Status},
    view::{Failure, Job, ObjectView, Order, Owner, Phase, Report, Target, View, Want, Work},
};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node whose renewals stopped is declared dead.
    DeclareDead {
        /// Which.
        node: NodeName,
        /// Its session as it was seen.
        seen: Rev,
    },
    /// Who owns a service changes.
    Own {
        /// Which.
        path: ObjectPath,
        /// The owner as it was seen; none: nobody.
        seen: Option<Rev>,
        /// The owner from now on.
        owner: Owner,
        /// Why, for the log.
        why: &'static str,
    },
    /// What is wanted of an object changes: an order ended, or goes on as another.
    Wish {
        /// Which.
        path: ObjectPath,
        /// The want as it was seen.
        seen: Rev,
        /// The want from now on.
        want: Want,
    },
    /// A job is begun.
    Run {
        /// Of which object.
        path: ObjectPath,
        /// What.
        job: Job,
        /// Why, for the log.
        why: &'static str,
    },
    /// The running job is ended, and taken back.
    Cancel {
        /// Of which object.
        path: ObjectPath,
    },
    /// An object is removed.
    Forget {
        /// Which.
        path: ObjectPath,
        /// Its configuration as it was seen.
        generation: u64,
        /// Its want as it was seen.
        want: Rev,
    },
    /// There is nothing to do before this time, of [`View::now`].
    Wait {
        /// When.
        until: Duration,
    },
}

/// What this node does next.
///
/// At most one action of an object: the next follows from what has become of it.
pub fn decide(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut soonest: Option<Duration> = None;
    let mut wait = |until: Duration| soonest = Some(soonest.map_or(until, |soonest| soonest.min(until)));
    for (place, (name, node)) in view.nodes.iter().enumerate() {
        let session = &node.session.value;
        if *name == view.me || !session.live || !view.is_live() {
            continue;
        }
        // Not all at once: the first to see it writes, the others see what was written.
        let limit = session.takeover + Duration::from_millis(500) * u32::try_from(place).unwrap_or(0);
        if node.age >= limit {
            actions.push(Action::DeclareDead { node: name.clone(), seen: node.session.rev });
        } else {
            wait(view.now + (limit - node.age));
        }
    }
    let mut due: Vec<(u32, Action)> = Vec::new();
    for (path, object) in &view.objects {
        let one = One { view, path, object };
        match one.decide() {
            Some(Action::Wait { until }) => wait(until),
            Some(action) => due.push((object.config.as_ref().map_or(0, |config| config.priority), action)),
            None => {}
        }
    }
    due.sort_by_key(|(priority, action)| (urgency(action), *priority));
    actions.extend(due.into_iter().map(|(_, action)| action));
    actions.extend(soonest.map(|until| Action::Wait { until }));
    actions
}

/// Which kinds of actions come first: what makes it safe, then what frees, then what starts.
fn urgency(action: &Action) -> u8 {
    match action {
        Action::DeclareDead { .. } => 0,
        Action::Cancel { .. } => 1,
        Action::Run { job, .. } if matches!(job.work, Work::Stop | Work::Unprovision) => 2,
        Action::Wish { .. } | Action::Forget { .. } => 3,
        Action::Own { .. } => 4,
        Action::Run { .. } => 5,
        Action::Wait { .. } => 6,
    }
}

/// One object, seen from this node.
struct One<'a> {
    view: &'a View,
    path: &'a ObjectPath,
    object: &'a ObjectView,
}

impl One<'_> {
    fn decide(&self) -> Option<Action> {
        let want = &self.object.want.value;
        let order = want.order.as_ref();
        if let Some(job) = &self.object.local.job {
            // Whoever asked does not want it any more, or something else.
            let other = job.request.is_some() && job.request != order.map(|order| order.id.clone());
            return other.then(|| Action::Cancel { path: self.path.clone() });
        }
        let Some(config) = self.object.config.as_deref() else {
            // Nothing can be stopped without knowing what; what is there stays, and the object can still be removed.
            let gone = order.is_some_and(|o| matches!(o.target, Target::Deleted | Target::Purged));
            return gone.then(|| self.forget());
        };
        if !config.nodes.contains(&self.view.me) {
            return self.elsewhere(config, order);
        }
        if !self.object.local.seen {
            return None;
        }
        let report = self.object.report(&self.view.me)?;
        if let Some(action) = self.safety(config, report) {
            return Some(action);
        }
        if config.disable {
            return order.map(|_| self.end(Some(failure("the object is disabled", "om … enable"))));
        }
        match order {
            Some(order) => self.order(config, report, order),
            None => self.idle(config, report),
        }
    }

    /// What must be whatever anybody wants: nobody runs what he does not own.
    fn safety(&self, config: &InstanceConfig, report: &Report) -> Option<Action> {
        if !self.is_exclusive(config) {
            return None;
        }
        let runs = has_any_up(config, report);
        if !self.view.is_live() {
            return runs.then(|| self.run(Job::new(Work::Stop), "this node's session is not renewed"));
        }
        match &self.object.owner {
            Some(owner) if owner.value.node == self.view.me && owner.value.phase == Phase::Held => {
                // After a boot, or a lost session: what ran then is gone or was adopted.
                (owner.value.epoch != self.view.epoch()).then(|| self.own(Phase::Held, "a new session of this node"))
            }
            Some(owner) if runs && owner.value.phase == Phase::Held => {
                Some(self.run(Job::new(Work::Stop), "another node owns it"))
            }
            _ if runs => Some(self.own(Phase::Held, "it runs here already")),
            _ => None,
        }
    }

    /// An order, with this node among those it may run on.
    fn order(&self, config: &InstanceConfig, report: &Report, order: &Order) -> Option<Action> {
        if let Some(action) = self.refused(order) {
            return Some(action);
        }
        match &order.target {
            Target::Started => self.started(config, report, order, None),
            Target::Placed(node) => self.placed(config, report, order, node),
            Target::Giveback => match rank(config).into_iter().find(|node| self.can_run(config, node, order)) {
                Some(node) => self.placed(config, report, order, &node),
                None => self.started(config, report, order, None),
            },
            Target::Restarted => self.restarted(config, report, order),
            Target::Stopped | Target::Shutdown => self.stopped(config, report, order, false),
            Target::Deleted => self.stopped(config, report, order, true),
            Target::Provisioned => self.provisioned(config, report, order),
            Target::Unprovisioned => self.unprovisioned(config, report, order, false),
            Target::Purged => self.unprovisioned(config, report, order, true),
        }
    }

    /// Orders that make no sense now.
    fn refused(&self, order: &Order) -> Option<Action> {
        if self.path.kind != Kind::Vol || !order.target.stops() || order.force {
            return None;
        }
        let children = self.object.config.as_ref().and_then(|config| config.volume.as_ref());
        let user = children.into_iter().flat_map(|volume| &volume.children).find(|child| {
            self.view.objects.get(*child).is_some_and(|child| {
                child.reports.values().any(|r| matches!(r.summary.avail, Status::Up | Status::Warn))
            })
        })?;
        Some(self.end(Some(failure(format!("the volume is used by {user}"), format!("om {user} stop")))))
    }

    fn started(
        &self,
        config: &InstanceConfig,
        report: &Report,
        order: &Order,
        only: Option<&NodeName>,
    ) -> Option<Action> {
        if self.up_on().next().is_some() {
            return Some(self.end(None));
        }
        if self.others_busy() {
            return None;
        }
        let candidate = match only {
            Some(node) => Some(node.clone()).filter(|node| self.can_run(config, node, order)),
            None => rank(config).into_iter().find(|node| self.can_run(config, node, order)),
        };
        let Some(candidate) = candidate else { return Some(self.end(Some(self.why_not(config, order)))) };
        if candidate != self.view.me {
            // It failed here: the next node may have it.
            return self.release(config, report, "another node starts it");
        }
        if report.done.as_deref() == Some(order.id.as_str()) {
            // Everything was started, and still it is not up.
            let reason = failure(
                format!("it was started, but is {}", report.summary.avail),
                format!("om {} print status -r", self.path),
            );
            // An instance without anything to be up is as it should be.
            let fine = matches!(report.summary.avail, Status::NotApplicable | Status::StandbyUp);
            return Some(self.end((!fine).then_some(reason)));
        }
        self.with_ownership(config, Job::new(Work::Start).ordered(order), "ordered")
    }

    fn placed(&self, config: &InstanceConfig, report: &Report, order: &Order, to: &NodeName) -> Option<Action> {
        if !config.nodes.contains(to) {
            let nodes: Vec<&str> = config.nodes.iter().map(NodeName::as_str).collect();
            let reason = failure(format!("{to} is not a node of it"), format!("its nodes are {}", nodes.join(" ")));
            return Some(self.end(Some(reason)));
        }
        if self.up_on().any(|node| node == to) {
            return Some(self.end(None));
        }
        if *to != self.view.me && has_any_up(config, report) {
            return match self.object.failure(&self.view.me) {
                Some((Work::Stop, _, why)) => Some(self.end(Some(why.clone()))),
                _ if !self.can_run(config, to, order) => Some(self.end(Some(self.why_not(config, order)))),
                _ => Some(self.run(Job::new(Work::Stop).ordered(order), "it moves")),
            };
        }
        if *to != self.view.me
            && let Some(action) = self.release(config, report, "it moves")
        {
            return Some(action);
        }
        if self.up_on().next().is_some() {
            return None;
        }
        self.started(config, report, order, Some(to))
    }

    fn restarted(&self, config: &InstanceConfig, report: &Report, order: &Order) -> Option<Action> {
        let done = |node: &NodeName| self.object.report(node).is_some_and(|r| r.done.as_deref() == Some(&order.id));
        if let Some(node) = config.nodes.iter().find(|node| done(node)) {
            let avail = self.object.report(node).map_or(Status::Undef, |report| report.summary.avail);
            let bad = matches!(avail, Status::Down | Status::Warn | Status::StandbyDown);
            return Some(self.end(bad.then(|| {
                failure(format!("it was restarted, but is {avail}"), format!("om {} print status -r", self.path))
            })));
        }
        if let Some((_, Some(request), why)) = config.nodes.iter().find_map(|node| self.object.failure(node))
            && request == order.id
        {
            return Some(self.end(Some(why.clone())));
        }
        if has_any_up(config, report) {
            return self.with_ownership(config, Job::new(Work::Restart).ordered(order), "ordered");
        }
        let elsewhere = config.nodes.iter().any(|node| *node != self.view.me && self.runs_on(config, node));
        if elsewhere { None } else { self.started(config, report, order, None) }
    }

    fn stopped(&self, config: &InstanceConfig, report: &Report, order: &Order, forget: bool) -> Option<Action> {
        if let Some((Work::Stop, Some(request), why)) = self.object.failure(&self.view.me)
            && request == order.id
        {
            return Some(self.end(Some(why.clone())));
        }
        let done = report.done.as_deref() == Some(order.id.as_str());
        let left = if order.target == Target::Shutdown || order.force || forget {
            has_standby_up(config, report) || has_any_up(config, report)
        } else {
            has_any_up(config, report)
        };
        if left && done {
            let reason =
                failure("it was stopped, but something of it still runs", format!("om {} print status -r", self.path));
            return Some(self.end(Some(reason)));
        }
        if left || (report.expected && !done) {
            let mut job = Job::new(Work::Stop).ordered(order);
            job.force |= forget;
            return Some(self.run(job, "ordered"));
        }
        if let Some(action) = self.release(config, report, "it is stopped") {
            return Some(action);
        }
        let elsewhere = config.nodes.iter().any(|node| *node != self.view.me && self.runs_on(config, node));
        match (elsewhere || self.others_busy(), forget) {
            (true, _) => None,
            (false, true) => Some(self.forget()),
            (false, false) => Some(self.end(None)),
        }
    }

    fn provisioned(&self, config: &InstanceConfig, report: &Report, order: &Order) -> Option<Action> {
        if let Some((_, Some(request), why)) = config.nodes.iter().find_map(|node| self.object.failure(node))
            && request == order.id
        {
            return Some(self.end(Some(why.clone())));
        }
        let made =
            |report: &Report| matches!(report.summary.provisioned, Provisioned::Yes | Provisioned::NotApplicable);
        let live: Vec<NodeName> = rank(config).into_iter().filter(|node| self.view.lives(node)).collect();
        // Where it runs already, if it does: what is shared is there.
        let holder = self.object.owner.as_ref().filter(|owner| owner.value.phase == Phase::Held);
        let leader = holder.map(|owner| &owner.value.node).filter(|node| live.contains(node)).or(live.first())?;
        let leads = *leader == self.view.me;
        let done = |report: &Report| report.done.as_deref() == Some(order.id.as_str());
        // An instance that is made already may still have parts that were added since; they are found by a plan that
        // is not empty, and an empty one costs nothing.
        if !done(report) {
            let leader_done = self.object.report(leader).is_some_and(&done);
            if !leads && !leader_done {
                return None;
            }
            let mut job = Job::new(Work::Provision).ordered(order);
            job.leader = leads;
            if leads {
                return self.with_ownership(config, job, "ordered");
            }
            return Some(self.run(job, "ordered"));
        }
        if !leads || !live.iter().all(|node| self.object.report(node).is_some_and(|r| done(r) && made(r))) {
            let stuck = leads && !made(report);
            return stuck.then(|| {
                self.end(Some(failure("not everything was made", format!("om {} print status -r", self.path))))
            });
        }
        // From here it is an order to start.
        let want = Want {
            order: Some(Order { target: Target::Started, ..order.clone() }),
            frozen: None,
            ..self.object.want.value.clone()
        };
        Some(self.wish(want))
    }

    fn unprovisioned(&self, config: &InstanceConfig, report: &Report, order: &Order, forget: bool) -> Option<Action> {
        if let Some((_, Some(request), why)) = config.nodes.iter().find_map(|node| self.object.failure(node))
            && request == order.id
        {
            return Some(self.end(Some(why.clone())));
        }
        let live: Vec<NodeName> = rank(config).into_iter().filter(|node| self.view.lives(node)).collect();
        let done = |node: &&NodeName| self.object.report(node).is_some_and(|r| r.done.as_deref() == Some(&order.id));
        if !done(&&self.view.me) {
            // What is shared goes last.
            let leads = live.first() == Some(&self.view.me);
            if leads && !live.iter().skip(1).all(|node| done(&node)) {
                return None;
            }
            let mut job = Job::new(Work::Unprovision).ordered(order);
            job.leader = leads;
            return Some(self.run(job, "ordered"));
        }
        if let Some(action) = self.release(config, report, "it is unprovisioned") {
            return Some(action);
        }
        match (live.iter().all(|node| done(&node)), forget) {
            (false, _) => None,
            (true, true) => Some(self.forget()),
            (true, false) => Some(self.end(None)),
        }
    }

    /// No order: what runs is kept running, what should run is started.
    fn idle(&self, config: &InstanceConfig, report: &Report) -> Option<Action> {
        if self.path.kind != Kind::Svc {
            return None;
        }
        let frozen = self.object.want.value.frozen.is_some() || self.view.is_frozen(&self.view.me);
        let unknown = is_unknown(config, report);
        if !frozen
            && !unknown
            && let Some(action) = self.resume(config, report)
        {
            return Some(action);
        }
        if !frozen
            && !unknown
            && report.expected
            && let Some(action) = self.repair(config, report)
        {
            return Some(action);
        }
        if let Some(action) = self.start(config, frozen || unknown) {
            return Some(action);
        }
        // What is not started again is given up, so that an order may have it run elsewhere.
        let over = !unknown && !has_any_up(config, report);
        if over { self.release(config, report, "nothing of it runs") } else { None }
    }

    /// Starts what should run and runs nowhere, if this is the node for it.
    fn start(&self, config: &InstanceConfig, held_back: bool) -> Option<Action> {
        if held_back || !self.view.is_live() || self.others_busy() {
            return None;
        }
        let due = match config.orchestrate {
            Orchestrate::No => false,
            Orchestrate::Ha => true,
            Orchestrate::Start => self.object.local.booted && rank(config).first() == Some(&self.view.me),
        };
        let idle = |status: Status| matches!(status, Status::Down | Status::StandbyUp | Status::StandbyDown);
        let nobody = config.nodes.iter().all(|node| match self.object.report(node) {
            _ if !self.view.lives(node) => true,
            Some(report) => idle(report.summary.avail),
            None => *node != self.view.me,
        });
        let candidate = rank(config).into_iter().find(|node| self.can_start(config, node));
        if !due || !nobody || candidate.as_ref() != Some(&self.view.me) {
            return None;
        }
        if self.object.local.not_before > self.view.now {
            return Some(Action::Wait { until: self.object.local.not_before });
        }
        self.with_ownership(config, Job::new(Work::Start), "it should run")
    }

    /// Starts what ended with the container engine, or while nobody looked: that is no death that its restarts count.
    fn resume(&self, config: &InstanceConfig, report: &Report) -> Option<Action> {
        let local = &self.object.local;
        if !local.interrupted || !report.expected || config.orchestrate == Orchestrate::No {
            return None;
        }
        let is_down = |(rid, resource)| {
            matches!(effective(resource, report.resources.get(rid)), Status::Down | Status::StandbyDown)
        };
        if !config.resources.iter().any(is_down) || self.object.failure(&self.view.me).is_some() {
            return None;
        }
        if local.not_before > self.view.now {
            return Some(Action::Wait { until: local.not_before });
        }
        self.with_ownership(config, Job { keep: true, ..Job::new(Work::Start) }, "it ended with what runs it")
    }

    /// Starts again what died, as often as its configuration says.
    fn repair(&self, config: &InstanceConfig, report: &Report) -> Option<Action> {
        if self.object.failure(&self.view.me).is_some_and(|(work, ..)| work == Work::Stop) {
            return None;
        }
        let mut only = BTreeSet::new();
        let mut later: Option<Duration> = None;
        let mut spent = false;
        for (rid, resource) in &config.resources {
            let down = matches!(effective(resource, report.resources.get(rid)), Status::Down | Status::StandbyDown);
            if !down {
                continue;
            }
            if report.restarts.get(rid).is_none_or(|left| *left == 0) {
                spent |= resource.monitor;
                continue;
            }
            match self.object.local.resources.get(rid).copied().filter(|at| *at > self.view.now) {
                Some(at) => later = Some(later.map_or(at, |later: Duration| later.min(at))),
                None => {
                    only.insert(rid.clone());
                }
            }
        }
        if !only.is_empty() {
            let job = Job { only, keep: true, ..Job::new(Work::Repair) };
            return self.with_ownership(config, job, "a resource died");
        }
        if let Some(until) = later {
            return Some(Action::Wait { until });
        }
        let others = config.nodes.iter().any(|node| *node != self.view.me && self.can_start(config, node));
        (spent && others && config.orchestrate == Orchestrate::Ha)
            .then(|| self.run(Job::new(Work::Stop), "a resource that matters is down for good"))
    }

    /// This node is not among those it may run on, such as after a change of its configuration.
    fn elsewhere(&self, config: &InstanceConfig, order: Option<&Order>) -> Option<Action> {
        let report = self.object.report(&self.view.me)?;
        if self.object.local.seen && has_any_up(config, report) {
            return Some(self.run(Job::new(Work::Stop), "this is not a node of it any more"));
        }
        // Where none of its nodes lives, anybody may end an order that waits for them.
        let first = self.view.members.iter().find(|node| self.view.lives(node)) == Some(&self.view.me);
        let nobody = !config.nodes.iter().any(|node| self.view.lives(node));
        (order.is_some() && first && nobody).then(|| self.end(Some(failure("none of its nodes is alive", "om mon"))))
    }

    /// Runs a job that needs the service to be this node's, after making it so.
    fn with_ownership(&self, config: &InstanceConfig, job: Job, why: &'static str) -> Option<Action> {
        if !self.view.is_live() {
            return None;
        }
        if !self.is_exclusive(config) {
            return Some(self.run(job, why));
        }
        match &self.object.owner {
            Some(owner) if owner.value.phase == Phase::Held && owner.value.node == self.view.me => {
                Some(self.run(job, why))
            }
            Some(owner) if owner.value.phase == Phase::Held && self.view.lives(&owner.value.node) => None,
            Some(owner) if owner.value.phase == Phase::Held => {
                Some(self.own(Phase::Held, "its owner's session is dead"))
            }
            _ => Some(self.own(Phase::Held, why)),
        }
    }

    fn release(&self, config: &InstanceConfig, report: &Report, why: &'static str) -> Option<Action> {
        let owner = self.object.owner.as_ref()?;
        let mine = owner.value.node == self.view.me && owner.value.phase == Phase::Held;
        (mine && !has_any_up(config, report)).then(|| self.own(Phase::Free, why))
    }

    /// Whether only one node at a time may run it.
    fn is_exclusive(&self, _: &InstanceConfig) -> bool {
        self.path.kind == Kind::Svc
    }

    /// Whether a node can take it by order.
    fn can_run(&self, config: &InstanceConfig, node: &NodeName, order: &Order) -> bool {
        let failed = self.object.failure(node).is_some_and(|(_, request, _)| request == Some(&order.id));
        config.nodes.contains(node) && self.view.lives(node) && !failed && self.object.report(node).is_some()
    }

    /// Whether a node can take it by itself.
    fn can_start(&self, config: &InstanceConfig, node: &NodeName) -> bool {
        let Some(report) = self.object.report(node) else { return false };
        config.nodes.contains(node)
            && self.view.lives(node)
            && !self.view.is_frozen(node)
            && self.object.failure(node).is_none()
            && !is_unknown(config, report)
            && matches!(report.summary.provisioned, Provisioned::Yes | Provisioned::NotApplicable)
    }

    fn why_not(&self, config: &InstanceConfig, order: &Order) -> Failure {
        let of_order = |node: &NodeName| match self.object.failure(node) {
            Some((_, request, why)) if request == Some(&order.id) => Some(why.clone()),
            _ => None,
        };
        let first = rank(config).iter().find_map(of_order);
        first.unwrap_or_else(|| failure("no node can run it now", format!("om {} print status", self.path)))
    }

    fn up_on(&self) -> impl Iterator<Item = &NodeName> {
        let up = |(node, report): &(&NodeName, &Report)| report.summary.avail == Status::Up && self.view.lives(node);
        self.object.reports.iter().filter(up).map(|(node, _)| node)
    }

    fn runs_on(&self, config: &InstanceConfig, node: &NodeName) -> bool {
        self.view.lives(node) && self.object.report(node).is_some_and(|report| has_any_up(config, report))
    }

    fn others_busy(&self) -> bool {
        let nodes = self.object.reports.keys();
        nodes.into_iter().any(|node| *node != self.view.me && self.view.lives(node) && self.object.is_busy(node))
    }

    fn run(&self, job: Job, why: &'static str) -> Action {
        Action::Run { path: self.path.clone(), job, why }
    }

    fn own(&self, phase: Phase, why: &'static str) -> Action {
        let owner = Owner { node: self.view.me.clone(), epoch: self.view.epoch(), phase };
        Action::Own { path: self.path.clone(), seen: self.object.owner.as_ref().map(|owner| owner.rev), owner, why }
    }

    fn wish(&self, want: Want) -> Action {
        Action::Wish { path: self.path.clone(), seen: self.object.want.rev, want }
    }

    fn end(&self, failure: Option<Failure>) -> Action {
        self.wish(self.object.want.value.ended(failure))
    }

    fn forget(&self) -> Action {
        Action::Forget { path: self.path.clone(), generation: self.object.generation, want: self.object.want.rev }
    }
}

fn failure(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure { message: message.into(), hint: Some(hint.into()) }
}

fn statuses<'a>(config: &'a InstanceConfig, report: &'a Report) -> impl Iterator<Item = (&'a Rid, Status)> {
    config.resources.iter().map(|(rid, resource)| (rid, effective(resource, report.resources.get(rid))))
}

/// Whether something of it runs that a stop would stop.
fn has_any_up(config: &InstanceConfig, report: &Report) -> bool {
    let sync = |rid: &Rid| rid.group() == "sync";
    statuses(config, report).any(|(rid, status)| !sync(rid) && matches!(status, Status::Up | Status::Warn))
}

fn has_standby_up(config: &InstanceConfig, report: &Report) -> bool {
    statuses(config, report).any(|(_, status)| status == Status::StandbyUp)
}

/// Whether there are resources of which nothing is known, such as with an engine that does not answer.
fn is_unknown(config: &InstanceConfig, report: &Report) -> bool {
    statuses(config, report).any(|(_, status)| status == Status::Undef)
}

#[cfg(test)]
mod tests;
