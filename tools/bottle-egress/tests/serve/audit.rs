//! What is written down, and what happens while it cannot be.

use std::path::{Path, PathBuf};
use std::process::Command;

use bottle::policy::{Reason, Verdict};

use crate::support::{Bottle, RULES, place, read, run, until};

/// A small file system in memory; unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one where a bottle under test reports; `None`, aloud, where nobody may mount.
    fn mount(size: &str) -> Option<Self> {
        let (folder, _) = place();
        let folder = folder.with_extension("disk");
        std::fs::create_dir_all(&folder).unwrap();
        let options = format!("size={size},mode=0700");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&folder));
        if !mounted.status.success() {
            eprintln!("SKIPPED: a full disk needs a small one: {mounted:?}");
            let _ = std::fs::remove_dir(&folder);
            return None;
        }
        Some(Self(folder))
    }

    /// A bottle that reports on it.
    fn bottle(&self, rules: &str, audit: &str) -> Bottle {
        let bottle = Bottle::prepared(rules, |egress| {
            let run =
                egress.get_args().filter_map(|arg| arg.to_str()).find(|arg| arg.ends_with("/run"));
            let run = run.unwrap().trim_start_matches("bottle_run=").to_owned();
            std::fs::remove_dir(&run).unwrap();
            std::os::unix::fs::symlink(&self.0, &run).unwrap();
            egress
        });
        let text = bottle.rules(2, rules).replace("routes:", &format!("audit: {audit}\nroutes:"));
        bottle.replace("routes.yaml", &text);
        until("the policy", || bottle.loaded().filter(|loaded| loaded.generation == 2));
        bottle
    }

    fn fill(&self) {
        let file = self.0.join("filler");
        let output = run(Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", file.display())));
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
    }

    fn grow(&self) {
        let output = run(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0));
        assert!(output.status.success(), "{output:?}");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

fn read_if(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn line_tells_bytes_duration_and_policy_when_the_exchange_is_over() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        e.body();
        e.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234");
        std::thread::sleep(std::time::Duration::from_millis(60));
        e.send("56789");
    });
    let mut client = bottle.tunnel("origin.test:8443");
    let answer = client.ask(
        "POST /x?key=s3cr3t HTTP/1.1\r\nhost: origin.test:8443\r\ncontent-length: 7\r\n\r\n1234567",
    );
    assert_eq!(answer.body, "0123456789");
    let line = &bottle.decisions(1)[0];
    assert_eq!((line.sent, line.received), (7, 10));
    assert!(line.duration_us >= 60_000, "{line:?}");
    assert_eq!(line.policy, bottle.loaded().unwrap().sha256);
    assert_eq!(line.path.as_deref(), Some("/x"));
    assert!(!read(&bottle.folder, "run/decisions.jsonl").contains("s3cr3t"));
}

#[test]
fn line_of_a_client_that_breaks_off_tells_what_had_passed() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| {
        e.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234");
        std::thread::sleep(std::time::Duration::from_secs(5));
    });
    let mut client = bottle.tunnel("origin.test:8443");
    client.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\n\r\n");
    client.read_exact(5);
    drop(client);
    let line = &bottle.decisions(1)[0];
    assert_eq!((line.sent, line.received, line.status), (0, 5, Some(200)));
}

