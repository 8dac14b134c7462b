//! Many bottles at once: more than the engine's own address pools would carry.

use bottle::docker::image;

use crate::common::manifest::Manifest;
use crate::support::{Bottle, images};

#[test]
fn twenty_bottles_start_at_once_work_and_are_reaped() {
    if !images() {
        return;
    }
    let bottle = Bottle::new(&Manifest::new().image(&image("probe"))).with_whole_pool();
    // Each agent looks for a way out itself, so that a bottle that only came up does not count.
    let run = bottle
        .sh("seq 20 | xargs -P 20 -I N bottle start implementer --slug agent-N -- bottle-probe check")
        .run();
    assert_eq!(run.status, 0, "{}", run.report());
    assert_eq!(run.stdout.matches("closed: ").count(), 20, "{}", run.report());
    bottle.is_gone();
    let logs = bottle.sh("ls -d \"$BOTTLE_STATE\"/archive/agent-*/compose.log | wc -l").run().ok();
    assert_eq!(logs.trim(), "20");
}
