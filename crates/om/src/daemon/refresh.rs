//! Owns when files of what runs are brought up to date: when a key that they come from was changed, and every hour, as
//! certificates have to be renewed in time. Does not own what the files are.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use om_core::{
    instance::{InstanceConfig, ResourceKind},
    path::ObjectPath,
    status::Status,
    view::View,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::daemon::{
    app::App,
    executor::Executor,
    journal::{Journal, Level},
};

/// Time between two looks at everything.
const PERIOD: Duration = Duration::from_secs(3600);
/// Keys are often changed one after the other: one refresh serves all of them.
const SETTLING: Duration = Duration::from_millis(200);
/// Services that are refreshed at a time.
const PARALLEL: usize = 4;

/// What has to be refreshed.
#[derive(Debug, Default)]
pub struct Due {
    what: Mutex<What>,
    changed: Notify,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum What {
    #[default]
    Nothing,
    /// What uses keys of these objects.
    Of(BTreeSet<ObjectPath>),
    Everything,
}

impl Due {
    /// Keys of an object may be others than before.
    pub fn keys(&self, object: &ObjectPath) {
        let mut what = self.what.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *what {
            What::Nothing => *what = What::Of(BTreeSet::from([object.clone()])),
            What::Of(objects) => drop(objects.insert(object.clone())),
            What::Everything => {}
        }
        self.changed.notify_one();
    }

    /// All files may have to be others.
    pub fn everything(&self) {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner) = What::Everything;
        self.changed.notify_one();
    }

    fn take(&self) -> What {
        std::mem::take(&mut *self.what.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Refreshes what is due, until it is dropped.
pub async fn run(app: Arc<App>, executor: Executor) {
    let mut next = Instant::now() + PERIOD;
    loop {
        tokio::select! {
            () = app.refresh.changed.notified() => sleep(SETTLING).await,
            () = sleep_until(next) => app.refresh.everything(),
        }
        let what = app.refresh.take();
        if what == What::Everything {
            next = Instant::now() + PERIOD;
        }
        let due = app.engine.read(|view| due(view, &what));
        let (slots, mut tasks) = (Arc::new(Semaphore::new(PARALLEL)), JoinSet::new());
        for config in due {
            let (executor, slots, journal) = (executor.clone(), Arc::clone(&slots), app.journal.clone());
            tasks.spawn(async move {
                let _slot = slots.acquire_owned().await;
                one(&executor, &config, &journal).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

async fn one(executor: &Executor, config: &Arc<InstanceConfig>, journal: &Journal) {
    for (rid, error) in executor.refresh(config).await {
        let text = format!("the files of {rid} are not brought up to date: {error}");
        journal.say(Level::Warn, Some(&config.path), Some(&rid), text);
    }
}

/// The instances that run here and have files of what changed.
fn due(view: &View, what: &What) -> Vec<Arc<InstanceConfig>> {
    let runs = |status: Status| !matches!(status, Status::Down | Status::NotApplicable);
    let running = view.objects.values().filter_map(|object| {
        let config = object.config.as_ref()?;
        let report = object.report(&view.me)?;
        report.resources.values().any(|seen| runs(seen.status)).then_some(config)
    });
    running.filter(|config| concerns(config, what)).cloned().collect()
}

fn concerns(config: &InstanceConfig, what: &What) -> bool {
    let has_files = config
        .resources
        .values()
        .any(|resource| matches!(resource.kind, ResourceKind::Container(_) | ResourceKind::Volume(_)));
    match what {
        What::Nothing => false,
        What::Everything => has_files,
        // Which of them it names is not asked: patterns may match what is new, and what is up to date is left alone.
        What::Of(objects) => has_files && objects.iter().any(|object| object.namespace == config.path.namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{texts, world::tests::world};

    #[test]
    fn what_has_files_of_a_namespace_is_refreshed() {
        let check = |text: &str, change: fn(&Due), expected: bool| {
            let due = Due::default();
            change(&due);
            let read = texts::read(&world(""), &"test/registry".parse().unwrap(), text).unwrap();
            assert_eq!(concerns(&read.instance.unwrap(), &due.take()), expected, "{text}");
            assert_eq!(due.take(), What::Nothing);
        };
        let (container, flag) = ("[container#0]\nimage = registry\n", "[fs#1]\ntype = flag\n");
        let keys = |due: &Due| due.keys(&"test/sec/tls".parse().unwrap());
        check(container, keys, true);
        check(container, |due| due.keys(&"other/sec/tls".parse().unwrap()), false);
        check(container, |_| {}, false);
        check(flag, keys, false);
        check(flag, Due::everything, false);
        check(
            container,
            |due| {
                due.everything();
                due.keys(&"other/sec/tls".parse().unwrap());
            },
            true,
        );
    }
}