#[test]
fn full_disk_closes_the_way_out_until_there_is_room() {
    let Some(disk) = Disk::mount("128k") else { return };
    let bottle = disk.bottle(RULES, "deny");
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel("origin.test:8443");
    assert_eq!(client.get("/x", "origin.test:8443").status, 200);
    until("it is written", || (!read(&disk.0, "decisions.jsonl").is_empty()).then_some(()));
    disk.fill();
    // What passes before the first write fails is written later.
    let mut passed = 1;
    let refused = until("nothing leaves", || {
        let answer = client.get("/x", "origin.test:8443");
        passed += usize::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (refused.status, refused.header("x-bottle-denied"), refused.header("retry-after")),
        (503, Some("audit"), Some("1"))
    );
    assert!(refused.body.contains("decisions cannot be written down"), "{}", refused.body);
    assert_eq!(origin.take().len(), passed);
    assert_eq!(client.get("/x", "origin.test:8443").status, 503);
    assert!(origin.take().is_empty());
    disk.empty();
    let again = until("it leaves again", || {
        let answer = client.get("/x", "origin.test:8443");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(again.body, "in");
    // Nothing of it is lost: one line for each request that left, and the refusals are there too.
    let lines = until("all is written", || {
        let text = read(&disk.0, "decisions.jsonl");
        text.lines().for_each(crate::schema::check);
        let lines: Vec<bottle::policy::DecisionLine<'_>> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let allowed = lines.iter().filter(|line| line.decision == Verdict::Allow).count();
        let refused = lines.iter().filter(|line| line.reason == Some(Reason::Audit)).count();
        let dropped = lines.iter().any(|line| line.dropped.is_some());
        (allowed == passed + 1 && refused >= 2).then_some(dropped)
    });
    assert!(!lines);
    let told = bottle.stderr();
    assert!(told.contains("write 'decisions.jsonl': No space left"), "{told}");
    assert!(told.contains("it can be written again"), "{told}");
}

#[test]
fn full_disk_holds_nothing_up_where_the_plan_says_so() {
    let Some(disk) = Disk::mount("128k") else { return };
    let bottle = disk.bottle(RULES, "allow");
    let _origin = bottle.tls_origin(|e| e.answer("in"));
    let mut client = bottle.tunnel("origin.test:8443");
    disk.fill();
    // More than the queue holds, and what is being written.
    let path = format!("/ok/{}", "x".repeat(7_000));
    for _ in 0..3_800 {
        assert_eq!(client.get(&path, "origin.test:8443").status, 200);
    }
    assert!(bottle.stderr().contains("trying again"), "{}", bottle.stderr());
    disk.grow();
    until("it is written", || bottle.stderr().contains("it can be written again").then_some(()));
    // What did not fit is counted in the next line that does.
    let dropped = until("the next line", || {
        assert_eq!(client.get("/x", "origin.test:8443").status, 200);
        let text = read(&disk.0, "decisions.jsonl") + &read_if(&disk.0, "decisions.jsonl.1");
        text.lines().find(|line| line.contains("\"dropped\":")).map(str::to_owned)
    });
    crate::schema::check(&dropped);
}

/// A bottle whose journal goes into a pipe that nobody reads yet, and the pipe's other end.
fn piped(audit: &str) -> (Bottle, std::fs::File) {
    let mut reader = None;
    let bottle = Bottle::prepared(RULES, |egress| {
        let run = PathBuf::from(egress.get_args().last().unwrap());
        let pipe = run.join("decisions.jsonl");
        assert!(super::support::run(Command::new("mkfifo").arg(&pipe)).status.success());
        // For both, so that neither side waits for the other one.
        reader = Some(std::fs::File::options().read(true).write(true).open(pipe).unwrap());
        egress
    });
    let text = bottle.rules(2, RULES).replace("routes:", &format!("audit: {audit}\nroutes:"));
    bottle.replace("routes.yaml", &text);
    until("the policy", || bottle.loaded().filter(|loaded| loaded.generation == 2));
    (bottle, reader.unwrap())
}

/// Asks with long lines until there is another answer, `times` at most; how many were allowed.
fn fill(bottle: &Bottle, times: usize) -> (usize, u16) {
    let path = format!("/ok/{}", "x".repeat(7_000));
    let mut client = bottle.tunnel("origin.test:8443");
    for passed in 0..times {
        let status = client.get(&path, "origin.test:8443").status;
        if status != 200 {
            return (passed, status);
        }
    }
    (times, 200)
}

#[test]
fn full_queue_closes_the_way_out_until_the_disk_takes_it() {
    let (bottle, mut reader) = piped("deny");
    let origin = bottle.tls_origin(|e| e.answer("in"));
    let (passed, status) = fill(&bottle, 4_000);
    assert_eq!((status, origin.take().len()), (503, passed));
    // What waits for the disk is some MiB.
    assert!((500..1_500).contains(&passed), "{passed}");
    let mut client = bottle.tunnel("origin.test:8443");
    let refused = client.get("/x", "origin.test:8443");
    assert_eq!((refused.status, refused.header("x-bottle-denied")), (503, Some("audit")));
    assert!(origin.take().is_empty());
    // Read on, it goes on, and no allowed request is missing in it.
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut bytes, mut lines) = (vec![0; 1 << 16], 0);
        while let Ok(read @ 1..) = std::io::Read::read(&mut reader, &mut bytes) {
            lines += memchr::memchr_iter(b'\n', &bytes[..read]).count();
            let _ = told.send(lines);
        }
    });
    until("it leaves again", || (client.get("/x", "origin.test:8443").status == 200).then_some(()));
    until("all is written", || heard.try_iter().last().filter(|lines| *lines > passed));
}

#[test]
fn full_queue_holds_nothing_up_where_the_plan_says_so() {
    let (bottle, _reader) = piped("allow");
    let origin = bottle.tls_origin(|e| e.answer("in"));
    // More than it closes after, by far.
    assert_eq!(fill(&bottle, 1_200), (1_200, 200));
    assert_eq!(origin.take().len(), 1_200);
}
