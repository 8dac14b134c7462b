//! `ca` and `check`, and what `serve` says when it cannot.

use std::process::{Command, Output};

use crate::support::{Bottle, EGRESS, RULES, have, place, routes, run};

fn egress(args: &[&str]) -> Output {
    run(Command::new(EGRESS).args(args))
}

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn authority_passes_a_strict_verifier() {
    if !have("openssl") {
        return;
    }
    let bottle = Bottle::start();
    let ca = bottle.folder.join("conf/ca.pem");
    let output = run(Command::new("sh")
        .arg("-c")
        .arg(
            "openssl s_client -proxy $PROXY -connect origin.test:8443 -servername origin.test \
             -CAfile $CA -x509_strict -verify_return_error -showcerts </dev/null",
        )
        .env("PROXY", bottle.proxy().to_string())
        .env("CA", &ca));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    let key = run(Command::new("openssl")
        .args(["ec", "-noout", "-text", "-in"])
        .arg(bottle.folder.join("conf/ca-key.pem")));
    assert!(key.status.success());
}

#[test]
fn names_that_are_no_slugs_get_no_authority() {
    let (code, stderr) = told(&egress(&["ca", "--name", "../x"]));
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("bottle-egress: ") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(told(&egress(&["ca", "--name", "x", "--days", "0"])).0, Some(2));
}

#[test]
fn check_is_silent_about_valid_routes_and_names_the_fault_of_others() {
    let (folder, _) = place();
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("routes.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        told(&egress(&["check", file.to_str().unwrap()]))
    };
    let good = routes(1, &RULES.replace("$A", "127.0.0.1"));
    assert_eq!(check(&good), (Some(0), String::new()));
    let (code, stderr) = check(&good.replace("closed.test", "'*.test'"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("host '*.test': it covers a whole top-level domain"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(told(&egress(&["check", "/nonexistent"])).0, Some(2));
}

#[test]
fn serve_without_a_usable_configuration_says_so_and_serves_nothing() {
    let (folder, address) = place();
    for name in ["conf", "run"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let (conf, run) = (folder.join("conf"), folder.join("run"));
    let serve = || {
        told(&egress(&[
            "serve",
            "--listen",
            &format!("{address}:3128"),
            "--conf",
            conf.to_str().unwrap(),
            "--run",
            run.to_str().unwrap(),
        ]))
    };
    let (code, stderr) = serve();
    assert_eq!(code, Some(2));
    assert!(stderr.contains("read 'ca.pem'"), "{stderr}");
    let made = String::from_utf8(egress(&["ca", "--name", "x"]).stdout).unwrap();
    let (key, cert) = made.split_at(made.find("-----BEGIN CERT").unwrap());
    std::fs::write(conf.join("ca.pem"), cert).unwrap();
    std::fs::write(conf.join("ca-key.pem"), key).unwrap();
    std::fs::write(conf.join("routes.yaml"), "version: 1\n").unwrap();
    let (code, stderr) = serve();
    assert_eq!(code, Some(2));
    assert!(stderr.contains("it is not whole"), "{stderr}");
    assert!(!run.join("loaded.json").exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn real_clients_pass() {
    let bottle = Bottle::start();
    let _origin = bottle.tls_origin(|e| e.answer("hello\n"));
    let output = bottle.curl(&["https://origin.test:8443/x"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    if !have("python3") {
        return;
    }
    let script = "import ssl, sys, urllib.request as u\n\
        c = ssl.create_default_context(cafile=sys.argv[2]); c.verify_flags |= ssl.VERIFY_X509_STRICT\n\
        o = u.build_opener(u.ProxyHandler({'https': sys.argv[1]}), u.HTTPSHandler(context=c))\n\
        print(o.open('https://origin.test:8443/x').read().decode(), end='')\n";
    let output = run(Command::new("python3")
        .args(["-c", script, &format!("http://{}", bottle.proxy())])
        .arg(bottle.folder.join("conf/ca.pem")));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn it_is_small_and_ends_at_once() {
    let mut bottle = Bottle::start();
    let _idle: Vec<_> = (0..20).map(|_| bottle.plain()).collect();
    let status = std::fs::read_to_string(format!("/proc/{}/status", bottle.pid())).unwrap();
    assert!(status.contains("VmRSS"));
    assert_eq!(bottle.end(), Some(0));
}
