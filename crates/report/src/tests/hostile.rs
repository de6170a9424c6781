//! Records are hostile input: whatever a file holds, reading ends in a record or an error that
//! names the place, and whatever a record holds, reports end in text that drives no terminal.

use std::{fs, path::Path, sync::LazyLock};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::record::{sample, with_restored};
use crate::{ReportError, Style, csv, json as to_json, markdown, read, read::parse, terminal};

fn text_of(error: ReportError) -> String {
    error.to_string()
}

fn parse_text(text: &str) -> Result<compare_spec::Record, String> {
    parse(Path::new("r.json"), text.as_bytes()).map_err(text_of)
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record.json");
    fs::write(&path, to_json(&sample())).unwrap();
    assert_eq!(read(&path).unwrap(), sample());
}

#[test]
fn errors_name_the_file_and_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.json");
    let error = read(&missing).unwrap_err();
    assert!(text_of(error).ends_with("missing.json: cannot read the record"));
    assert!(matches!(read(dir.path()), Err(ReportError::Read { .. })));

    let parse = |text: &str| parse_text(text).unwrap_err();
    assert_eq!(
        parse(r#"{"schema": "compare/9", "else": 1}"#),
        "r.json: compare/9: this build reads compare/1"
    );
    let foreign = "r.json: not a record of this tool: it has no text field `schema`";
    for text in ["{}", "[]", "3", "null", r#"{"schema": 1}"#] {
        assert_eq!(parse(text), foreign, "{text}");
    }
    assert_eq!(parse(""), "r.json:1:0: EOF while parsing a value");
    assert_eq!(parse("{\"schema\": \"compare/1\",\n oops"), "r.json:2:2: key must be a string");
    assert_eq!(parse(r#"{"schema": "compare/1"}"#), "r.json:1:23: missing field `tool`");
}

#[test]
fn errors_name_the_field() {
    let broken = |pointer: &str, value: Value| {
        let mut record = SAMPLE.1.clone();
        *record.pointer_mut(pointer).unwrap() = value;
        let error = parse_text(&serde_json::to_string_pretty(&record).unwrap()).unwrap_err();
        error.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(
        broken("/trials/3/events_ns/ready", json!("soon")),
        "field `trials[3].events_ns.ready`: invalid type: string \"soon\", expected u64"
    );
    assert_eq!(
        broken("/host/cgroup", json!("v3")),
        "field `host.cgroup`: unknown variant `v3`, expected one of `v1`, `v2`, `hybrid`, `none`"
    );
    assert_eq!(broken("/image", json!({})), "field `image`: missing field `digest`");
    assert_eq!(
        broken("/summary/0/ci95", json!([1.0])),
        "field `summary[0].ci95`: invalid length 1, expected an array of length 2"
    );
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_fills_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.json");
    fs::File::create(&path).unwrap().set_len(crate::MAX_RECORD_BYTES + 1).unwrap();
    assert!(matches!(read(&path), Err(ReportError::TooLong { .. })));
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("{{\"schema\": \"compare/1\", \"tool\": {}", "[".repeat(100_000));
    assert!(parse_text(&text).is_err());
}

/// The sample record with every optional field, whose statistics take a moment to draw.
static SAMPLE: LazyLock<(String, Value)> = LazyLock::new(|| {
    let restored = with_restored();
    let mut record = sample();
    record.plan.spec.starts = restored.plan.spec.starts;
    record.snapshots = restored.snapshots;
    let text = to_json(&record);
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
});

/// A value that has no business where it is put.
fn intruder() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just(1e308), Just(-1e308), Just(0.0), Just(5e-324)].prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\u{1b}\n\u{202e}|`<a_é∞ ]{0,40}".prop_map(Value::from),
        Just(Value::from("x".repeat(5_000))),
        Just(json!([])),
        Just(json!({})),
        Just(json!([u32::MAX, 0, 1])),
    ]
}

/// Every place in a document.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                pointers(
                    value,
                    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

fn check_reports(bytes: &[u8]) {
    let Ok(record) = parse(Path::new("r.json"), bytes) else { return };
    for width in [0, 80, usize::MAX] {
        let text = terminal(&record, Style { color: false, width });
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.starts_with("host: l"));
    }
    let text = markdown(&record);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    csv(&record);
    to_json(&record);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(Path::new("r.json"), &bytes).map_err(text_of);
    }

    #[test]
    fn damaged_text(place: prop::sample::Index, byte: u8, cut: bool) {
        let mut bytes = SAMPLE.0.clone().into_bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if cut {
            bytes.truncate(place);
        }
        check_reports(&bytes);
    }

    #[test]
    fn fields_replaced(changes in prop::collection::vec((any::<prop::sample::Index>(), intruder()), 1..4)) {
        let mut record = SAMPLE.1.clone();
        let mut places = Vec::new();
        pointers(&record, String::new(), &mut places);
        for (place, value) in changes {
            if let Some(field) = record.pointer_mut(&places[place.index(places.len())]) {
                *field = value;
            }
        }
        check_reports(record.to_string().as_bytes());
    }

    /// Only values of the right type, so that most of these reach the reports.
    #[test]
    fn numbers_and_texts_replaced(changes in prop::collection::vec((any::<prop::sample::Index>(), intruder()), 1..12)) {
        let mut record = SAMPLE.1.clone();
        let mut places = Vec::new();
        pointers(&record, String::new(), &mut places);
        for (place, value) in changes {
            if let Some(field) = record.pointer_mut(&places[place.index(places.len())]) {
                let same = std::mem::discriminant(field) == std::mem::discriminant(&value);
                let whole = field.is_u64() == value.is_u64();
                if same && whole && field.as_str() != Some("compare/1") {
                    *field = value;
                }
            }
        }
        check_reports(record.to_string().as_bytes());
    }
}
