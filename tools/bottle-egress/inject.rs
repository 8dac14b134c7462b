//! The credential of a rule, put into a request that the rule allows, after all checks and after the
//! scan of what the agent sent. What the agent wrote in that place is replaced, a
//! placeholder inside Basic's Base64 too.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bottle::credentials::Standing;
use bottle::policy::{Inject, Reason};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue, IF_RANGE, RANGE, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;

use crate::conf::Force;
use crate::mask::Mask;
use crate::reply::Refusal;
use crate::secrets::Secrets;

/// What was added to a request, and what its answer has to be looked at for.
pub(crate) struct Added {
    secrets: Arc<Secrets>,
    name: String,
    /// What hides the value in the answer.
    pub(crate) mask: Option<Mask>,
}

impl Added {
    /// Notes what the server answered.
    pub(crate) fn answered(&self, status: u16) {
        if let Ok(held) = self.secrets.usable(&self.name) {
            held.answered(status);
        }
    }
}

/// Adds what a rule says; `None` where it says nothing. The decision has refused already what is not
/// inside TLS.
pub(crate) fn add(force: &Force, rule: usize, parts: &mut Parts) -> Result<Option<Added>, Refusal> {
    let routes = force.policy.routes();
    let Some(inject) = routes.routes[rule].inject.as_ref() else { return Ok(None) };
    let lacks = |why| Refusal { reason: Reason::Secret, why };
    let name = &inject.secret;
    let held = force.secrets.usable(name).map_err(|standing| {
        let what = match standing {
            Standing::Missing => "is missing",
            _ => "has expired",
        };
        lacks(format!(
            "the value of secret '{name}', which the rule adds, {what}: the owner of the bottle renews it and runs 'bottle-apply --refresh-secrets {}'",
            routes.bottle
        ))
    })?;
    if inject.mask && parts.headers.contains_key(UPGRADE) {
        let why = "the rule masks answers, and those of a WebSocket cannot be".to_owned();
        return Err(Refusal { reason: Reason::Upgrade, why });
    }
    put(inject, held.expose(), parts).ok_or_else(|| {
        lacks(format!("secret '{name}' does not fit into this request: it is too long"))
    })?;
    let mask = inject.mask.then(|| Mask::new(inject, held.expose()));
    if mask.is_some() {
        // What is compressed cannot be searched, and of parts each could hold half of the value.
        parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        parts.headers.remove(RANGE);
        parts.headers.remove(IF_RANGE);
    }
    Ok(Some(Added { secrets: force.secrets.clone(), name: name.clone(), mask }))
}

/// Puts a value where the rule says.
fn put(inject: &Inject, value: &str, parts: &mut Parts) -> Option<()> {
    let (header, text) = match inject {
        Inject { query: Some(name), .. } => {
            let asked = parts.uri.path_and_query()?;
            let new = with_parameter(asked, name, value);
            let new = PathAndQuery::try_from(new).ok()?;
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.path_and_query = Some(new);
            parts.uri = uri.try_into().ok()?;
            return Some(());
        }
        Inject { header: Some(name), .. } => (name.parse().ok()?, value.to_owned()),
        Inject { basic: Some(user), .. } => (AUTHORIZATION, basic(user, value)),
        Inject { .. } => (AUTHORIZATION, format!("Bearer {value}")),
    };
    let mut text = HeaderValue::try_from(text).ok()?;
    // Kept out of the tables of HTTP/2 and of what prints headers.
    text.set_sensitive(true);
    parts.headers.insert::<HeaderName>(header, text);
    Some(())
}

/// RFC 7617.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The path and query with one parameter of that name: whatever the request had of it is gone,
/// however it was written. Some servers take `;` for `&`.
fn with_parameter(asked: &PathAndQuery, name: &str, value: &str) -> String {
    let mut text = asked.path().to_owned() + "?";
    for part in asked.query().unwrap_or_default().split_inclusive(['&', ';']) {
        let bare = part.trim_end_matches(['&', ';']);
        let key = bare.split('=').next().unwrap_or_default();
        if !bare.is_empty() && decoded(key) != name.as_bytes() {
            text.push_str(part);
        }
    }
    if !text.ends_with(['?', '&']) {
        if text.ends_with(';') {
            text.pop();
        }
        text.push('&');
    }
    text + &encoded(name) + "=" + &encoded(value)
}

