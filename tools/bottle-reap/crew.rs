//! Several bottles at once, because most of the time each only waits for the engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use bottle::Slug;
use bottle::docker::Docker;
use bottle::state::State;

use crate::reaper::{End, Reaper, What};
use crate::trouble::Trouble;

/// How many at once; more would only wait for one another in the engine.
const WORKERS: usize = 4;

/// Takes the bottles down, and gives how each ended, in their order.
pub(crate) fn reap(
    state: &State,
    docker: &Docker,
    slugs: &[Slug],
    what: &What,
) -> Vec<(End, Trouble)> {
    let next = AtomicUsize::new(0);
    let (done, all) = mpsc::channel();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(slug) = slugs.get(at) else { return };
            let mut trouble = Trouble::default();
            let end = Reaper::new(state, docker, slug, &mut trouble).reap(what);
            // The receiver outlives every worker.
            let _ = done.send((at, end, trouble));
        }
    };
    thread::scope(|scope| {
        for _ in 1..WORKERS.min(slugs.len()) {
            scope.spawn(work);
        }
        work();
    });
    drop(done);
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(at, ..)| *at);
    all.into_iter().map(|(_, end, trouble)| (end, trouble)).collect()
}
