//! What a fuzzer found, and that the oracle sees what it is there for.

use super::*;

fn trial() -> Trial {
    Trial::new().unwrap()
}

#[test]
fn requests_are_forwarded_as_they_were_judged_however_they_are_cut() {
    let trial = trial();
    let text = b"POST http://a.example/ok/a/../b?q HTTP/1.1\r\nHost: A.example:80\r\nConnection: x\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET http://a.example/x HTTP/1.1\r\n\r\n";
    assert_eq!(trial.holds(Way::Proxy, &[text]), Ok(2));
    for cut in 0..text.len() {
        assert_eq!(trial.holds(Way::Proxy, &[&text[..cut], &text[cut..]]), Ok(2), "{cut}");
    }
    let text = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(trial.holds(Way::Tunnel, &[text, text]), Ok(2));
}

#[test]
fn what_is_refused_does_not_reach_the_server() {
    let trial = trial();
    for (way, text) in [
        (Way::Proxy, "GET http://a.example/y HTTP/1.1\r\n\r\n"),
        (Way::Proxy, "GET http://b.example/x HTTP/1.1\r\n\r\n"),
        (Way::Proxy, "GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        (Way::Proxy, "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        (Way::Proxy, "GET http://a.example/x HTTP/1.1\n\n"),
        (Way::Proxy, "CONNECT a.example:443 HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
        (Way::Tunnel, "GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n"),
        (Way::Tunnel, "GET /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    ] {
        assert_eq!(trial.holds(way, &[text.as_bytes()]), Ok(0), "{text}");
    }
}

#[test]
fn body_of_a_get_is_not_lost() {
    let trial = trial();
    for framing in [
        "content-length: 4\r\n\r\nbody",
        "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let text = format!("GET /x HTTP/1.1\r\nhost: a.example\r\n{framing}");
        assert_eq!(trial.holds(Way::Tunnel, &[text.as_bytes()]), Ok(1), "{text}");
    }
}

#[test]
fn oracle_sees_what_must_not_happen() {
    let policy = Conf::fixed(ROUTES.as_bytes()).unwrap().force().policy.clone();
    let told = |line: &str| {
        format!(
            r#"{{"time":"","kind":"http","client":"127.0.0.1","scheme":"https","method":"GET","host":"a.example","port":443,"path":"{line}","decision":"allow","rule":0,"status":200,"sent":0,"received":0,"duration_us":0,"generation":1,"policy":""}}"#
        )
    };
    let ask = "GET /x HTTP/1.1\r\nhost: a.example\r\n\r\n";
    let look = |sent: &str, forwarded: &str, path: &str, ended: bool| {
        let (requests, _) = reading::requests(forwarded.as_bytes());
        let parsed = requests.iter().map(|it| {
            let host = it.values("host").next().unwrap_or_default();
            [it.method.clone(), it.target.clone(), String::from_utf8_lossy(host).into_owned()]
        });
        let seen = Seen {
            parsed: parsed.collect(),
            forwarded: vec![forwarded.into()],
            decisions: told(path).into(),
            ended,
        };
        holds::check(&policy, Way::Tunnel, sent.as_bytes(), &seen)
    };
    assert_eq!(look(ask, ask, "/x", true), Ok(1));
    let smuggled = format!("{ask}GET /y HTTP/1.1\r\nhost: a.example\r\n\r\n");
    for (sent, forwarded, path, ended, why) in [
        (ask, ask, "/x", false, "goes on"),
        (ask, &*smuggled, "/x", true, "no rule"),
        (ask, &*[ask, ask].concat(), "/x", true, "forwarded of"),
        (ask, &*ask.replace("/x", "/ok/../x"), "/x", true, "normal form"),
        (ask, &*ask.replace("a.example", "b.example"), "/x", true, "'Host'"),
        (ask, &*ask.replace("host:", "keep-alive: 1\r\nhost:"), "/x", true, "hop"),
        (ask, &*ask.replace("host:", "added: 1\r\nhost:"), "/x", true, "nobody asked"),
        (ask, &*ask.replace("GET", "POST"), "/x", true, "nobody asked"),
        (ask, &*ask.replace("\r\n\r\n", "\r\ncontent-length: 1\r\n\r\nz"), "/x", true, "nobody"),
        (ask, &*ask.replace("\r\n\r\n", "\r\nx: \n\r\n"), "/x", true, "two ways"),
        (ask, ask, "/ok/a", true, "never forwarded"),
        (ask, "", "/x", true, "never forwarded"),
    ] {
        let found = look(sent, forwarded, path, ended);
        assert!(found.as_ref().is_err_and(|told| told.contains(why)), "{why}: {found:?}");
    }
}
