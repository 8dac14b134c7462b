//! What must not leave does not leave by HTTP/2 either: in a head, across DATA frames, in trailers. And
//! trailers where the two sides speak different versions.

use std::sync::{Arc, Mutex};

use h2::client::SendRequest;
use hyper::{HeaderMap, Response};

use crate::http2::{Origin, Work, ask, client, connect};
use crate::support::Bottle;

/// A token that is none but for its form.
fn token() -> String {
    ["gh", "p_FAKE0FAKE1FAKE2FAKE3FAKE4FAKE52nfc85"].concat()
}

/// A bottle with one rule that ends with these words, and a server that keeps what it gets of bodies and
/// trailers.
fn bottle(words: &str) -> (Bottle, Origin, Arc<Mutex<String>>) {
    let rule = format!(
        "\n- {{host: origin.test, kind: name, ports: [8443], addresses: [127.0.0.0/8]{words}}}\n"
    );
    let bottle = Bottle::with_rules(&rule);
    let got = Arc::<Mutex<String>>::default();
    let theirs = got.clone();
    let origin = Origin::serve(&bottle, move |request, mut respond| -> Work {
        let got = theirs.clone();
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                got.lock().unwrap().push_str(std::str::from_utf8(&data).unwrap());
            }
            if let Ok(Some(trailers)) = body.trailers().await {
                got.lock().unwrap().extend(trailers.values().map(|value| value.to_str().unwrap()));
            }
            let _ = respond.send_response(Response::new(()), true);
        })
    });
    (bottle, origin, got)
}

/// Sends an upload in DATA frames and trailers; the status, if there is one.
async fn upload(
    sender: &SendRequest<bytes::Bytes>,
    header: &str,
    frames: &[&str],
    trailer: &str,
) -> Option<u16> {
    let mut sender = sender.clone().ready().await.unwrap();
    let mut head = ask("POST", "/x");
    head.headers_mut().insert("x-token", header.parse().unwrap());
    let (answer, mut send) = sender.send_request(head, false).unwrap();
    for frame in frames {
        // A stream that was reset takes no more.
        let _ = send.send_data((*frame).to_owned().into(), false);
        tokio::task::yield_now().await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", trailer.parse().unwrap());
    let _ = send.send_trailers(trailers);
    answer.await.ok().map(|answer| answer.status().as_u16())
}

#[test]
fn token_does_not_leave_by_any_part_of_a_request() {
    let token = token();
    let bytes: Vec<_> = token.split("").filter(|byte| !byte.is_empty()).collect();
    let (first, last) = token.split_at(20);
    for (header, frames, trailer, place) in [
        (&*token, &["words"][..], "7", "header"),
        ("7", &[first, last], "7", "body"),
        ("7", &bytes, "7", "body"),
        ("7", &["words"], &*token, "header"),
        ("7", &[], &*token, "header"),
    ] {
        let (bottle, origin, got) = bottle("");
        let status = client(async {
            let sender = connect(&bottle).await;
            upload(&sender, header, frames, trailer).await
        });
        assert!(matches!(status, None | Some(403)), "{place} {status:?}");
        let line = bottle.decisions(1).remove(0);
        assert_eq!(line.found, [format!("github-token in {place}")]);
        let seen = format!("{:?} {}", origin.heads.lock().unwrap(), got.lock().unwrap());
        assert!(!seen.contains(&token) && !seen.contains(&token[30..]), "{place}: {seen}");
        // The control: the same where nothing looks.
        let (bottle, origin, got) = self::bottle(", dlp: off");
        let status = client(async {
            let sender = connect(&bottle).await;
            upload(&sender, header, frames, trailer).await
        });
        assert_eq!(status, Some(200), "{place}");
        let seen = format!("{:?} {}", origin.heads.lock().unwrap(), got.lock().unwrap());
        assert!(seen.contains(&token), "{place}: {seen}");
    }
}

#[test]
fn token_in_the_trailers_of_http_1_does_not_leave_either() {
    for (words, leaves) in [("", false), (", dlp: off", true)] {
        let (bottle, _origin, got) = bottle(words);
        let mut one = bottle.tunnel("origin.test:8443");
        one.send(format!("POST /x HTTP/1.1\r\nhost: origin.test:8443\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: {}\r\n\r\n", token()));
        let status = one.answer(false).map(|answer| answer.status);
        assert_eq!(status, Some(if leaves { 200 } else { 403 }));
        assert_eq!(got.lock().unwrap().contains(&token()), leaves);
    }
}

#[test]
fn announced_trailers_of_http_2_reach_a_client_of_http_1() {
    let bottle = Bottle::start();
    let _origin = Origin::serve(&bottle, |_, mut respond| -> Work {
        let mut head = Response::new(());
        head.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        let mut send = respond.send_response(head, false).unwrap();
        send.send_data("hi".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        Box::pin(async {})
    });
    let mut one = bottle.tunnel("origin.test:8443");
    let head = one.ask_head("GET /x HTTP/1.1\r\nhost: origin.test:8443\r\nte: trailers\r\n\r\n");
    assert_eq!(head.header("trailer"), Some("x-sum"));
    assert_eq!((one.chunk().unwrap(), one.chunk().unwrap()), (b"hi".to_vec(), Vec::new()));
    assert_eq!(one.line().as_deref(), Some("x-sum: 7"));
}

#[test]
fn announced_trailers_of_http_2_reach_a_server_of_http_1() {
    let bottle = Bottle::start();
    let got = Arc::<Mutex<Vec<u8>>>::default();
    let theirs = got.clone();
    let _origin = bottle.tls_origin(move |e| {
        use std::io::BufRead;
        let mut all = String::new();
        while !all.ends_with("\r\n\r\n") {
            e.stream.read_line(&mut all).unwrap();
        }
        theirs.lock().unwrap().extend(all.as_bytes());
        e.answer("in");
    });
    let status = client(async {
        let mut sender = connect(&bottle).await.ready().await.unwrap();
        let mut head = ask("POST", "/x");
        head.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        let (answer, mut send) = sender.send_request(head, false).unwrap();
        send.send_data("hi".into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        answer.await.unwrap().status()
    });
    assert_eq!(status, 200);
    assert_eq!(String::from_utf8_lossy(&got.lock().unwrap()), "2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
}