/// A key as servers read it.
fn decoded(key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len());
    let mut bytes = key.as_bytes();
    while let [first, rest @ ..] = bytes {
        let digits = rest.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|d| u8::from_str_radix(d, 16).ok());
        match byte {
            Some(byte) => (out.push(byte), bytes = &rest[2..]),
            None => (out.push(if *first == b'+' { b' ' } else { *first }), bytes = rest),
        };
    }
    out
}

/// A text as RFC 3986 has it in a query: everything but unreserved characters encoded.
pub(crate) fn encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use serde_json::json;

    use super::*;

    fn request(uri: &str) -> Parts {
        let request = Request::get(uri).header("authorization", "Basic cGxhY2U6aG9sZGVy");
        request.header("x-key", "one").header("x-key", "two").body(()).unwrap().into_parts().0
    }

    fn inject(place: &serde_json::Value) -> Inject {
        let mut inject = json!({ "secret": "t" });
        inject.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        serde_json::from_value(inject).unwrap()
    }

    fn headers(parts: &Parts, name: &str) -> Vec<String> {
        let all = parts.headers.get_all(name).iter();
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_the_agent_sent_in_its_place_is_replaced() {
        let mut parts = request("/x?a=1");
        put(&inject(&json!({ "bearer": true })), "s3cr3t", &mut parts).unwrap();
        assert_eq!(headers(&parts, "authorization"), ["Bearer s3cr3t"]);
        assert!(parts.headers["authorization"].is_sensitive());
        assert!(!format!("{:?}", parts.headers).contains("s3cr3t"));
        put(&inject(&json!({ "basic": "git" })), "s3cr3t", &mut parts).unwrap();
        assert_eq!(headers(&parts, "authorization"), ["Basic Z2l0OnMzY3IzdA=="]);
        put(&inject(&json!({ "header": "X-Key" })), "s3cr3t", &mut parts).unwrap();
        assert_eq!(headers(&parts, "x-key"), ["s3cr3t"]);
        assert_eq!(parts.uri, "/x?a=1");
    }

    #[test]
    fn parameter_is_there_once_however_the_agent_wrote_it() {
        for (asked, sent) in [
            ("/x", "/x?key=s%263"),
            ("/x?", "/x?key=s%263"),
            ("/x?a=1", "/x?a=1&key=s%263"),
            ("/x?a=1&", "/x?a=1&key=s%263"),
            ("/x?key=mine", "/x?key=s%263"),
            ("/x?key", "/x?key=s%263"),
            ("/x?key=1&b=2&key=3", "/x?b=2&key=s%263"),
            ("/x?%6bey=1&k%65y=2;key=3&b=key", "/x?b=key&key=s%263"),
            ("/x?a=1;key=2;b=3", "/x?a=1;b=3&key=s%263"),
            ("/x?a=1;key=2", "/x?a=1&key=s%263"),
            ("/x?keys=1&mykey=2&Key=3", "/x?keys=1&mykey=2&Key=3&key=s%263"),
            ("/x?a=%zz&%=&%6", "/x?a=%zz&%=&%6&key=s%263"),
        ] {
            let mut parts = request(asked);
            put(&inject(&json!({ "query": "key" })), "s&3", &mut parts).unwrap();
            assert_eq!(parts.uri, sent, "{asked}");
        }
    }

    #[test]
    fn request_that_would_be_too_long_is_refused_not_cut() {
        let long = format!("/x?a={}", "b".repeat(65_000));
        let mut parts = request(&long);
        assert!(put(&inject(&json!({ "query": "key" })), &"s".repeat(1000), &mut parts).is_none());
    }
}
