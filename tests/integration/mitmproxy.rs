//! mitmproxy as the engine of egress, in its image on the real engine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use bottle::policy::Loaded;

use crate::support::{Bottle, docker, images, mitmproxy};
use crate::up::{container, probe};

/// The addon in the image.
const ADDON: &str = "/opt/bottle/bottle.py";

#[test]
fn mitmproxy_runs_as_the_caller_with_an_addon_that_nobody_can_change() {
    if !images() || !mitmproxy() {
        return;
    }
    let bottle = Bottle::new(&probe().set("bottles.dev.egress.engine", "mitmproxy"));
    bottle.start();
    let egress = container(&bottle, "egress");
    let conf = bottle.state().join("implementer/egress/conf");
    let owner = fs::metadata(&conf).unwrap();
    let user = format!("{}:{}", owner.uid(), owner.gid());
    let format = "{{.Config.User}} {{json .Config.Entrypoint}} {{.HostConfig.ReadonlyRootfs}}";
    let run = docker(["inspect", "--format", format, &egress]).ok();
    assert_eq!(run.trim(), format!("{user} [\"mitmdump\"] true"));

    // mitmproxy and the judge, both as that user.
    let all = docker(["top", &egress, "-eo", "pid,uid,args"]).ok();
    let all: Vec<Vec<&str>> =
        all.lines().skip(1).map(|line| line.split_whitespace().skip(1).collect()).collect();
    let uid = owner.uid().to_string();
    assert!(all.len() == 2 && all.iter().all(|words| words[0] == uid), "{all:#?}");
    assert!(all[0].contains(&ADDON), "{all:#?}");
    assert_eq!(all[1][1..3], ["/opt/bottle/bottle-egress", "judge"]);

    // Nothing of the image, of the configuration or of the secrets can be written, by root neither.
    let write = |user: &str, path: &str| {
        docker(["exec", "--user", user, &egress, "sh", "-c", "echo >>\"$0\"", path])
    };
    for path in [ADDON, "/opt/bottle/new.py", "/etc/bottle/routes.yaml", "/etc/bottle-secrets/new"]
    {
        for user in [&*user, "0:0"] {
            let run = write(user, path);
            assert_ne!(run.status, 0, "{user} wrote {path}: {}", run.report());
        }
    }
    // The control.
    write(&user, "/run/bottle/new").ok();

    // Of its files only the policy is read again, and one that is wrong changes nothing.
    let loaded = || -> Loaded {
        let text = fs::read(bottle.state().join("implementer/egress/run/loaded.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let before = loaded();
    let routes = fs::read_to_string(conf.join("routes.yaml")).unwrap();
    let put = |text: &str| {
        fs::write(conf.join(".new"), text).unwrap();
        std::os::unix::fs::chown(conf.join(".new"), Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::rename(conf.join(".new"), conf.join("routes.yaml")).unwrap();
    };
    put(&routes.replacen("version: 1", "version: 9", 1));
    let until = |what: &str, is: &dyn Fn(&Loaded) -> bool| -> Loaded {
        for _ in 0..400 {
            let now = loaded();
            if is(&now) {
                return now;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("waited in vain until {what}: {:?}", loaded());
    };
    let after = until("it is told", &|now| now.refused.is_some());
    assert_eq!((&after.sha256, after.generation), (&before.sha256, before.generation));
    let run = bottle.exec(&["bottle-probe", "get", "https://other.example.test/"]);
    assert!(run.stdout.contains("bottle-egress"), "{}", run.report());
    put(&routes.replace("generation: ", "generation: 1"));
    // The control: a file that is right is taken.
    until("it is in force", &|now| now.refused.is_none() && now.sha256 != before.sha256);
}
