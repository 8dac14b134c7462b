//! A path that was judged is sent: its normal form is its own normal form, and no reading of it
//! leaves the root.
#![no_main]

use bottle::policy::normal_path;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = normal_path(text) else { return };
    let normal = path.as_str();
    assert!(normal.starts_with('/'), "{text:?} became {normal:?}");
    assert!(normal.bytes().all(|b| b.is_ascii_graphic()), "{text:?} became {normal:?}");
    assert!(!normal.split('/').any(|part| part == "." || part == ".."), "{text:?}: {normal:?}");
    let again = normal_path(normal).expect("a normal form is a path");
    assert_eq!(again.as_str(), normal, "{text:?}");
    let readings = path.readings();
    assert_eq!(readings[0], normal);
    for reading in &readings {
        assert!(reading.starts_with('/'), "{text:?} is read as {reading:?}");
    }
    // `all` asks for each of these, and for no other.
    path.all(|reading| {
        assert!(readings.iter().any(|known| known == reading), "{text:?}: {reading:?}");
        true
    });
    for missing in &readings {
        assert!(!path.all(|reading| reading != missing), "{missing:?} is not asked for");
    }
});
